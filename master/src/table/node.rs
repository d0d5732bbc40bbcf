//! Rows of nodes.

use jiff::Timestamp;
use serde_json::Value;

use super::age::age;
use super::{AGE, NAME, Printer, items, name, or, text, wide};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) const PRINTER: Printer = Printer {
    columns: &[
        NAME,
        text("Status", "Whether the node takes pods."),
        text("Roles", "The roles of the node."),
        AGE,
        text("Version", "Version of the kubelet."),
        wide("Internal-IP", "Address within the cluster."),
        wide("External-IP", "Address from outside."),
        wide("OS-Image", "Operating system."),
        wide("Kernel-Version", "Version of the kernel."),
        wide("Container-Runtime", "What runs containers, and its version."),
    ],
    cells,
};

fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = &node["status"]["nodeInfo"];
    vec![
        name(node),
        status(node).into(),
        roles(node).into(),
        age(node, now),
        or(&info["kubeletVersion"], ""),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        or(&info["osImage"], "<unknown>"),
        or(&info["kernelVersion"], "<unknown>"),
        or(&info["containerRuntimeVersion"], "<unknown>"),
    ]
}

fn status(node: &Value) -> String {
    let ready = items(&node["status"]["conditions"]).iter().find(|c| c["type"] == "Ready");
    let word = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let disabled = if node["spec"]["unschedulable"] == true { ",SchedulingDisabled" } else { "" };
    format!("{word}{disabled}")
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == ROLE_LABEL),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address(node: &Value, kind: &str) -> Value {
    let found = items(&node["status"]["addresses"]).iter().find(|a| a["type"] == kind);
    found.map_or_else(|| "<none>".into(), |address| or(&address["address"], "<none>"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::tests::printed;

    #[test]
    fn nodes_read_as_in_kubectl() {
        let node = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T10:00:00Z",
                "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "control-plane"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.18",
                             "containerRuntimeVersion": "berth://0.1"}}});
        assert_eq!(
            printed("", "nodes", node),
            "n  Ready,SchedulingDisabled  control-plane,worker  120m  v1.37.0 | 10.1.1.1  <none>  Debian  6.18  berth://0.1"
        );
        let lost =
            json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        assert!(printed("", "nodes", lost).starts_with("n  NotReady  <none>  <unknown>"));
    }
}
