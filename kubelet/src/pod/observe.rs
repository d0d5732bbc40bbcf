//! What there is of a pod: the engine's records, and the worker's memory beside them.

use std::net::IpAddr;

use berth_engine::{ContainerId, ContainerState, SandboxId, SandboxState, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container as Spec;

use super::container_config::note;
use super::desired::Desired;
use super::memory::Memory;
use crate::probe;

/// What there is of a pod.
#[derive(Debug, Clone)]
pub(crate) struct Observed<'a> {
    /// Its sandboxes, oldest first.
    pub sandboxes: Vec<Sandbox>,
    /// What only the worker knows.
    pub memory: &'a Memory,
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// How many there were before.
    pub attempt: u32,
    /// Whether containers can be created in it.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// The pod's own addresses.
    pub ips: Vec<IpAddr>,
    /// Its containers, oldest first.
    pub containers: Vec<Container>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// How often a container of this name ran before.
    pub attempt: u32,
    /// How many of those ended early, in a row.
    pub streak: u32,
    /// The image that the pod asked for when it was created.
    pub image: String,
    /// The digest of its image's configuration.
    pub image_id: String,
    /// The image by digest, where it was pulled.
    pub image_ref: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: ContainerState,
    /// Its last words, if it has ended.
    pub message: Option<String>,
}

impl Container {
    /// Whether its program runs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// How it ended, if it did. One of which nobody knows how counts as killed.
    pub(crate) fn end(&self) -> Option<End> {
        match self.state {
            ContainerState::Created | ContainerState::Running { .. } => None,
            ContainerState::Exited { started_at, finished_at, exit_code, .. } => {
                Some(End { exit_code, started_at, finished_at })
            }
            ContainerState::Unknown => {
                Some(End { exit_code: EXIT_UNKNOWN, started_at: None, finished_at: self.created_at })
            }
        }
    }
}

/// The exit code of a container whose shim died: as if it was killed.
pub(crate) const EXIT_UNKNOWN: i32 = 137;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// 0 to 255.
    pub exit_code: i32,
    /// When it was started, if it ever was.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Observed<'_> {
    /// The sandbox that containers can be started in.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().rev().find(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// All containers, with the sandbox that each is in.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&Sandbox, &Container)> {
        self.sandboxes.iter().flat_map(|sandbox| sandbox.containers.iter().map(move |container| (sandbox, container)))
    }

    /// The records of one container, oldest first.
    pub(crate) fn history(&self, name: &str) -> Vec<&Container> {
        let mut records: Vec<_> =
            self.containers().map(|(_, container)| container).filter(|container| container.name == name).collect();
        records.sort_by_key(|container| (container.attempt, container.created_at));
        records
    }

    /// The newest record of one container.
    pub(crate) fn newest(&self, name: &str) -> Option<&Container> {
        self.history(name).pop()
    }

    /// The newest record of one container in the sandbox that can be used.
    pub(crate) fn current(&self, name: &str) -> Option<&Container> {
        let sandbox = self.sandbox()?;
        let records = sandbox.containers.iter().filter(|container| container.name == name);
        records.max_by_key(|container| (container.attempt, container.created_at))
    }

    /// Whether any program of the pod runs.
    pub(crate) fn any_running(&self) -> bool {
        self.containers().any(|(_, container)| container.is_running())
    }

    /// Whether a running container has started up: it has no startup probe, or that has passed.
    pub(crate) fn is_started(&self, desired: &Desired, spec: &Spec, container: &Container) -> bool {
        let told = || desired.told(&spec.name).and_then(|told| told.started) == Some(true);
        container.is_running()
            && self.memory.hooked(&spec.name)
            && self.passed(desired, spec, container, probe::Kind::Startup, told)
    }

    /// Whether a running container serves: it has started, and its readiness probe, if it has one, has passed.
    pub(crate) fn is_ready(&self, desired: &Desired, spec: &Spec, container: &Container) -> bool {
        let told = || desired.told(&spec.name).is_some_and(|told| told.ready);
        self.is_started(desired, spec, container) && self.passed(desired, spec, container, probe::Kind::Readiness, told)
    }

    /// Whether a probe has passed. Before the first verdict of this process, what the pod's status says of this very
    /// container is true still: a restart of the agent makes no pod unready.
    fn passed(
        &self,
        desired: &Desired,
        spec: &Spec,
        container: &Container,
        kind: probe::Kind,
        told: impl Fn() -> bool,
    ) -> bool {
        if kind.of(spec).is_none() {
            return true;
        }
        match self.memory.verdict(&container.id, kind) {
            Some(verdict) => verdict == probe::Verdict::Passed,
            None => is_same(desired, &spec.name, &container.id) && told(),
        }
    }
}

/// Whether the pod's status speaks of this very container.
fn is_same(desired: &Desired, name: &str, id: &ContainerId) -> bool {
    let told = desired.told(name).and_then(|told| told.container_id.as_deref());
    told.and_then(|told| told.rsplit('/').next()) == Some(id.as_str())
}

/// What the engine says of a sandbox, in the pod's words.
pub(crate) fn sandbox(status: SandboxStatus) -> Sandbox {
    let containers = status.containers.into_iter().map(|container| Container {
        streak: note::streak(&container.config.annotations),
        image: note::image_asked_for(&container.config.annotations),
        id: container.id,
        name: container.config.name,
        attempt: container.config.attempt,
        image_id: container.image_id,
        image_ref: container.image_ref,
        created_at: container.created_at,
        state: container.state,
        message: None,
    });
    Sandbox {
        containers: containers.collect(),
        id: status.id,
        attempt: status.config.attempt,
        state: status.state,
        created_at: status.created_at,
        ips: status.ips,
    }
}
