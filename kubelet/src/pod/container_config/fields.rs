//! What a pod may learn about itself: `fieldRef` and `resourceFieldRef`, for environment variables and files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use berth_api::quantity::Quantity;
use berth_api::resource::{CPU, ContainerResources, MEMORY};
use k8s_openapi::api::core::v1::{ObjectFieldSelector, ResourceFieldSelector};

use crate::node::NodeFacts;
use crate::pod::desired::Desired;

/// Where the answers come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    /// The pod.
    pub desired: &'a Desired,
    /// The pod's addresses.
    pub pod_ips: &'a [IpAddr],
    /// The node.
    pub node: &'a NodeFacts,
    /// The node's name.
    pub node_name: &'a str,
}

impl Fields<'_> {
    /// The value of a field of the pod.
    ///
    /// # Errors
    /// When there is no such field, in a sentence.
    pub(crate) fn field(&self, selector: &ObjectFieldSelector) -> Result<String, String> {
        let meta = &self.desired.pod.metadata;
        let path = selector.field_path.as_str();
        if let Some((kind, key)) = subscript(path) {
            let map = match kind {
                "metadata.labels" => &meta.labels,
                "metadata.annotations" => &meta.annotations,
                _ => return Err(format!("fieldPath {path:?} is not known")),
            };
            return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
        }
        let spec = self.desired.spec();
        Ok(match path {
            "metadata.name" => self.desired.id.name.clone(),
            "metadata.namespace" => self.desired.id.namespace.clone(),
            "metadata.uid" => self.desired.id.uid.to_string(),
            "metadata.labels" => lines(meta.labels.as_ref()),
            "metadata.annotations" => lines(meta.annotations.as_ref()),
            "spec.nodeName" => self.node_name.to_owned(),
            "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
            "status.hostIP" => self.node.addresses.first().map(ToString::to_string).unwrap_or_default(),
            "status.hostIPs" => joined(&self.node.addresses),
            "status.podIP" => self.pod_ips.first().map(ToString::to_string).unwrap_or_default(),
            "status.podIPs" => joined(self.pod_ips),
            _ => return Err(format!("fieldPath {path:?} is not known")),
        })
    }

    /// The value of a container's request or limit, in units of the divisor, rounded up. A limit that is not set is
    /// what the node has for pods.
    ///
    /// # Errors
    /// When there is no such container or resource, in a sentence.
    pub(crate) fn resource(&self, selector: &ResourceFieldSelector, own_name: Option<&str>) -> Result<String, String> {
        let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).or(own_name);
        let name = name.ok_or_else(|| format!("resource {:?} needs a containerName", selector.resource))?;
        let (_, spec) = self.desired.container(name).ok_or_else(|| format!("container {name:?} is not in the pod"))?;
        let resources = ContainerResources::of(spec).map_err(|error| format!("{error}: {}", error.source))?;
        let divisor = match &selector.divisor {
            Some(divisor) => Quantity::try_from(divisor).map_err(|error| format!("divisor: {error}"))?,
            None => Quantity::ZERO,
        };
        let divisor = if divisor.is_zero() { Quantity::from_units(1) } else { divisor };
        let amount = match selector.resource.as_str() {
            "limits.cpu" => resources.limits.get(CPU).copied().unwrap_or_else(|| self.node_cpu()),
            "limits.memory" => resources.limits.get(MEMORY).copied().unwrap_or_else(|| self.node_memory()),
            "requests.cpu" => resources.requests.get(CPU).copied().unwrap_or_default(),
            "requests.memory" => resources.requests.get(MEMORY).copied().unwrap_or_default(),
            other => {
                let amounts = match other.split_once('.') {
                    Some(("limits", resource)) => resources.limits.get(resource),
                    Some(("requests", resource)) => resources.requests.get(resource),
                    _ => return Err(format!("resource {other:?} is not known")),
                };
                amounts.copied().unwrap_or_default()
            }
        };
        Ok(rounded_up(amount, divisor).to_string())
    }

    fn node_cpu(&self) -> Quantity {
        Quantity::from_millis(i64::try_from(self.node.allocatable_cpu_millis).unwrap_or(i64::MAX))
    }

    fn node_memory(&self) -> Quantity {
        Quantity::from_bytes(i64::try_from(self.node.allocatable_memory_bytes).unwrap_or(i64::MAX))
    }
}

/// How many divisors are in an amount. A divisor below one counts thousandths, all others whole units, so that the
/// bytes of a large memory do not overflow.
fn rounded_up(amount: Quantity, divisor: Quantity) -> i64 {
    let (amount, divisor) = match divisor < Quantity::from_units(1) {
        true => (amount.millis(), divisor.millis()),
        false => (amount.units(), divisor.units()),
    };
    let divisor = divisor.max(1);
    amount / divisor + i64::from(amount % divisor > 0)
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// One `key="value"` per line, the value quoted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (key, value) in map.into_iter().flatten() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{key}={value:?}");
    }
    out.pop();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::desired::Presence;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;

    fn with<T>(use_it: impl FnOnce(Fields<'_>) -> T) -> T {
        let resources = json!({ "limits": { "cpu": "1500m" }, "requests": { "memory": "100Mi" } });
        let pod = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u-1",
                "labels": { "app": "web", "tier": "a \"b\"" },
            },
            "spec": { "serviceAccountName": "robot", "containers": [{ "name": "c", "resources": resources }] },
        });
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        let desired = Desired::parse(pod, Presence::Wanted, Duration::from_secs(300)).unwrap();
        let node = NodeFacts {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            allocatable_cpu_millis: 2000,
            allocatable_memory_bytes: 1 << 30,
        };
        let pod_ips = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        use_it(Fields { desired: &desired, pod_ips: &pod_ips, node: &node, node_name: "n1" })
    }

    fn check_field(path: &str, expected: &str) {
        let selector = ObjectFieldSelector { field_path: path.to_owned(), ..Default::default() };
        assert_eq!(with(|fields| fields.field(&selector)).as_deref(), Ok(expected), "{path}");
    }

    #[test]
    fn a_pod_knows_its_fields() {
        check_field("metadata.name", "web");
        check_field("metadata.namespace", "shop");
        check_field("metadata.uid", "u-1");
        check_field("metadata.labels['app']", "web");
        check_field("metadata.labels['none']", "");
        check_field("metadata.labels", "app=\"web\"\ntier=\"a \\\"b\\\"\"");
        check_field("spec.nodeName", "n1");
        check_field("spec.serviceAccountName", "robot");
        check_field("status.hostIP", "192.0.2.1");
        check_field("status.podIP", "10.0.0.2");
        check_field("status.podIPs", "10.0.0.2,fd00::2");
    }

    fn check_resource(resource: &str, divisor: &str, expected: &str) {
        let selector = json!({ "resource": resource, "divisor": divisor });
        let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
        let got = with(|fields| fields.resource(&selector, Some("c")));
        assert_eq!(got.as_deref(), Ok(expected), "{resource} / {divisor}");
    }

    #[test]
    fn resources_are_counted_in_divisors_and_rounded_up() {
        check_resource("limits.cpu", "1", "2");
        check_resource("limits.cpu", "0", "2");
        check_resource("limits.cpu", "1m", "1500");
        check_resource("limits.memory", "1Mi", "1024");
        check_resource("requests.memory", "1", "104857600");
        check_resource("requests.memory", "1Gi", "1");
        check_resource("requests.cpu", "1", "2");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let selector = ObjectFieldSelector { field_path: "spec.hostname".to_owned(), ..Default::default() };
        assert!(with(|fields| fields.field(&selector)).is_err());
        let selector = ResourceFieldSelector { resource: "color".to_owned(), ..Default::default() };
        assert!(with(|fields| fields.resource(&selector, Some("c"))).is_err());
    }
}
