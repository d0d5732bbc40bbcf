//! The config maps and secrets that this node's pods use.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio::sync::broadcast;

/// Which of the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ObjectKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// The name of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why an object cannot be had. That it does not exist is not among these.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ObjectError {
    /// The agent runs alone.
    #[error("{key} cannot be had: this node has no master (no kubeconfig is given)")]
    NoMaster {
        /// What was asked for.
        key: ObjectKey,
    },
    /// The master refuses, or cannot be reached in time.
    #[error("{key} cannot be had from the master: {message}")]
    Unavailable {
        /// What was asked for.
        key: ObjectKey,
        /// What the master or the network said.
        message: String,
    },
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            ObjectKind::ConfigMap => "configmap",
            ObjectKind::Secret => "secret",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

/// The objects. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Objects {}

#[allow(clippy::todo, clippy::unused_async, unused_variables, reason = "the outline")]
impl Objects {
    /// A config map; `None` if the master has none of that name.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, ObjectError> {
        todo!()
    }

    /// A secret; `None` if the master has none of that name.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, ObjectError> {
        todo!()
    }

    /// Tells when an object that was asked for changes, appears or goes. One that falls behind looks at all again.
    pub(crate) fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        todo!()
    }
}
