//! The config maps and secrets that this node's pods use: each fetched when first asked for, and watched by name from
//! then on for as long as a pod names it. What was once known is given also while the master is away.
//!
//! A watch per object, and not one per kind: a node's certificate may read only what its pods need.

mod cache;
mod references;

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use tokio::sync::broadcast;

use self::cache::{Cache, Miss};
pub(crate) use self::references::references;

/// How many changes wait for a slow listener.
const CHANGES_MAX: usize = 256;

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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
#[derive(Clone)]
pub(crate) struct Objects {
    inner: Arc<Inner>,
}

struct Inner {
    client: Option<Client>,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    changes: broadcast::Sender<ObjectKey>,
}

impl Objects {
    /// None yet. Without a client there never are any.
    pub(crate) fn new(client: Option<Client>) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let (config_maps, secrets) = (Cache::new(changes.clone()), Cache::new(changes.clone()));
        Self { inner: Arc::new(Inner { client, config_maps, secrets, changes }) }
    }

    /// A config map; `None` if the master has none of that name.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, ObjectError> {
        let key = ObjectKey { kind: ObjectKind::ConfigMap, namespace: namespace.to_owned(), name: name.to_owned() };
        let client = self.client(&key)?;
        let found = self.inner.config_maps.get(&key, || Api::namespaced(client, namespace)).await;
        found.map_err(|Miss(message)| ObjectError::Unavailable { key, message })
    }

    /// A secret; `None` if the master has none of that name.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, ObjectError> {
        let key = ObjectKey { kind: ObjectKind::Secret, namespace: namespace.to_owned(), name: name.to_owned() };
        let client = self.client(&key)?;
        let found = self.inner.secrets.get(&key, || Api::namespaced(client, namespace)).await;
        found.map_err(|Miss(message)| ObjectError::Unavailable { key, message })
    }

    /// Tells when an object that was asked for changes, appears or goes. One that falls behind looks at all again.
    pub(crate) fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.inner.changes.subscribe()
    }

    /// Forgets, and stops watching, all that no pod names any more.
    pub(crate) fn retain(&self, named: &HashSet<ObjectKey>) {
        self.inner.config_maps.retain(named);
        self.inner.secrets.retain(named);
    }

    fn client(&self, key: &ObjectKey) -> Result<Client, ObjectError> {
        self.inner.client.clone().ok_or_else(|| ObjectError::NoMaster { key: key.clone() })
    }
}
