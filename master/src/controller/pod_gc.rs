//! Deletes pods whose node is gone, and pods that were asked to end before they had a node: nobody else will.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::action::{Action, Plan};
use super::observe::World;

/// How long a node may be missing: it may be registering again.
const MISSING_MAX: Duration = Duration::from_secs(40);

pub(super) fn plan(world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for pod in &world.pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        if node.is_empty() {
            if pod.metadata.deletion_timestamp.is_some() {
                plan.actions.push(delete(pod, "pod was deleted before it had a node"));
            }
            continue;
        }
        let Some(since) = world.missing_since.get(node) else { continue };
        let gone_at = since.checked_add(MISSING_MAX).unwrap_or(Timestamp::MAX);
        if gone_at <= now {
            plan.actions.push(delete(pod, "node is gone"));
        } else {
            plan.wake_by(gone_at);
        }
    }
    plan
}

fn delete(pod: &Pod, reason: &'static str) -> Action {
    Action::DeletePod {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn after(pod: Value, missing_secs: Option<i64>) -> Plan {
        let now = Timestamp::from_second(1000).unwrap();
        let since = |secs: i64| ("n".to_owned(), Timestamp::from_second(1000 - secs).unwrap());
        let world = World {
            pods: vec![Arc::new(serde_json::from_value(pod).unwrap())],
            missing_since: missing_secs.into_iter().map(since).collect(),
            ..World::default()
        };
        plan(&world, now)
    }

    #[test]
    fn pods_of_missing_nodes_go_after_a_while() {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n"}});
        assert_eq!(after(pod.clone(), None).actions, []);
        let soon = after(pod.clone(), Some(10));
        assert_eq!((soon.actions.len(), soon.wake_at), (0, Some(Timestamp::from_second(1030).unwrap())));
        assert_eq!(after(pod, Some(40)).actions.len(), 1);
    }

    #[test]
    fn deleted_pods_without_a_node_go_at_once() {
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
        assert_eq!(after(pod, None).actions.len(), 1);
        assert_eq!(after(json!({"metadata": {"name": "p"}, "spec": {}}), None).actions, []);
    }
}
