//! Notices nodes that have fallen silent, and taints those that are not ready so that nothing new goes there.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt as _;

use super::action::{Action, Plan};
use super::observe::World;

/// How long a node may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(40);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const EFFECTS: [&str; 2] = ["NoSchedule", "NoExecute"];

pub(super) fn plan(world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for node in &world.nodes {
        let name = node.name_any();
        let heard_of = world.heard_of.get(&name).copied().unwrap_or(now);
        let silent_at = heard_of.checked_add(SILENCE_MAX).unwrap_or(Timestamp::MAX);
        if silent_at > now {
            plan.wake_by(silent_at);
        } else if readiness(node) != Readiness::Unknown {
            plan.actions.push(Action::MarkUnknown { node: name, since: now });
            // The taint follows when the new condition is seen.
            continue;
        }
        plan.actions.extend(taint(node));
    }
    plan
}

/// What a node's condition Ready says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotReady,
    Unknown,
}

fn readiness(node: &Node) -> Readiness {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    match conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unknown,
        // A node that has just registered has not said that it is ready.
        _ => Readiness::NotReady,
    }
}

/// The taints as they should be, if they are not.
fn taint(node: &Node) -> Option<Action> {
    let readiness = readiness(node);
    let (wanted, reason) = match readiness {
        Readiness::Ready => (None, "node is ready"),
        Readiness::NotReady => (Some(NOT_READY), "node is not ready"),
        Readiness::Unknown => (Some(UNREACHABLE), "node is silent"),
    };
    let is_ours = |taint: &Taint| {
        (taint.key == NOT_READY || taint.key == UNREACHABLE) && EFFECTS.contains(&taint.effect.as_str())
    };
    let before: Vec<Taint> = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut after: Vec<Taint> =
        before.iter().filter(|t| !is_ours(t) || Some(t.key.as_str()) == wanted).cloned().collect();
    for effect in EFFECTS {
        let Some(key) = wanted else { break };
        if !after.iter().any(|t| t.key == key && t.effect == effect) {
            after.push(Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() });
        }
    }
    (after != before).then(|| Action::SetTaints {
        node: node.name_any(),
        resource_version: node.resource_version(),
        taints: after,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn after(heard_secs_ago: i64, ready: &str, taints: &[&str]) -> Plan {
        let taints: Vec<_> = taints.iter().map(|t| t.split_once(':').unwrap()).collect();
        let taints: Vec<_> = taints.iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
                          "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let heard = Timestamp::from_second(NOW - heard_secs_ago).unwrap();
        let world = World {
            nodes: vec![Arc::new(serde_json::from_value(node).unwrap())],
            heard_of: [("n".to_owned(), heard)].into(),
            ..World::default()
        };
        plan(&world, Timestamp::from_second(NOW).unwrap())
    }

    fn taints(plan: &Plan) -> Option<Vec<String>> {
        match &plan.actions[..] {
            [Action::SetTaints { taints, .. }] => {
                Some(taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect())
            }
            _ => None,
        }
    }

    #[test]
    fn a_node_that_speaks_is_left_alone_until_it_might_be_silent() {
        let plan = after(10, "True", &[]);
        assert_eq!(plan.actions, []);
        assert_eq!(plan.wake_at, Some(Timestamp::from_second(NOW + 30).unwrap()));
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_unreachable() {
        let plan = after(41, "True", &[]);
        assert!(matches!(&plan.actions[..], [Action::MarkUnknown { .. }]));
        let plan = after(41, "Unknown", &["other:NoSchedule"]);
        let expected = [
            "other:NoSchedule",
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute",
        ];
        assert_eq!(taints(&plan).unwrap(), expected);
        assert_eq!(after(41, "Unknown", &expected).actions, []);
    }

    #[test]
    fn a_node_that_comes_back_loses_its_taints_alone() {
        let plan = after(1, "True", &["other:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]);
        assert_eq!(taints(&plan).unwrap(), ["other:NoSchedule"]);
        let plan = after(1, "False", &["node.kubernetes.io/unreachable:NoExecute"]);
        assert_eq!(
            taints(&plan).unwrap(),
            ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]
        );
    }
}
