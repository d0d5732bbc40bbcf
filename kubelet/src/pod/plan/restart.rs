//! Whether and when a container is started, again.

use std::time::Duration;

use berth_api::backoff::{CRASH_LOOP, CRASH_LOOP_RESET};
use berth_engine::{ContainerId, ContainerState};
use jiff::Timestamp;

use crate::pod::desired::{Desired, Role};
use crate::pod::memory::later;
use crate::pod::observe::{Container, End, Observed};

/// What comes next for a container whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It runs.
    Run,
    /// It has ended and stays so.
    Rest,
    /// It is started.
    Start {
        /// How often it ran before.
        attempt: u32,
        /// How many of those runs ended early, in a row.
        streak: u32,
        /// The container, if only its start is missing.
        created: Option<ContainerId>,
    },
    /// It is started later, since it ended too early and too often.
    Wait {
        /// When.
        until: Timestamp,
        /// How long the wait is in all.
        delay: Duration,
    },
}

/// What comes next for one container.
pub(crate) fn next(desired: &Desired, observed: &Observed<'_>, role: Role, name: &str, now: Timestamp) -> Next {
    let Some(newest) = observed.newest(name) else {
        return Next::Start { attempt: told_attempts(desired, name), streak: 0, created: None };
    };
    let current = observed.current(name).is_some_and(|current| current.id == newest.id);
    match newest.end() {
        None => unended(newest, current),
        // In a new sandbox, what init containers did in the one before has to be done again.
        Some(end) if !current && role == Role::Init => again(desired, newest, end, now),
        Some(end) if desired.restart_policy(role).restarts(end.exit_code) => again(desired, newest, end, now),
        Some(_) => Next::Rest,
    }
}

fn unended(newest: &Container, current: bool) -> Next {
    let Container { attempt, streak, .. } = *newest;
    match (&newest.state, current) {
        (ContainerState::Created, true) => Next::Start { attempt, streak, created: Some(newest.id.clone()) },
        (ContainerState::Created, false) => Next::Start { attempt, streak, created: None },
        _ => Next::Run,
    }
}

fn again(desired: &Desired, newest: &Container, end: End, now: Timestamp) -> Next {
    let streak = match newest.state {
        // Its shim died: the node is to blame, not the container.
        ContainerState::Unknown => 0,
        _ if ran_long(end) => 0,
        _ => newest.streak,
    };
    let delay = CRASH_LOOP.delay(streak).min(desired.backoff_max);
    let until = later(end.finished_at, delay);
    // A clock that was set back must not make anybody wait for longer than the delay is.
    if until > now && later(now, delay) >= until {
        return Next::Wait { until, delay };
    }
    let attempt = newest.attempt.saturating_add(1).max(told_count(desired, &newest.name));
    Next::Start { attempt, streak: streak.saturating_add(1), created: None }
}

fn ran_long(end: End) -> bool {
    let ran = end.started_at.map(|started_at| end.finished_at.duration_since(started_at));
    ran.and_then(|ran| Duration::try_from(ran).ok()).is_some_and(|ran| ran >= CRASH_LOOP_RESET)
}

/// How often a container ran after what the pod's status says, where the engine has no record: after a reboot.
fn told_attempts(desired: &Desired, name: &str) -> u32 {
    let Some(told) = desired.told(name) else { return 0 };
    let ran = told.container_id.as_deref().is_some_and(|id| !id.is_empty());
    told_count(desired, name).saturating_add(u32::from(ran))
}

/// How often a container was started again after what the pod's status says.
fn told_count(desired: &Desired, name: &str) -> u32 {
    desired.told(name).and_then(|told| u32::try_from(told.restart_count).ok()).unwrap_or(0)
}
