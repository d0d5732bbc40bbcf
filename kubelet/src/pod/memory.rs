//! What only the worker knows: work under way, failures, answers of probes. Pure: events come in with their time.
//!
//! Nothing in here has to survive the agent. A worker that begins with an empty memory does some work twice (it mounts
//! what is mounted, looks for images that are here), and comes to the same end.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use berth_api::backoff::{CRASH_LOOP, Curve, IMAGE_PULL, NODE_WORK};
use berth_api::reason;
use berth_engine::{ContainerId, SandboxId};
use jiff::Timestamp;

use super::desired::Desired;
use super::event::{Change, Event, Fault, Outcome, Product};
use super::notice::{self, Notice};
use super::plan::{Action, Freed, Plan, Task};
use crate::probe;

/// What only the worker knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// Work under way.
    pub running: BTreeSet<Task>,
    /// Work that failed, and has not succeeded since.
    pub failures: BTreeMap<Task, Failure>,
    /// Whether the volumes can be used.
    pub volumes: Volumes,
    /// The image that was found for a container's next run, by the container's name.
    pub images: BTreeMap<String, Image>,
    /// What probes have said.
    pub probes: BTreeMap<(ContainerId, probe::Kind), probe::State>,
    /// Containers that were asked to end, and since when.
    pub stops: BTreeMap<ContainerId, Stopping>,
    /// Containers that were killed, and when last.
    pub kills: BTreeMap<ContainerId, Timestamp>,
    /// Sandboxes that are stopped.
    pub stopped: BTreeSet<SandboxId>,
    /// What was said once and is not said again.
    pub told: HashSet<Notice>,
    /// Since when the pod is being ended.
    pub ending_since: Option<Timestamp>,
    /// What was freed.
    pub freed: Option<Freed>,
}

/// How far the volumes follow what should be in them: three counts of the changes that were heard of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Volumes {
    heard: u32,
    begun: u32,
    done: Option<u32>,
}

impl Volumes {
    /// Whether they can be used.
    pub(crate) fn are_mounted(self) -> bool {
        self.done.is_some()
    }

    /// Whether what is in them is the newest.
    pub(crate) fn are_current(self) -> bool {
        self.done == Some(self.heard)
    }

    fn spoil(&mut self) {
        self.heard = self.heard.wrapping_add(1);
    }
}

/// A container that was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopping {
    /// Since when.
    pub since: Timestamp,
    /// How long it has.
    pub grace_secs: u64,
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// For which run of the container.
    pub attempt: u32,
    /// The digest of its configuration.
    pub id: String,
}

/// A failure in a row of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What went wrong the last time.
    pub fault: Fault,
    /// How often in a row.
    pub count: u32,
    /// When the last time.
    pub at: Timestamp,
    /// When to try again.
    pub retry_at: Timestamp,
}

impl Memory {
    /// Takes an event in, and gives what users are to be told of it.
    pub(crate) fn note(&mut self, desired: &Desired, event: &Event, now: Timestamp) -> Vec<Notice> {
        match event {
            Event::Engine | Event::Time => Vec::new(),
            Event::Wish(change) => {
                if *change == Change::Metadata {
                    self.volumes.spoil();
                }
                Vec::new()
            }
            Event::Object => {
                self.volumes.spoil();
                self.failures.retain(|task, _| !matches!(task, Task::Volumes | Task::Start(_)));
                Vec::new()
            }
            Event::Ended(task, outcome) => {
                self.running.remove(task);
                match outcome {
                    Outcome::Done(product) => self.succeeded(task, product, now),
                    Outcome::Failed(fault) => self.failed(task, fault, now),
                    Outcome::Cancelled => {}
                }
                notice::of_end(desired, self, task, outcome)
            }
        }
    }

    /// Takes in what is about to be done.
    pub(crate) fn begin(&mut self, plan: &Plan, now: Timestamp) {
        if plan.ending.is_some() {
            self.ending_since.get_or_insert(now);
        }
        for action in &plan.actions {
            self.running.extend(action.task());
            match action {
                Action::Stop(stop) => {
                    let stopping = Stopping { since: now, grace_secs: stop.grace_secs };
                    self.stops.entry(stop.id.clone()).or_insert(stopping);
                }
                Action::Kill { id, .. } => {
                    self.kills.insert(id.clone(), now);
                }
                // What changes from now on is not in what is read now.
                Action::Volumes => self.volumes.begun = self.volumes.heard,
                Action::Tell(notice) => {
                    self.told.insert(notice.clone());
                }
                _ => {}
            }
        }
    }

    /// Forgets what is about containers that are no more.
    pub(crate) fn prune<'a>(&mut self, containers: impl Iterator<Item = &'a ContainerId>) {
        let known: BTreeSet<_> = containers.cloned().collect();
        self.probes.retain(|(id, _), _| known.contains(id));
        self.stops.retain(|id, _| known.contains(id));
        self.kills.retain(|id, _| known.contains(id));
        self.told.retain(|notice| notice.about.as_ref().is_none_or(|id| known.contains(id)));
        self.failures.retain(|task, _| match task {
            Task::Stop(id) | Task::Kill(id) | Task::Forget(id) | Task::Probe(id, _) => known.contains(id),
            _ => true,
        });
    }

    /// What a probe's answers mean so far.
    pub(crate) fn verdict(&self, id: &ContainerId, kind: probe::Kind) -> Option<probe::Verdict> {
        self.probes.get(&(id.clone(), kind)).and_then(|state| state.verdict)
    }

    /// Whether the `postStart` handler of a container that runs has ended: it is a part of the start.
    pub(crate) fn hooked(&self, name: &str) -> bool {
        !self.running.contains(&Task::Start(name.to_owned()))
    }

    /// Whether a task may be begun now; if it has failed, when.
    pub(crate) fn ready(&self, task: &Task, now: Timestamp) -> Readiness {
        if self.running.contains(task) {
            return Readiness::Running;
        }
        match self.failures.get(task) {
            Some(failure) if failure.retry_at > now => Readiness::At(failure.retry_at),
            _ => Readiness::Now,
        }
    }

    fn succeeded(&mut self, task: &Task, product: &Product, now: Timestamp) {
        self.failures.remove(task);
        match (task, product) {
            (Task::Volumes, _) => self.volumes.done = Some(self.volumes.begun),
            (Task::Pull(name), Product::Image { attempt, id, .. }) => {
                self.images.insert(name.clone(), Image { attempt: *attempt, id: id.clone() });
            }
            (Task::Start(name), _) => {
                self.images.remove(name);
            }
            (Task::StopSandbox(id), _) => {
                self.stopped.insert(id.clone());
            }
            (Task::Free(freed), _) => {
                self.freed = Some(self.freed.map_or(*freed, |before| before.max(*freed)));
                self.volumes.done = None;
            }
            (Task::Probe(id, kind), Product::Probe { answer, rules, .. }) => {
                let key = (id.clone(), *kind);
                let state = probe::State::after(self.probes.get(&key), *kind, rules, answer, now);
                self.probes.insert(key, state);
            }
            _ => {}
        }
    }

    fn failed(&mut self, task: &Task, fault: &Fault, now: Timestamp) {
        let count = self.failures.get(task).map_or(0, |failure| failure.count).saturating_add(1);
        let retry_at = later(now, curve(task, fault).delay(count));
        self.failures.insert(task.clone(), Failure { fault: fault.clone(), count, at: now, retry_at });
    }
}

/// Whether a task may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It is under way.
    Running,
    /// It failed; not before this time.
    At(Timestamp),
    /// It may.
    Now,
}

/// A time so much later.
pub(crate) fn later(time: Timestamp, delay: Duration) -> Timestamp {
    time.saturating_add(delay).unwrap_or(Timestamp::MAX)
}

fn curve(task: &Task, fault: &Fault) -> Curve {
    match task {
        Task::Pull(_) => IMAGE_PULL,
        Task::Start(_) if fault.reason != reason::waiting::CREATE_CONTAINER_CONFIG_ERROR => CRASH_LOOP,
        _ => NODE_WORK,
    }
}
