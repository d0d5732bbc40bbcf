//! Conditions of pods: one per type, each with the time when its status last changed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The pod has a node.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// The sandbox and its network are set up (KEP-3085).
pub const READY_TO_START_CONTAINERS: &str = "PodReadyToStartContainers";
/// All init containers ended well.
pub const INITIALIZED: &str = "Initialized";
/// All containers are ready.
pub const CONTAINERS_READY: &str = "ContainersReady";
/// The pod serves.
pub const READY: &str = "Ready";

/// Whether a condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// `True`.
    Holds,
    /// `True`, and why that is worth a word.
    HoldsBecause(&'static str),
    /// `False`, with reason and message.
    Fails(&'static str, String),
    /// `False`, which needs no word.
    FailsPlainly,
}

/// Sets one condition in a list; its transition time changes only if its status does.
pub fn set(conditions: &mut Vec<PodCondition>, kind: &str, verdict: Verdict, now: Timestamp) {
    let (status, reason, message) = match verdict {
        Verdict::Holds => ("True", None, None),
        Verdict::HoldsBecause(reason) => ("True", Some(reason.to_owned()), None),
        Verdict::Fails(reason, message) => {
            ("False", Some(reason.to_owned()), Some(message).filter(|text| !text.is_empty()))
        }
        Verdict::FailsPlainly => ("False", None, None),
    };
    let old = conditions.iter_mut().find(|condition| condition.type_ == kind);
    match old {
        Some(condition) => {
            if condition.status != status {
                condition.status = status.to_owned();
                condition.last_transition_time = Some(Time(now));
            }
            condition.reason = reason;
            condition.message = message;
        }
        None => conditions.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(Time(now)),
            ..PodCondition::default()
        }),
    }
}

/// Whether a condition is there and `True`.
pub fn holds(conditions: &[PodCondition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_follows_the_status_alone() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        set(&mut conditions, READY, Verdict::Fails("A", "a".to_owned()), at(1));
        set(&mut conditions, READY, Verdict::Fails("B", "b".to_owned()), at(2));
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(1))));
        assert_eq!(conditions[0].reason.as_deref(), Some("B"));
        set(&mut conditions, READY, Verdict::Holds, at(3));
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(3))));
        assert_eq!((conditions.len(), conditions[0].reason.clone()), (1, None));
        assert!(holds(&conditions, READY));
    }
}
