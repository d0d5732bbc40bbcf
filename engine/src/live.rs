//! What an engine holds in memory of a sandbox: a view of the records and of what the shim told, never the only copy.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_runtime::shim::protocol::{self, ExitRecord};
use tokio::sync::{broadcast, oneshot};

use crate::Event;
use crate::record::{ContainerRecord, Phase, SandboxRecord};
use crate::shim::{Shim, Told};
use crate::status::{ContainerId, ContainerState, ContainerStatus, SandboxId, SandboxState, SandboxStatus};

/// One sandbox. Its lock is held for moments, never across a wait.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    state: Mutex<State>,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) record: SandboxRecord,
    pub(crate) shim: Option<Shim>,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    /// Who waits for the end of which exec session.
    pub(crate) execs: HashMap<String, oneshot::Sender<i32>>,
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    pub(crate) state: ContainerState,
}

impl Sandbox {
    /// A sandbox without a shim yet.
    pub(crate) fn new(record: SandboxRecord) -> Self {
        let id = record.id.clone();
        let state = State { record, shim: None, containers: BTreeMap::new(), execs: HashMap::new() };
        Self { id, state: Mutex::new(state) }
    }

    /// Its state. A panic of a former holder has left it whole: every change is one assignment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of it.
    pub(crate) fn status(&self) -> SandboxStatus {
        let state = self.lock();
        let ready = state.record.phase == Phase::Ready && state.shim.as_ref().is_some_and(Shim::is_connected);
        let mut containers: Vec<_> = state.containers.values().map(Container::status).collect();
        containers.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        SandboxStatus {
            id: self.id.clone(),
            config: state.record.config.clone(),
            state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: state.record.created_at,
            ips: state.record.ips.clone(),
            containers,
        }
    }

    /// Takes in what the shim told, and passes it on.
    pub(crate) fn take(&self, told: Told, events: &broadcast::Sender<Event>) {
        let event = match told {
            Told::Event(protocol::Event::Exited { container, exit }) => {
                let container = ContainerId(container);
                if let Some(known) = self.lock().containers.get_mut(&container) {
                    known.state = exited(&exit);
                }
                Event::Exited { sandbox: self.id.clone(), container }
            }
            Told::Event(protocol::Event::Oom { container }) => {
                Event::Oom { sandbox: self.id.clone(), container: ContainerId(container) }
            }
            Told::Event(protocol::Event::ExecExited { exec, code, .. }) => {
                if let Some(waiting) = self.lock().execs.remove(&exec) {
                    let _ = waiting.send(code);
                }
                return;
            }
            Told::Lost => {
                let mut state = self.lock();
                state.shim = None;
                state.execs.clear();
                Event::SandboxLost { sandbox: self.id.clone() }
            }
        };
        // Without a listener nobody is waiting for it.
        let _ = events.send(event);
    }

    /// The way to its shim.
    pub(crate) fn shim(&self) -> Option<Shim> {
        self.lock().shim.clone().filter(Shim::is_connected)
    }
}

impl Container {
    fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.record.id.clone(),
            config: self.record.config.clone(),
            image_id: self.record.image_id.clone(),
            image_ref: self.record.image_ref.clone(),
            created_at: self.record.created_at,
            state: self.state.clone(),
        }
    }
}

/// What a shim's view of a container means to the engine's clients.
pub(crate) fn state_of(container: &protocol::ContainerState) -> ContainerState {
    match (&container.exit, container.started_at) {
        (Some(exit), _) => exited(exit),
        (None, Some(started_at)) => ContainerState::Running { started_at },
        (None, None) => ContainerState::Created,
    }
}

/// An exit record as a state.
pub(crate) fn exited(exit: &ExitRecord) -> ContainerState {
    ContainerState::Exited {
        started_at: exit.started_at,
        finished_at: exit.finished_at,
        exit_code: exit.code,
        signal: exit.signal,
        oom_killed: exit.oom_killed,
    }
}

/// All sandboxes, by id.
#[derive(Debug, Default)]
pub(crate) struct Sandboxes {
    all: Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>,
}

impl Sandboxes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, sandbox: Arc<Sandbox>) {
        self.lock().insert(sandbox.id.clone(), sandbox);
    }

    pub(crate) fn remove(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    pub(crate) fn get(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.lock().get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.lock().values().cloned().collect()
    }

    /// The sandbox that has a container. There are at most some hundreds: looking is cheaper than a second truth.
    pub(crate) fn of_container(&self, id: &ContainerId) -> Option<Arc<Sandbox>> {
        self.all().into_iter().find(|sandbox| sandbox.lock().containers.contains_key(id))
    }
}
