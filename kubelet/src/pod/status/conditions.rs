//! A pod's conditions, from its containers' states.

use berth_api::condition::{self, Verdict, set};
use berth_api::pod::{Phase, is_sidecar};
use berth_api::reason::condition as reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

use crate::pod::desired::Desired;

/// What the conditions follow from.
pub(super) struct Facts<'a> {
    pub(super) desired: &'a Desired,
    pub(super) phase: Phase,
    pub(super) init: &'a [ContainerStatus],
    pub(super) apps: &'a [ContainerStatus],
    /// Whether there is a sandbox that containers can be started in.
    pub(super) sandbox: bool,
}

pub(super) fn conditions(facts: &Facts<'_>, mut list: Vec<PodCondition>, now: Timestamp) -> Vec<PodCondition> {
    let containers = containers_ready(facts);
    let ready = if containers == Verdict::Holds { gates(facts, &list) } else { containers.clone() };
    let network = if facts.sandbox { Verdict::Holds } else { Verdict::FailsPlainly };
    set(&mut list, condition::POD_SCHEDULED, Verdict::Holds, now);
    set(&mut list, condition::READY_TO_START_CONTAINERS, network, now);
    set(&mut list, condition::INITIALIZED, initialized(facts), now);
    set(&mut list, condition::CONTAINERS_READY, containers, now);
    set(&mut list, condition::READY, ready, now);
    list
}

fn initialized(facts: &Facts<'_>) -> Verdict {
    if facts.phase == Phase::Succeeded {
        return Verdict::HoldsBecause(reason::POD_COMPLETED);
    }
    let begun = facts.apps.iter().any(|status| status.container_id.is_some());
    let done = |status: &&ContainerStatus| match sidecar(facts, status) {
        true => status.started == Some(true),
        false => {
            status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code == 0)
        }
    };
    let missing: Vec<_> = facts.init.iter().filter(|status| !done(status)).map(|status| &*status.name).collect();
    if begun || missing.is_empty() {
        return Verdict::Holds;
    }
    let message = format!("containers with incomplete status: [{}]", missing.join(" "));
    Verdict::Fails(reason::CONTAINERS_NOT_INITIALIZED, message)
}

fn containers_ready(facts: &Facts<'_>) -> Verdict {
    match facts.phase {
        Phase::Succeeded => return Verdict::Fails(reason::POD_COMPLETED, String::new()),
        Phase::Failed => return Verdict::Fails(reason::POD_FAILED, String::new()),
        Phase::Pending | Phase::Running => {}
    }
    let sidecars = facts.init.iter().filter(|status| sidecar(facts, status));
    let unready: Vec<_> =
        sidecars.chain(facts.apps).filter(|status| !status.ready).map(|status| &*status.name).collect();
    if unready.is_empty() {
        return Verdict::Holds;
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::Fails(reason::CONTAINERS_NOT_READY, message)
}

/// Readiness gates: conditions that others set, and that the pod waits for.
fn gates(facts: &Facts<'_>, list: &[PodCondition]) -> Verdict {
    let gates = facts.desired.spec().readiness_gates.iter().flatten();
    let mut closed = gates.map(|gate| &*gate.condition_type).filter(|kind| !condition::holds(list, kind));
    match closed.next() {
        None => Verdict::Holds,
        Some(kind) => Verdict::Fails(
            reason::READINESS_GATES_NOT_READY,
            format!("corresponding condition of pod readiness gate {kind:?} is not \"True\""),
        ),
    }
}

fn sidecar(facts: &Facts<'_>, status: &ContainerStatus) -> bool {
    facts.desired.container(&status.name).is_some_and(|(_, spec)| is_sidecar(spec))
}
