//! Nodes: capacity, taints, and a pod network that stays.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::pod::check_choice;
use super::strategy::Strategy;
use super::{FieldError, meta};

/// Nodes: taints are sound, and what has been given (pod networks, provider id) is not taken back.
pub(super) struct NodeStrategy;

impl Strategy for NodeStrategy {
    /// A node registers with what it has.
    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn validate(&self, node: &Value, errors: &mut Vec<FieldError>) {
        let mut seen = Vec::new();
        for (at, taint) in meta::items(&node["spec"], "taints").iter().enumerate() {
            let path = format!("spec.taints[{at}]");
            if taint["key"].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(format!("{path}.key"), ""));
            }
            if taint["effect"].is_null() {
                errors.push(FieldError::required(format!("{path}.effect"), ""));
            }
            let effects = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
            check_choice(&format!("{path}.effect"), &taint["effect"], effects, errors);
            let key = (&taint["key"], &taint["effect"]);
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(path, taint));
            }
            seen.push(key);
        }
        for (at, cidr) in meta::items(&node["spec"], "podCIDRs").iter().enumerate() {
            if cidr.as_str().is_none_or(|text| text.parse::<IpNetwork>().is_err()) {
                let detail = "must be a valid CIDR, such as 10.0.0.0/24";
                errors.push(FieldError::invalid(format!("spec.podCIDRs[{at}]"), cidr, detail));
            }
        }
    }

    fn validate_update(&self, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
        for field in ["podCIDR", "podCIDRs", "providerID"] {
            let (before, after) = (&old["spec"][field], &new["spec"][field]);
            let was_given = !before.is_null() && before != "" && before.as_array().is_none_or(|list| !list.is_empty());
            if was_given && before != after {
                let detail = "node updates may not change podCIDR or providerID except from \"\" to valid";
                errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
            }
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::find;

    #[test]
    fn pod_networks_are_given_once() {
        let kind = find("", "v1", "nodes").unwrap();
        let node = |cidr: &str| json!({"metadata": {"name": "n"}, "spec": {"podCIDR": cidr}});
        assert_eq!(kind.validate_update(&node(""), &node("10.0.0.0/24")), []);
        assert_eq!(kind.validate_update(&node("10.0.0.0/24"), &node("10.0.1.0/24")).len(), 1);
    }

    #[test]
    fn nodes_keep_the_status_they_register_with() {
        let mut made = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}});
        find("", "v1", "nodes").unwrap().prepare_create(&mut made);
        assert_eq!(made["status"]["capacity"]["cpu"], "2");
    }
}
