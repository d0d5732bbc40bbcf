//! A pod that is to run: volumes, sandbox, images and containers, each as soon as it can be had.

use berth_api::reason::event;
use berth_engine::{SandboxId, SandboxState};
use k8s_openapi::api::core::v1::Container as Spec;

use super::restart::{Next, next};
use super::{Action, Draft, Start, Task, care, init};
use crate::pod::desired::Desired;
use crate::pod::notice::Notice;
use crate::pod::observe::Observed;

pub(super) fn plan(desired: &Desired, observed: &Observed<'_>, draft: &mut Draft<'_>) {
    if !draft.memory.volumes.are_current() {
        draft.begin(Action::Volumes);
    }
    let mut wanted = false;
    for (role, spec) in init::turn(desired, observed) {
        match next(desired, observed, role, &spec.name, draft.now) {
            Next::Rest => {}
            Next::Run => care::plan(desired, observed, spec, draft),
            Next::Wait { until, .. } => {
                draft.wake(until);
                tell_back_off(desired, observed, spec, draft);
            }
            Next::Start { attempt, streak, created } => {
                wanted = true;
                let Some(image) = image(spec, attempt, draft) else { continue };
                let Some(sandbox) = usable_sandbox(observed, draft) else { continue };
                let name = spec.name.clone();
                draft.begin(Action::Start(Start { sandbox, name, attempt, streak, image, created }));
            }
        }
    }
    sandboxes(observed, wanted, draft);
    forget_superseded(desired, observed, draft);
}

/// The sandbox, if containers can be started in it now.
fn usable_sandbox(observed: &Observed<'_>, draft: &Draft<'_>) -> Option<SandboxId> {
    let sandbox = observed.sandbox().filter(|_| draft.memory.volumes.are_mounted())?;
    Some(sandbox.id.clone())
}

/// The image for a container's next run, if it is here; otherwise it is asked for.
fn image(spec: &Spec, attempt: u32, draft: &mut Draft<'_>) -> Option<String> {
    match draft.memory.images.get(&spec.name) {
        Some(image) if image.attempt == attempt => Some(image.id.clone()),
        _ => {
            draft.begin(Action::Pull { name: spec.name.clone(), attempt });
            None
        }
    }
}

/// Stops sandboxes that were lost, and makes a new one if a container wants to start and there is none.
fn sandboxes(observed: &Observed<'_>, wanted: bool, draft: &mut Draft<'_>) {
    if draft.runs(&Task::Sandbox) {
        // One of those that are not ready is being made.
        return;
    }
    let mut lost = false;
    for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::NotReady) {
        if !draft.memory.stopped.contains(&sandbox.id) {
            lost = true;
            draft.begin(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    if lost || !wanted || observed.sandbox().is_some() {
        return;
    }
    let attempt = observed.sandboxes.last().map_or(0, |sandbox| sandbox.attempt.saturating_add(1));
    if attempt > 0 {
        let message = "Pod sandbox changed, it will be killed and re-created.";
        draft.plan.actions.push(Action::Tell(Notice::normal(None, event::SANDBOX_CHANGED, message)));
    }
    draft.begin(Action::Sandbox { attempt });
}

/// Forgets records that nobody asks for any more: of each container the newest is its state, and the one before its
/// last state.
fn forget_superseded(desired: &Desired, observed: &Observed<'_>, draft: &mut Draft<'_>) {
    let mut kept = Vec::new();
    for (_, spec) in desired.containers() {
        let mut history = observed.history(&spec.name);
        let newest = history.pop();
        let before = history.iter().rposition(|container| container.end().is_some()).map(|index| history.remove(index));
        kept.extend(newest.into_iter().chain(before).map(|container| &container.id));
        for container in history {
            draft.begin(Action::Forget { id: container.id.clone() });
        }
    }
    for sandbox in &observed.sandboxes {
        let needed = sandbox.containers.iter().any(|container| kept.contains(&&container.id));
        if draft.memory.stopped.contains(&sandbox.id) && !needed && observed.sandbox().is_some() {
            draft.begin(Action::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

fn tell_back_off(desired: &Desired, observed: &Observed<'_>, spec: &Spec, draft: &mut Draft<'_>) {
    let Some(newest) = observed.newest(&spec.name) else { return };
    let message = format!(
        "Back-off restarting failed container {} in pod {}_{}({})",
        spec.name, desired.id.name, desired.id.namespace, desired.id.uid
    );
    let notice = Notice::warning(Some(&spec.name), event::BACK_OFF, message).about(&newest.id);
    if !draft.memory.told.contains(&notice) {
        draft.plan.actions.push(Action::Tell(notice));
    }
}
