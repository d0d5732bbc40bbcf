//! From what there is to what is told: the pod's status. Pure.

mod conditions;
mod container;
#[cfg(test)]
mod tests;

pub(crate) use container::changes_at;

use std::net::IpAddr;

use berth_api::condition;
use berth_api::pod::{Outlook, Phase, phase};
use berth_api::reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::desired::{Desired, Role};
use super::observe::Observed;
use super::plan::{self, Ending, Task};

/// The conditions that are set here.
const OURS: [&str; 5] = [
    condition::POD_SCHEDULED,
    condition::READY_TO_START_CONTAINERS,
    condition::INITIALIZED,
    condition::CONTAINERS_READY,
    condition::READY,
];
/// What a pod's status says of `DeadlineExceeded`.
const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// The status of a pod. `before` is what was told last: what the engine has no record of any more is taken from there,
/// and conditions that are somebody else's are left alone.
pub(crate) fn status(
    desired: &Desired,
    observed: &Observed<'_>,
    before: &PodStatus,
    host: &[IpAddr],
    now: Timestamp,
) -> PodStatus {
    let ending = plan::ending(desired, observed, now);
    let view = container::View { desired, observed, before, ending, now };
    let of = |wanted: fn(Role) -> bool| -> Vec<ContainerStatus> {
        let chosen = desired.containers().filter(|(role, _)| wanted(*role));
        chosen.map(|(role, spec)| view.status(role, spec)).collect()
    };
    let init = of(|role| role != Role::App);
    let apps = of(|role| role == Role::App);
    let phase = pod_phase(desired, observed, before, ending, (&init, &apps));
    let (reason, message) = reason(before, ending, phase);
    let facts = conditions::Facts { desired, phase, init: &init, apps: &apps, sandbox: observed.sandbox().is_some() };
    let host_ips = addresses(host);
    let pod_ips = pod_ips(desired, observed, before, host);
    PodStatus {
        conditions: Some(conditions::conditions(&facts, before.conditions.clone().unwrap_or_default(), now)),
        container_statuses: Some(apps),
        init_container_statuses: Some(init).filter(|list| !list.is_empty()),
        host_ip: host_ips.first().cloned(),
        host_ips: some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        message,
        observed_generation: desired.pod.metadata.generation,
        phase: Some(phase.as_str().to_owned()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(desired.qos.as_str().to_owned()),
        reason,
        start_time: before.start_time.clone().or(Some(Time(now))),
        nominated_node_name: before.nominated_node_name.clone(),
        resize: before.resize.clone(),
        resource_claim_statuses: before.resource_claim_statuses.clone(),
        ..PodStatus::default()
    }
}

/// A status, with the conditions that are not ours as another one has them: readiness gates are set by others.
pub(crate) fn with_foreign_conditions(mut status: PodStatus, newer: &PodStatus) -> PodStatus {
    let ours = |condition: &&PodCondition| OURS.contains(&condition.type_.as_str());
    let own = status.conditions.iter().flatten().filter(ours).cloned();
    let foreign = newer.conditions.iter().flatten().filter(|condition| !ours(condition)).cloned();
    status.conditions = Some(own.chain(foreign).collect());
    status
}

/// The status of a pod that cannot be run at all.
pub(crate) fn refused(before: &PodStatus, message: String, now: Timestamp) -> PodStatus {
    PodStatus {
        phase: Some(Phase::Failed.as_str().to_owned()),
        reason: Some(reason::event::FAILED_VALIDATION.to_owned()),
        message: Some(message),
        start_time: before.start_time.clone().or(Some(Time(now))),
        ..before.clone()
    }
}

fn pod_phase(
    desired: &Desired,
    observed: &Observed<'_>,
    before: &PodStatus,
    ending: Option<Ending>,
    (init, apps): (&[ContainerStatus], &[ContainerStatus]),
) -> Phase {
    // A phase that is the last stays so.
    match before.phase.as_deref() {
        Some("Succeeded") => return Phase::Succeeded,
        Some("Failed") => return Phase::Failed,
        _ => {}
    }
    let starting = observed.memory.running.iter().any(|task| matches!(task, Task::Start(_)));
    let closed = ending.is_some() && !observed.any_running() && !starting;
    let phase = phase(desired.spec(), init, apps, if closed { Outlook::Closed } else { Outlook::Open });
    match (ending, closed) {
        (Some(Ending::DeadlineExceeded), true) => Phase::Failed,
        // Only what has ended is told as ended: a phase that is the last can never be taken back.
        (Some(_), false) if phase.is_terminal() => Phase::Running,
        _ => phase,
    }
}

fn reason(before: &PodStatus, ending: Option<Ending>, phase: Phase) -> (Option<String>, Option<String>) {
    if ending == Some(Ending::DeadlineExceeded) && phase == Phase::Failed && before.reason.is_none() {
        return (Some(reason::pod::DEADLINE_EXCEEDED.to_owned()), Some(DEADLINE_MESSAGE.to_owned()));
    }
    (before.reason.clone(), before.message.clone())
}

/// The pod's addresses. They stay told after the network is released: whoever reads the status wants to know where the
/// pod was.
fn pod_ips(desired: &Desired, observed: &Observed<'_>, before: &PodStatus, host: &[IpAddr]) -> Vec<String> {
    if desired.spec().host_network == Some(true) {
        return if observed.sandboxes.is_empty() { told_ips(before) } else { addresses(host) };
    }
    match observed.sandbox() {
        Some(sandbox) => addresses(&sandbox.ips),
        None => told_ips(before),
    }
}

fn told_ips(before: &PodStatus) -> Vec<String> {
    before.pod_ips.iter().flatten().map(|told| told.ip.clone()).collect()
}

fn addresses(ips: &[IpAddr]) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}
