//! What must be true of every plan, whatever the world is like. The worker says so loudly if it is not, and the
//! simulation fails.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_api::pod::grace_secs;
use berth_engine::{ContainerState, SandboxState};
use jiff::Timestamp;

use super::desired::{Desired, Presence, Role};
use super::memory::later;
use super::observe::Observed;
use super::plan::{Action, Ending, Plan, Start, Task};

/// Each invariant that a plan breaks, in a sentence.
pub(crate) fn violations(desired: &Desired, observed: &Observed<'_>, plan: &Plan, now: Timestamp) -> Vec<String> {
    let mut broken = Vec::new();
    tasks_are_begun_once(observed, plan, &mut broken);
    for action in &plan.actions {
        match action {
            Action::Start(start) => starts_are_allowed(desired, observed, plan, start, &mut broken),
            Action::Kill { id, name } => {
                let grace = Duration::from_secs(grace_secs(&desired.pod));
                let stop = observed.memory.stops.get(id);
                let own = stop.map(|stop| later(stop.since, Duration::from_secs(stop.grace_secs)));
                let pods = observed.memory.ending_since.map(|since| later(since, grace));
                let over = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= now);
                if !over(own) && !over(pods) && !grace.is_zero() {
                    broken.push(format!("{name} is killed before its grace period is over"));
                }
            }
            Action::Sandbox { .. } if observed.sandbox().is_some() => {
                broken.push("a second sandbox is made".to_owned());
            }
            _ => {}
        }
    }
    finished_means_nothing_left(observed, plan, &mut broken);
    only_one_run_at_a_time(desired, observed, &mut broken);
    broken
}

fn tasks_are_begun_once(observed: &Observed<'_>, plan: &Plan, broken: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for task in plan.actions.iter().filter_map(Action::task) {
        if observed.memory.running.contains(&task) || !seen.insert(task.clone()) {
            broken.push(format!("{task:?} is begun twice"));
        }
    }
}

fn starts_are_allowed(
    desired: &Desired,
    observed: &Observed<'_>,
    plan: &Plan,
    start: &Start,
    broken: &mut Vec<String>,
) {
    let name = &start.name;
    if plan.ending.is_some() || desired.presence != Presence::Wanted {
        broken.push(format!("{name} is started in a pod that is ending"));
    }
    if !observed.memory.volumes.are_mounted() {
        broken.push(format!("{name} is started before the volumes are mounted"));
    }
    if observed.containers().any(|(_, container)| container.name == *name && container.is_running()) {
        broken.push(format!("{name} is started while it runs"));
    }
    let ready = |sandbox: &super::observe::Sandbox| sandbox.state == SandboxState::Ready && sandbox.id == start.sandbox;
    if !observed.sandboxes.iter().any(ready) {
        broken.push(format!("{name} is started in a sandbox that is not ready"));
    }
    if let Some(newest) = observed.newest(name) {
        let fresh = newest.state == ContainerState::Created;
        if start.attempt < newest.attempt || (!fresh && start.attempt == newest.attempt) {
            broken.push(format!("{name} is started as run {} after run {}", start.attempt, newest.attempt));
        }
    }
    init_containers_come_first(desired, observed, name, broken);
}

fn init_containers_come_first(desired: &Desired, observed: &Observed<'_>, name: &str, broken: &mut Vec<String>) {
    let began = desired.apps().any(|spec| observed.current(&spec.name).is_some());
    if began {
        return;
    }
    let before = desired.containers().take_while(|(_, spec)| spec.name != *name);
    for (role, spec) in before {
        let current = observed.current(&spec.name);
        let done = match role {
            Role::Init => current.and_then(|container| container.end()).is_some_and(|end| end.exit_code == 0),
            Role::Sidecar => current.is_some_and(|container| container.is_running()),
            // App containers are started side by side.
            Role::App => true,
        };
        if !done {
            broken.push(format!("{name} is started before {} is done", spec.name));
        }
    }
}

fn finished_means_nothing_left(observed: &Observed<'_>, plan: &Plan, broken: &mut Vec<String>) {
    if !plan.finished {
        return;
    }
    if observed.any_running() {
        broken.push("finished while a container runs".to_owned());
    }
    if observed.sandbox().is_some() {
        broken.push("finished while a sandbox is ready".to_owned());
    }
    if plan.ending == Some(Ending::Unwanted) && !observed.sandboxes.is_empty() {
        broken.push("finished while a sandbox is left".to_owned());
    }
    let makes = |task: &&Task| matches!(task, Task::Start(_) | Task::Sandbox | Task::Volumes);
    if let Some(task) = observed.memory.running.iter().find(makes) {
        broken.push(format!("finished while {task:?} is under way"));
    }
}

fn only_one_run_at_a_time(desired: &Desired, observed: &Observed<'_>, broken: &mut Vec<String>) {
    for (_, spec) in desired.containers() {
        let runs = observed.history(&spec.name).into_iter().filter(|container| container.is_running());
        if runs.count() > 1 {
            broken.push(format!("{} runs twice", spec.name));
        }
    }
}
