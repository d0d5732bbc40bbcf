//! The pods of this node: one task per pod, each a loop of observe, plan, apply.
#![allow(clippy::todo, dead_code, unused_variables, clippy::unused_async, reason = "the outline")]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use berth_api::id::PodUid;
use berth_engine::Engine;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::node::NodeFacts;
use crate::objects::Objects;
use crate::recorder::Recorder;

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

/// All pods of the node. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub(crate) struct Workers {}

impl Workers {
    /// No pods yet.
    pub(crate) fn new(world: World) -> Self {
        todo!()
    }

    /// The source has this version of a pod now.
    pub(crate) fn update(&self, pod: Arc<Pod>) {
        todo!()
    }

    /// The source has a pod no more: it is ended with its grace period, and all it had is freed.
    pub(crate) fn remove(&self, uid: &PodUid) {
        todo!()
    }

    /// The first complete list is in: what runs here for pods that are not in it is ended and freed.
    pub(crate) fn synced(&self, known: &HashSet<PodUid>) {
        todo!()
    }

    /// All pods with what is known of them now.
    pub(crate) fn pods(&self) -> Vec<(Arc<Pod>, PodStatus)> {
        todo!()
    }

    /// Where a container's log is.
    pub(crate) async fn log_file(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<LogFile, LogError> {
        todo!()
    }
}
