//! A pod that is to end: its containers are asked, then forced; then its sandbox is stopped, and what it had is freed.

use std::time::Duration;

use berth_api::pod::grace_secs;
use berth_engine::SandboxState;
use jiff::Timestamp;

use super::{Action, Draft, Ending, Freed, Task, care};
use crate::pod::desired::{Desired, Role};
use crate::pod::memory::later;
use crate::pod::observe::{Container, Observed};

/// A container that was killed and is still there is killed again after this time.
const KILL_AGAIN: Duration = Duration::from_secs(5);

pub(super) fn plan(desired: &Desired, observed: &Observed<'_>, ending: Ending, draft: &mut Draft<'_>) {
    draft.plan.ending = Some(ending);
    call_off(draft);
    let since = draft.memory.ending_since.unwrap_or(draft.now);
    let deadline = later(since, Duration::from_secs(grace_secs(&desired.pod)));
    if stop_containers(desired, observed, deadline, draft) || is_making(draft) {
        return;
    }
    match ending {
        Ending::Over | Ending::DeadlineExceeded => rest(observed, draft),
        Ending::Unwanted => vanish(observed, draft),
    }
}

/// Calls off what would only be thrown away. A start, a sandbox or a mount that is half done is waited for: it is soon
/// over, and then it can be taken down whole.
fn call_off(draft: &mut Draft<'_>) {
    let running = draft.memory.running.iter();
    let idle = running.filter(|task| matches!(task, Task::Pull(_) | Task::Probe(..)));
    let cancels: Vec<_> = idle.cloned().map(Action::Cancel).collect();
    draft.plan.actions.extend(cancels);
}

/// Whether something is being made that must be there before it can be taken down, or is in use.
fn is_making(draft: &Draft<'_>) -> bool {
    let making = |task: &Task| matches!(task, Task::Start(_) | Task::Sandbox | Task::Volumes | Task::Forget(_));
    draft.memory.running.iter().any(making)
}

/// Asks what runs to end, and forces it when its time is over. Whether anything still runs.
fn stop_containers(desired: &Desired, observed: &Observed<'_>, deadline: Timestamp, draft: &mut Draft<'_>) -> bool {
    let mut any = false;
    for container in observed.containers().map(|(_, container)| container).filter(|container| container.is_running()) {
        any = true;
        let asked = draft.memory.stops.contains_key(&container.id);
        let own = own_deadline(container, deadline, draft);
        if asked && (own <= draft.now || !was_not_asked(container, draft)) {
            insist(container, own, draft);
        } else if deadline <= draft.now {
            insist(container, deadline, draft);
        } else if is_needed(desired, observed, &container.name) {
            draft.wake(deadline);
        } else {
            ask(desired, container, deadline, draft);
        }
    }
    any
}

/// When a container that was asked to end has had its time: its own, if that was given before, or the pod's.
fn own_deadline(container: &Container, deadline: Timestamp, draft: &Draft<'_>) -> Timestamp {
    let stopping = draft.memory.stops.get(&container.id);
    let own = stopping.map(|stopping| later(stopping.since, Duration::from_secs(stopping.grace_secs)));
    own.map_or(deadline, |own| own.min(deadline))
}

/// Whether a container that still runs needs this one: sidecars end after the app containers, in reverse order.
fn is_needed(desired: &Desired, observed: &Observed<'_>, name: &str) -> bool {
    let Some((Role::Sidecar, _)) = desired.container(name) else { return false };
    let runs = |name: &str| observed.newest(name).is_some_and(Container::is_running);
    let after = desired.containers().skip_while(|(_, spec)| spec.name != name).skip(1);
    let mut after = after.filter(|(role, _)| *role != Role::Init);
    after.any(|(_, spec)| runs(&spec.name))
}

/// Whether a container that was to be asked to end could not be: it is asked again while it has time.
pub(super) fn was_not_asked(container: &Container, draft: &Draft<'_>) -> bool {
    draft.memory.failures.contains_key(&Task::Stop(container.id.clone()))
}

pub(super) fn ask(desired: &Desired, container: &Container, deadline: Timestamp, draft: &mut Draft<'_>) {
    let left = u64::try_from(deadline.duration_since(draft.now).as_millis()).unwrap_or(0);
    let grace_secs = left.div_ceil(1000);
    let why = format!("Stopping container {}", container.name);
    let stop = match desired.container(&container.name) {
        Some((_, spec)) => care::stop(spec, container, grace_secs, why),
        None => super::Stop { id: container.id.clone(), name: container.name.clone(), grace_secs, pre_stop: None, why },
    };
    draft.begin(Action::Stop(stop));
    draft.wake(deadline);
}

/// Kills a container when its time is over, and again if it is still there.
pub(super) fn insist(container: &Container, deadline: Timestamp, draft: &mut Draft<'_>) {
    if deadline > draft.now {
        draft.wake(deadline);
        return;
    }
    let again = draft.memory.kills.get(&container.id).map(|&killed| later(killed, KILL_AGAIN));
    if let Some(again) = again.filter(|&again| again > draft.now) {
        draft.wake(again);
        return;
    }
    let stop = Task::Stop(container.id.clone());
    if draft.runs(&stop) {
        draft.plan.actions.push(Action::Cancel(stop));
    }
    draft.begin(Action::Kill { id: container.id.clone(), name: container.name.clone() });
    draft.wake(later(draft.now, KILL_AGAIN));
}

/// A pod that is over: what it used is freed, what it left to be read stays.
fn rest(observed: &Observed<'_>, draft: &mut Draft<'_>) {
    let mut stopped = true;
    for sandbox in &observed.sandboxes {
        if sandbox.state == SandboxState::Ready || !draft.memory.stopped.contains(&sandbox.id) {
            stopped = false;
            draft.begin(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    if stopped {
        free(Freed::ButLogs, draft);
    }
}

/// A pod that nobody wants any more: nothing stays.
fn vanish(observed: &Observed<'_>, draft: &mut Draft<'_>) {
    for sandbox in &observed.sandboxes {
        draft.begin(Action::RemoveSandbox { id: sandbox.id.clone() });
    }
    let stopping =
        draft.memory.running.iter().any(|task| matches!(task, Task::StopSandbox(_) | Task::RemoveSandbox(_)));
    if observed.sandboxes.is_empty() && !stopping {
        free(Freed::All, draft);
    }
}

fn free(freed: Freed, draft: &mut Draft<'_>) {
    if draft.memory.freed.is_some_and(|before| before >= freed) {
        draft.plan.finished = true;
        return;
    }
    let freeing = draft.memory.running.iter().any(|task| matches!(task, Task::Free(_)));
    if !freeing {
        draft.begin(Action::Free(freed));
    }
}
