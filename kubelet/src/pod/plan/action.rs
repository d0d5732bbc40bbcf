//! What a plan is made of. An action is complete data: who performs it has nothing left to decide.

use berth_engine::{ContainerId, SandboxId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::pod::notice::Notice;
use crate::probe;

/// What is to be done now, and when to look again if nothing happens before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// In this order; each is started before the next, and none is waited for.
    pub actions: Vec<Action>,
    /// The only timer that a pod has.
    pub wake_at: Option<Timestamp>,
    /// Why the pod is being ended, if it is.
    pub ending: Option<Ending>,
    /// Whether all containers have ended and everything that must be freed is.
    pub finished: bool,
}

/// Why a pod is being ended, and what stays of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its containers ended and stay so. Their records and logs are kept for those who ask.
    Over,
    /// It ran longer than it may. Records and logs are kept.
    DeadlineExceeded,
    /// Nobody wants it any more: nothing stays.
    Unwanted,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Mount the volumes, or bring what is in them up to date.
    Volumes,
    /// Make the pod's cgroup and its sandbox.
    Sandbox {
        /// How many there were before.
        attempt: u32,
    },
    /// See to it that the image for a container's next run is here.
    Pull {
        /// The container.
        name: String,
        /// Which run.
        attempt: u32,
    },
    /// Create a container and run its program.
    Start(Start),
    /// Ask a container to end: its `preStop` handler, then the stop signal.
    Stop(Stop),
    /// End a container by force.
    Kill {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// Forget a container whose record nobody needs any more.
    Forget {
        /// Which.
        id: ContainerId,
    },
    /// Release a sandbox's network and what is left in it; its records stay.
    StopSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Forget a sandbox and its containers.
    RemoveSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Free what the pod has beside its sandbox: volumes, cgroup, folders.
    Free(Freed),
    /// Ask a container how it is.
    Probe {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
        /// Which of its probes.
        kind: probe::Kind,
        /// Its numbers.
        rules: probe::Rules,
    },
    /// Call a task off.
    Cancel(Task),
    /// Tell the user something once.
    Tell(Notice),
}

/// How to start a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// Where.
    pub sandbox: SandboxId,
    /// Its name.
    pub name: String,
    /// How often a container of this name ran before.
    pub attempt: u32,
    /// How many of those ended early, in a row.
    pub streak: u32,
    /// The image that was found for this run.
    pub image: String,
    /// The container, if it was created already and only its start is missing.
    pub created: Option<ContainerId>,
}

/// How to stop a container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stop {
    /// Which.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// How long it has, the handler included.
    pub grace_secs: u64,
    /// What to run before the signal.
    pub pre_stop: Option<Box<LifecycleHandler>>,
    /// Why: the event's message.
    pub why: String,
}

/// How much of a pod is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Freed {
    /// Volumes and cgroup; the logs stay.
    ButLogs,
    /// All.
    All,
}

/// Work that takes a while: at most one of each is under way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// [`Action::Volumes`].
    Volumes,
    /// [`Action::Sandbox`].
    Sandbox,
    /// [`Action::Pull`], by the container's name.
    Pull(String),
    /// [`Action::Start`], by the container's name.
    Start(String),
    /// [`Action::Stop`].
    Stop(ContainerId),
    /// [`Action::Kill`].
    Kill(ContainerId),
    /// [`Action::Forget`].
    Forget(ContainerId),
    /// [`Action::StopSandbox`].
    StopSandbox(SandboxId),
    /// [`Action::RemoveSandbox`].
    RemoveSandbox(SandboxId),
    /// [`Action::Free`].
    Free(Freed),
    /// [`Action::Probe`].
    Probe(ContainerId, probe::Kind),
}

impl Action {
    /// The task that performs it; none if it is done at once.
    pub(crate) fn task(&self) -> Option<Task> {
        Some(match self {
            Self::Volumes => Task::Volumes,
            Self::Sandbox { .. } => Task::Sandbox,
            Self::Pull { name, .. } => Task::Pull(name.clone()),
            Self::Start(start) => Task::Start(start.name.clone()),
            Self::Stop(stop) => Task::Stop(stop.id.clone()),
            Self::Kill { id, .. } => Task::Kill(id.clone()),
            Self::Forget { id } => Task::Forget(id.clone()),
            Self::StopSandbox { id } => Task::StopSandbox(id.clone()),
            Self::RemoveSandbox { id } => Task::RemoveSandbox(id.clone()),
            Self::Free(freed) => Task::Free(*freed),
            Self::Probe { id, kind, .. } => Task::Probe(id.clone(), *kind),
            Self::Cancel(_) | Self::Tell(_) => return None,
        })
    }
}
