//! Bringing a Node into being, and keeping its labels: this agent's labels, nobody else's, and nothing of the spec once
//! the Node is there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};

use super::machine::Machine;
use crate::config::Config;

/// The Node as the master has it after this: made, or with this agent's labels.
pub(super) async fn register(client: &Client, config: &Config, machine: &Machine) -> Result<Node, kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let Some(node) = nodes.get_opt(&config.node_name).await? else {
        tracing::info!(node = config.node_name, "registering this node");
        return nodes.create(&PostParams::default(), &node(config, machine)).await;
    };
    match missing_labels(&node, &labels(config, machine)) {
        missing if missing.is_empty() => Ok(node),
        missing => {
            let patch = serde_json::json!({ "metadata": { "uid": node.uid(), "labels": missing } });
            nodes.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await
        }
    }
}

fn node(config: &Config, machine: &Machine) -> Node {
    let ranges: Vec<String> = config.pod_cidrs.iter().map(ToString::to_string).collect();
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config, machine)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: config.provider_id.clone(),
            taints: Some(config.register_taints.clone()).filter(|taints| !taints.is_empty()),
            pod_cidr: ranges.first().cloned(),
            pod_cidrs: Some(ranges).filter(|ranges| !ranges.is_empty()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

fn labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
        ("kubernetes.io/os".to_owned(), machine.info.operating_system.clone()),
        ("kubernetes.io/arch".to_owned(), machine.info.architecture.clone()),
    ]);
    labels.extend(config.node_labels.clone());
    labels
}

fn missing_labels(node: &Node, wanted: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let has = node.labels();
    wanted.iter().filter(|(name, value)| has.get(*name) != Some(value)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_that_differ_are_written() {
        let has = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("theirs".to_owned(), "x".to_owned())]);
        let node = Node { metadata: ObjectMeta { labels: Some(has), ..Default::default() }, ..Default::default() };
        let wanted = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(missing_labels(&node, &wanted), BTreeMap::from([("b".to_owned(), "2".to_owned())]));
    }
}
