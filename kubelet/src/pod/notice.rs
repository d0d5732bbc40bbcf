//! What users are told by events, in Kubernetes' words. Pure.

use berth_api::reason::{event, waiting};
use berth_engine::ContainerId;

use super::desired::Desired;
use super::event::{Outcome, Product};
use super::memory::Memory;
use super::plan::{Action, Task};
use crate::probe;
use crate::recorder::EventType;

/// One thing that users are told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Notice {
    /// The run of a container that it is about: what is said once is said again of the next run.
    pub about: Option<ContainerId>,
    /// The container's name, if it is about one.
    pub container: Option<String>,
    /// Whether somebody should look.
    pub kind: EventType,
    /// The standard word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

impl Notice {
    /// What was to be expected.
    pub(crate) fn normal(container: Option<&str>, reason: &'static str, message: impl Into<String>) -> Self {
        let container = container.map(str::to_owned);
        Self { about: None, container, kind: EventType::Normal, reason, message: message.into() }
    }

    /// What somebody should see.
    pub(crate) fn warning(container: Option<&str>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Warning, ..Self::normal(container, reason, message) }
    }

    /// The same, about one run of a container.
    pub(crate) fn about(self, id: &ContainerId) -> Self {
        Self { about: Some(id.clone()), ..self }
    }
}

/// What is told when an action begins.
pub(crate) fn of_action(action: &Action) -> Option<Notice> {
    match action {
        Action::Stop(stop) => Some(Notice::normal(Some(&stop.name), event::KILLING, stop.why.clone())),
        Action::Tell(notice) => Some(notice.clone()),
        _ => None,
    }
}

/// What is told when a task has ended.
pub(crate) fn of_end(desired: &Desired, memory: &Memory, task: &Task, outcome: &Outcome) -> Vec<Notice> {
    match (task, outcome) {
        (Task::Pull(name), Outcome::Done(Product::Image { message, .. })) => {
            vec![Notice::normal(Some(name), event::PULLED, message.clone())]
        }
        (
            Task::Probe(id, kind),
            Outcome::Done(Product::Probe { answer: probe::Answer::Unhealthy(said), rules, name }),
        ) => {
            let steady = memory.probes.get(&(id.clone(), *kind)).is_some_and(|state| state.is_steady(*kind, rules));
            let message = format!("{} probe failed: {said}", kind.word());
            Vec::from_iter(steady.then(|| Notice::warning(Some(name), event::UNHEALTHY, message)))
        }
        (task, Outcome::Failed(fault)) => of_fault(desired, task, fault.reason, &fault.message),
        (_, Outcome::Done(_) | Outcome::Cancelled) => Vec::new(),
    }
}

fn of_fault(desired: &Desired, task: &Task, reason: &'static str, message: &str) -> Vec<Notice> {
    match task {
        Task::Pull(name) => of_pull_fault(desired, name, reason, message),
        Task::Start(name) => {
            vec![Notice::warning(Some(name), event::FAILED, format!("Error: {message}"))]
        }
        Task::Volumes => vec![Notice::warning(None, event::FAILED_MOUNT, message)],
        Task::Sandbox => vec![Notice::warning(
            None,
            event::FAILED_CREATE_POD_SAND_BOX,
            format!("Failed to create pod sandbox: {message}"),
        )],
        Task::Stop(_) => vec![Notice::warning(None, reason, message)],
        Task::Kill(_) | Task::StopSandbox(_) | Task::RemoveSandbox(_) | Task::Free(_) => {
            vec![Notice::warning(None, event::FAILED_KILL_POD, message)]
        }
        // A record that could not be forgotten, and a probe that could not be asked, are for the log only.
        Task::Forget(_) | Task::Probe(..) => Vec::new(),
    }
}

fn of_pull_fault(desired: &Desired, name: &str, reason: &'static str, message: &str) -> Vec<Notice> {
    let image = desired.container(name).and_then(|(_, spec)| spec.image.as_deref()).unwrap_or_default();
    let error = Notice::warning(Some(name), event::FAILED, format!("Error: {reason}"));
    match reason {
        waiting::ERR_IMAGE_PULL => vec![
            Notice::warning(Some(name), event::FAILED, format!("Failed to pull image {image:?}: {message}")),
            error,
            Notice::normal(Some(name), event::BACK_OFF, format!("Back-off pulling image {image:?}")),
        ],
        waiting::ERR_IMAGE_NEVER_PULL => {
            vec![Notice::warning(Some(name), event::ERR_IMAGE_NEVER_PULL, message), error]
        }
        _ => vec![Notice::warning(Some(name), event::INSPECT_FAILED, message), error],
    }
}
