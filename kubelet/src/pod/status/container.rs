//! One container's status.

use std::time::Duration;

use berth_api::reason::{terminated, waiting};
use berth_engine::{ContainerId, ContainerState as Engine};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::desired::{Desired, Role};
use crate::pod::memory::{Failure, later};
use crate::pod::observe::{Container, EXIT_UNKNOWN, Observed};
use crate::pod::plan::{Ending, Next, Task, next};

/// What stands before a container's id in a status.
const ID_SCHEME: &str = "berth://";
/// A pull that failed is told as such for this long, then as a back-off.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
const UNKNOWN_MESSAGE: &str = "The container could not be located when the pod was looked at: its shim is gone";

/// What a container's status follows from.
pub(super) struct View<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed<'a>,
    pub(super) before: &'a PodStatus,
    pub(super) ending: Option<Ending>,
    pub(super) now: Timestamp,
}

impl View<'_> {
    pub(super) fn status(&self, role: Role, spec: &Spec) -> ContainerStatus {
        let told = self.told(&spec.name);
        let history = self.observed.history(&spec.name);
        let told_count = told.map_or(0, |told| told.restart_count);
        let newest = history.split_last().filter(|(newest, _)| count(newest) >= told_count);
        // While a pod is taken down, the newest record may go before an older one.
        let Some((newest, older)) = newest else { return self.without_record(role, spec, told) };
        let state = self.state(role, spec, newest);
        let mut ended = older.iter().rev().copied().find_map(terminated);
        if state.waiting.is_some() {
            ended = terminated(newest).or(ended);
        }
        let last_state = ended.map(of_end).or_else(|| told?.last_state.clone());
        ContainerStatus {
            container_id: Some(id(&newest.id)),
            image: spec.image.clone().unwrap_or_default(),
            image_id: if newest.image_ref.is_empty() { newest.image_id.clone() } else { newest.image_ref.clone() },
            last_state: last_state.filter(|_| newest.attempt > 0 || state.waiting.is_some()),
            name: spec.name.clone(),
            ready: match role {
                Role::Init => state.terminated.as_ref().is_some_and(|end| end.exit_code == 0),
                _ => self.observed.is_ready(self.desired, spec, newest),
            },
            restart_count: count(newest),
            started: Some(role != Role::Init && self.observed.is_started(self.desired, spec, newest)),
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    /// A container that the engine knows nothing of: it was not made yet, or all of it is freed, or the machine was
    /// started anew.
    fn without_record(&self, role: Role, spec: &Spec, told: Option<&ContainerStatus>) -> ContainerStatus {
        let ended = told.and_then(ended_as_told);
        let state = match (&ended, self.ending) {
            (Some(ended), Some(_)) => of_end(ended.clone()),
            _ => ContainerState { waiting: Some(self.waiting(role, spec)), ..ContainerState::default() },
        };
        let last_state = if state.waiting.is_some() { ended.map(of_end) } else { None };
        ContainerStatus {
            container_id: told.and_then(|told| told.container_id.clone()),
            image: spec.image.clone().unwrap_or_default(),
            image_id: told.map(|told| told.image_id.clone()).unwrap_or_default(),
            last_state: last_state.or_else(|| told?.last_state.clone()),
            name: spec.name.clone(),
            ready: role == Role::Init && state.terminated.as_ref().is_some_and(|end| end.exit_code == 0),
            restart_count: told.map_or(0, |told| told.restart_count),
            started: Some(false),
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    fn told(&self, name: &str) -> Option<&ContainerStatus> {
        let all = [&self.before.init_container_statuses, &self.before.container_statuses];
        all.into_iter().flatten().flatten().find(|told| told.name == name)
    }

    fn state(&self, role: Role, spec: &Spec, newest: &Container) -> ContainerState {
        match &newest.state {
            Engine::Running { started_at } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*started_at)) }),
                ..ContainerState::default()
            },
            Engine::Created => ContainerState { waiting: Some(self.waiting(role, spec)), ..ContainerState::default() },
            Engine::Exited { .. } | Engine::Unknown => match self.waits_again(role, spec) {
                Some(waiting) => ContainerState { waiting: Some(waiting), ..ContainerState::default() },
                None => terminated(newest).map(of_end).unwrap_or_default(),
            },
        }
    }

    /// Why a container that has ended waits for its next run; `None` if there is none, or it is about to begin.
    fn waits_again(&self, role: Role, spec: &Spec) -> Option<ContainerStateWaiting> {
        if self.ending.is_some() {
            return None;
        }
        match next(self.desired, self.observed, role, &spec.name, self.now) {
            Next::Run | Next::Rest => None,
            Next::Start { .. } => self.failed(spec),
            Next::Wait { delay, .. } => {
                let id = &self.desired.id;
                let message = format!(
                    "back-off {} restarting failed container={} pod={}_{}({})",
                    in_words(delay),
                    spec.name,
                    id.name,
                    id.namespace,
                    id.uid
                );
                Some(wait(waiting::CRASH_LOOP_BACK_OFF, Some(message)))
            }
        }
    }

    fn waiting(&self, role: Role, spec: &Spec) -> ContainerStateWaiting {
        if let Some(failed) = self.failed(spec) {
            return failed;
        }
        let mut init = self.desired.containers().filter(|(role, _)| *role != Role::App);
        let reason = match role {
            Role::App if init.next().is_some() => waiting::POD_INITIALIZING,
            Role::App => waiting::CONTAINER_CREATING,
            // The first is being made; the others wait for their turn.
            _ if init.next().is_some_and(|(_, first)| first.name == spec.name) => waiting::CONTAINER_CREATING,
            _ => waiting::POD_INITIALIZING,
        };
        wait(reason, None)
    }

    /// What failed the last time that a container was to be started.
    fn failed(&self, spec: &Spec) -> Option<ContainerStateWaiting> {
        let failures = &self.observed.memory.failures;
        if let Some(Failure { fault, .. }) = failures.get(&Task::Start(spec.name.clone())) {
            return Some(wait(fault.reason, Some(fault.message.clone())));
        }
        let Failure { fault, at, .. } = failures.get(&Task::Pull(spec.name.clone()))?;
        let fresh = later(*at, PULL_ERROR_SHOWN) > self.now;
        if fault.reason != waiting::ERR_IMAGE_PULL || fresh {
            return Some(wait(fault.reason, Some(fault.message.clone())));
        }
        let image = spec.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image {image:?}: {}: {}", fault.reason, fault.message);
        Some(wait(waiting::IMAGE_PULL_BACK_OFF, Some(message)))
    }
}

/// When the words of a status change though nothing happens: a pull that failed becomes a back-off.
pub(crate) fn changes_at(observed: &Observed<'_>, now: Timestamp) -> Option<Timestamp> {
    let pulls = observed.memory.failures.iter().filter(|(task, _)| matches!(task, Task::Pull(_)));
    pulls.map(|(_, failure)| later(failure.at, PULL_ERROR_SHOWN)).filter(|&at| at > now).min()
}

fn wait(reason: &str, message: Option<String>) -> ContainerStateWaiting {
    ContainerStateWaiting { reason: Some(reason.to_owned()), message }
}

fn of_end(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn id(id: &ContainerId) -> String {
    format!("{ID_SCHEME}{}", id.as_str())
}

fn count(container: &Container) -> i32 {
    i32::try_from(container.attempt).unwrap_or(i32::MAX)
}

/// How a container ended, if it did.
fn terminated(container: &Container) -> Option<ContainerStateTerminated> {
    let end = container.end()?;
    let reason = match &container.state {
        Engine::Unknown => terminated::CONTAINER_STATUS_UNKNOWN,
        Engine::Exited { oom_killed: true, .. } => terminated::OOM_KILLED,
        Engine::Exited { exit_code: 0, .. } => terminated::COMPLETED,
        Engine::Exited { started_at: None, .. } => terminated::CONTAINER_CANNOT_RUN,
        _ => terminated::ERROR,
    };
    let unknown = (container.state == Engine::Unknown).then(|| UNKNOWN_MESSAGE.to_owned());
    Some(ContainerStateTerminated {
        container_id: Some(id(&container.id)),
        exit_code: end.exit_code,
        finished_at: Some(Time(end.finished_at)),
        message: container.message.clone().or(unknown),
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: end.started_at.map(Time),
    })
}

/// How a container ended after what was told: one that ran when it was last heard of has ended since.
fn ended_as_told(told: &ContainerStatus) -> Option<ContainerStateTerminated> {
    let state = told.state.as_ref()?;
    if let Some(terminated) = &state.terminated {
        return Some(terminated.clone());
    }
    let running = state.running.as_ref()?;
    Some(ContainerStateTerminated {
        container_id: told.container_id.clone(),
        exit_code: EXIT_UNKNOWN,
        message: Some(UNKNOWN_MESSAGE.to_owned()),
        reason: Some(terminated::CONTAINER_STATUS_UNKNOWN.to_owned()),
        started_at: running.started_at.clone(),
        ..ContainerStateTerminated::default()
    })
}

/// A delay as Kubernetes writes it: `10s`, `1m20s`, `5m0s`.
fn in_words(delay: Duration) -> String {
    let secs = delay.as_secs();
    if secs < 60 { format!("{secs}s") } else { format!("{}m{}s", secs / 60, secs % 60) }
}
