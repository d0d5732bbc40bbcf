//! The pods of this node: one task per pod, each a loop of observe, plan, apply.
//!
//! ```text
//!        source ──▶ Workers ──▶ worker ─┬─ observe   engine's records + memory ──▶ Observed
//!   engine news ──▶    │                ├─ plan      (Desired, Observed, now)  ──▶ Plan      pure
//! object changes ──▶   │                ├─ status    Observed                  ──▶ PodStatus pure
//!                      │                └─ apply     each action a task; its end is an event
//!                      └─ log files, pods for the server
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `desired` | the pod's object, checked once |
//! | `observe` | what there is of a pod, in the words that plans are made of |
//! | `memory` | what only the worker knows; nothing that a restart must not lose |
//! | `plan` | what is to be done now; pure |
//! | `invariants` | what must be true of every plan |
//! | `status` | what is told to the master; pure |
//! | `notice` | what is told to users by events; pure |
//! | `apply` | how each action is done |
//! | `container_config`, `sandbox_config` | from the pod's words to the engine's; pure |
//! | `worker` | the loop |
//!
//! What a restart of the agent must not lose is not in here at all: the engine's records have it (which container ran
//! how often, how it ended, how many ended early in a row), or the pod's own status.

mod apply;
pub(crate) mod container_config;
pub(crate) mod desired;
pub(crate) mod event;
mod invariants;
mod last_words;
#[cfg(test)]
mod live;
mod logs;
mod memory;
pub(crate) mod notice;
mod observe;
mod plan;
mod routes;
mod sandbox_config;
#[cfg(test)]
mod simulation;
mod status;
mod unsupported;
mod worker;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;

use berth_engine::Engine;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{OnceCell, mpsc, watch};

pub use self::container_config::note::image_asked_for;
use self::desired::Desired;
use self::notice::Notice;
use self::routes::Routes;
pub(crate) use self::workers::Workers;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::node::NodeFacts;
use crate::objects::Objects;
use crate::recorder::Recorder;
use crate::volume::Volumes;

/// What the workers need of the rest of the node.
#[derive(Clone)]
pub(crate) struct World {
    /// Sandboxes, containers, images.
    pub engine: Engine,
    /// What the agent was told to be.
    pub config: Arc<Config>,
    /// Where the pods' statuses go.
    pub statuses: mpsc::Sender<StatusUpdate>,
    /// Where events go.
    pub recorder: Recorder,
    /// Config maps and secrets.
    pub objects: Objects,
    /// What pods may learn about the node.
    pub node: watch::Receiver<NodeFacts>,
}

/// What became of a pod.
#[derive(Debug, Clone)]
pub(crate) struct StatusUpdate {
    /// The pod, in the version that the status is of.
    pub pod: Arc<Pod>,
    /// Its status.
    pub status: PodStatus,
    /// Whether all containers have ended and everything that the pod had is freed: if it has a deletion timestamp, its
    /// object may go.
    pub finished: bool,
}

/// The log of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFile {
    /// The newest file; older parts stand beside it.
    pub path: PathBuf,
    /// Whether the container still runs, so that more may follow.
    pub running: bool,
}

/// Why there is no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    /// No such pod here.
    #[error("pod {namespace}/{pod} is not on this node")]
    NoPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// No such container in it.
    #[error("container {container:?} is not in pod {namespace}/{pod}")]
    NoContainer {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
        /// What was asked for.
        container: String,
    },
    /// It was not started yet.
    #[error("container {container:?} in pod {namespace}/{pod} is waiting to start: {reason}")]
    Waiting {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
        /// What was asked for.
        container: String,
        /// Why it waits.
        reason: String,
    },
    /// It has run once only.
    #[error("previous terminated container {container:?} in pod {namespace}/{pod} not found")]
    NoPrevious {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
        /// What was asked for.
        container: String,
    },
}

/// What all workers share.
struct Context {
    world: World,
    volumes: Volumes,
    cgroups: Cgroups,
    routes: Routes,
    adopted: OnceCell<()>,
}

impl Context {
    fn new(world: World) -> Self {
        let (volumes, cgroups) = (Volumes::new(&world.config.state_dir), Cgroups::new(&world.config));
        Self { world, volumes, cgroups, routes: Routes::default(), adopted: OnceCell::new() }
    }

    /// Finds the sandboxes of an agent that ran before; once.
    async fn adopt(&self) {
        self.adopted.get_or_init(|| self.find_sandboxes()).await;
    }

    /// Finds out whose every sandbox of the engine is.
    async fn find_sandboxes(&self) {
        for sandbox in self.world.engine.sandboxes().await {
            match sandbox.config.uid.parse() {
                Ok(uid) => self.routes.add(sandbox.id, &uid),
                Err(error) => tracing::warn!(sandbox = sandbox.id.as_str(), %error, "a sandbox is nobody's"),
            }
        }
    }

    fn node(&self) -> NodeFacts {
        self.world.node.borrow().clone()
    }

    fn tell(&self, desired: &Desired, notice: &Notice) {
        self.tell_pod(&desired.pod, notice);
    }

    fn tell_pod(&self, pod: &Pod, notice: &Notice) {
        let Notice { container, kind, reason, message, .. } = notice;
        self.world.recorder.event(pod, container.as_deref(), *kind, reason, message.clone());
    }
}

/// A configuration for tests, with everything below one folder.
#[cfg(test)]
pub(crate) fn a_config(folder: &std::path::Path) -> Config {
    let options = crate::config::Options {
        node_name: Some("node".to_owned()),
        state_dir: folder.join("state"),
        run_dir: folder.join("run"),
        pod_log_dir: folder.join("logs"),
        ..crate::config::Options::default()
    };
    Config::load(options).unwrap()
}
