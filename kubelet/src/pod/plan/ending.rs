//! Whether a pod is to be ended, and why.

use std::time::Duration;

use jiff::Timestamp;

use super::{Draft, Ending};
use crate::pod::desired::{Desired, Presence, Role};
use crate::pod::memory::later;
use crate::pod::observe::Observed;

/// Why the pod is to be ended, if it is.
pub(super) fn ending(desired: &Desired, observed: &Observed<'_>, draft: &mut Draft<'_>) -> Option<Ending> {
    if desired.presence != Presence::Wanted {
        return Some(Ending::Unwanted);
    }
    // What was told of a pod's end stays true: it never runs again, even where no record of it is left.
    if berth_api::pod::is_terminal(&desired.pod) {
        return Some(Ending::Over);
    }
    if let Some(deadline) = deadline(desired, observed) {
        if deadline <= draft.now {
            return Some(Ending::DeadlineExceeded);
        }
        draft.wake(deadline);
    }
    (init_failed(desired, observed) || apps_over(desired, observed)).then_some(Ending::Over)
}

/// When the pod has run for as long as it may.
fn deadline(desired: &Desired, observed: &Observed<'_>) -> Option<Timestamp> {
    let secs = u64::try_from(desired.spec().active_deadline_seconds?).ok()?;
    let told = desired.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let start = told.or_else(|| observed.sandboxes.first().map(|sandbox| sandbox.created_at))?;
    Some(later(start, Duration::from_secs(secs)))
}

/// Whether an init container failed that is not tried again.
fn init_failed(desired: &Desired, observed: &Observed<'_>) -> bool {
    let policy = desired.restart_policy(Role::Init);
    let mut init = desired.containers().filter(|(role, _)| *role == Role::Init);
    init.any(|(_, spec)| {
        let end = observed.newest(&spec.name).and_then(|container| container.end());
        end.is_some_and(|end| end.exit_code != 0 && !policy.restarts(end.exit_code))
    })
}

/// Whether all app containers have ended, and none is started again.
fn apps_over(desired: &Desired, observed: &Observed<'_>) -> bool {
    let policy = desired.restart_policy(Role::App);
    desired.apps().all(|spec| {
        let end = observed.newest(&spec.name).and_then(|container| container.end());
        end.is_some_and(|end| !policy.restarts(end.exit_code))
    })
}
