//! The pods' network: which one it is, and its verbs on threads that may block.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, PoisonError, RwLock, Weak};
use std::time::Duration;

use berth_cni::{Attachment, Dirs, Network};
use berth_sys::file::{self, Durability};
use berth_sys::netlink::watch::Watch;

use crate::config::{PortMapping, SandboxConfig};
use crate::error::chain;
use crate::status::SandboxId;
use crate::{EngineConfig, Error, PodNetwork};

/// The name of the interface in a pod.
const INTERFACE: &str = "eth0";

/// The name of the built-in network: of its address store and in its cached results.
const BUILTIN_NAME: &str = "berth";

/// How long after an event the network is looked at.
const REPAIR_PAUSE: Duration = Duration::from_millis(200);
/// How often it is looked at without any event whether the engine is there.
const WATCH_ROUND: Duration = Duration::from_secs(30);

/// The network that pods get: the first configuration list of the folder, or else the built-in one.
#[derive(Debug)]
pub(crate) struct Networks {
    conf_dir: PathBuf,
    dirs: Dirs,
    /// Where the built-in network is remembered, so that it can be used and taken down without anybody's word.
    memory: PathBuf,
    builtin: RwLock<Option<Arc<Network>>>,
    /// Held shared by whoever attaches a sandbox, alone by whoever frees what no sandbox has: else a sandbox that is
    /// attached after the others were counted would lose its address.
    attaching: RwLock<()>,
    /// That a list was passed over is told once.
    passed_over: Once,
}

impl Networks {
    /// The built-in network is the last one that was set, if there was one.
    pub(crate) fn new(config: &EngineConfig) -> Self {
        let dirs = Dirs { state: config.state_dir.join("cni"), bin: config.cni_bin_dirs.clone() };
        let memory = config.state_dir.join("network.json");
        let (builtin, attaching) = Default::default();
        let passed_over = Once::new();
        let networks = Self { conf_dir: config.cni_conf_dir.clone(), dirs, memory, builtin, attaching, passed_over };
        let remembered = std::fs::read(&networks.memory).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(Err(error)) = remembered.map(|network| networks.use_builtin(&network)) {
            tracing::warn!(%error, "the pod network of the last time cannot be used");
        }
        networks
    }

    /// Sets or replaces the built-in network.
    pub(crate) fn set_builtin(&self, wanted: &PodNetwork) -> Result<(), Error> {
        self.use_builtin(wanted)?;
        let failed = |error: std::io::Error| Error::Internal {
            message: format!("cannot write {}: {error}", self.memory.display()),
        };
        let text = serde_json::to_vec(wanted).map_err(|error| failed(error.into()))?;
        file::replace(&self.memory, &text, Durability::Power).map_err(failed)
    }

    fn use_builtin(&self, wanted: &PodNetwork) -> Result<(), Error> {
        let made = Network::builtin(BUILTIN_NAME, &wanted.bridge, &wanted.pod_cidrs, wanted.mtu, self.dirs.clone());
        let made = made.map_err(|error| Error::Internal { message: format!("pod network: {}", chain(&error)) })?;
        *self.builtin.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(made));
        Ok(())
    }

    /// The network to use now. Who installs a network installs its plugins before its list: a list without them is
    /// another tool's (podman's package leaves one), and passed over.
    pub(crate) fn current(&self) -> Result<Arc<Network>, String> {
        let builtin = self.builtin.read().unwrap_or_else(PoisonError::into_inner).clone();
        let foreign = Network::first_in(&self.conf_dir, self.dirs.clone()).map_err(|error| chain(&error))?;
        match (foreign, builtin) {
            (Some(foreign), Some(builtin)) => match foreign.missing_plugin() {
                Some(error) => {
                    self.passed_over.call_once(|| {
                        let (folder, network) = (self.conf_dir.display(), foreign.name());
                        tracing::warn!("the network {network:?} of {folder} is passed over: {}", chain(&error));
                    });
                    Ok(builtin)
                }
                None => Ok(Arc::new(foreign)),
            },
            (Some(foreign), None) => Ok(Arc::new(foreign)),
            (None, Some(builtin)) => Ok(builtin),
            (None, None) => Err(format!(
                "no pod network: the node has no pod range yet and {} has no configuration list",
                self.conf_dir.display()
            )),
        }
    }

    /// Gives a sandbox its interface and tells its addresses.
    pub(crate) async fn add(
        self: &Arc<Self>,
        id: &SandboxId,
        config: &SandboxConfig,
        netns: &Path,
    ) -> Result<Vec<IpAddr>, Error> {
        let (attachment, networks) = (attachment(id, config, netns), Arc::clone(self));
        let add = move |network: &Network| {
            let _attaching = networks.attaching.read().unwrap_or_else(PoisonError::into_inner);
            network.add(&attachment).map_err(|error| chain(&error))
        };
        match self.blocking(add).await {
            Ok(added) => Ok(added.ips.iter().map(|one| one.address.ip()).collect()),
            Err(message) => Err(failed(config, message)),
        }
    }

    /// Releases what a sandbox has. Success if it has nothing.
    pub(crate) async fn del(
        self: &Arc<Self>,
        id: &SandboxId,
        config: &SandboxConfig,
        netns: &Path,
    ) -> Result<(), Error> {
        let attachment = attachment(id, config, netns);
        let result = self.blocking(move |network| network.del(&attachment).map_err(|error| chain(&error))).await;
        result.map_err(|message| failed(config, message))
    }

    /// Releases what belongs to none of the sandboxes that `live` tells when nobody is being attached.
    pub(crate) async fn gc(
        self: &Arc<Self>,
        live: impl FnOnce() -> Vec<SandboxId> + Send + 'static,
    ) -> Result<(), String> {
        let networks = Arc::clone(self);
        let gc = move |network: &Network| {
            let _alone = networks.attaching.write().unwrap_or_else(PoisonError::into_inner);
            let valid: Vec<_> = live().into_iter().map(|id| (id.0, INTERFACE.to_owned())).collect();
            network.gc(&valid).map_err(|error| chain(&error))
        };
        self.blocking(gc).await
    }

    /// Whether pods can get a network now.
    pub(crate) async fn status(self: &Arc<Self>) -> Result<(), Error> {
        let result = self.blocking(|network| network.status().map_err(|error| chain(&error))).await;
        result.map_err(|message| Error::Internal { message })
    }

    /// Repairs the network whenever somebody takes something of it away, on a thread that ends when nobody has the networks
    /// any more.
    pub(crate) fn keep(self: &Arc<Self>) {
        let networks = Arc::downgrade(self);
        let begun = std::thread::Builder::new().name("pod network".to_owned()).spawn(move || {
            if let Err(error) = repair_while_there(&networks) {
                tracing::warn!("the pod network is not watched any more: {}", chain(&error));
            }
        });
        if let Err(error) = begun {
            tracing::warn!(%error, "the pod network is not watched");
        }
    }

    /// Takes the built-in network off the host.
    pub(crate) async fn remove_builtin(self: &Arc<Self>) -> Result<(), Error> {
        let builtin = self.builtin.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(network) = builtin else { return Ok(()) };
        let result = tokio::task::spawn_blocking(move || network.remove().map_err(|error| chain(&error))).await;
        result.unwrap_or_else(|error| Err(error.to_string())).map_err(|message| Error::Internal { message })?;
        *self.builtin.write().unwrap_or_else(PoisonError::into_inner) = None;
        file::remove(&self.memory)
            .map_err(|error| Error::Internal { message: format!("cannot remove {}: {error}", self.memory.display()) })
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        verb: impl FnOnce(&Network) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let networks = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || verb(&*networks.current()?));
        task.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

fn repair_while_there(networks: &Weak<Networks>) -> Result<(), berth_cni::Error> {
    let mut watches = Network::watches()?;
    loop {
        let happened = Watch::wait(&watches, WATCH_ROUND)?;
        let Some(networks) = networks.upgrade() else { return Ok(()) };
        if !happened {
            continue;
        }
        // Pods come and go in bursts, and who flushes tables often fills them again.
        std::thread::sleep(REPAIR_PAUSE);
        for watch in &mut watches {
            watch.drain()?;
        }
        let Ok(network) = networks.current() else { continue };
        if let Err(error) = network.repair() {
            tracing::warn!("repairing the pod network: {}", chain(&error));
        }
    }
}

fn failed(config: &SandboxConfig, message: String) -> Error {
    Error::Network { pod: format!("{}/{}", config.namespace, config.name), message }
}

/// What CNI is told: the arguments that Kubernetes' runtimes pass, and the ports as a capability.
fn attachment(id: &SandboxId, config: &SandboxConfig, netns: &Path) -> Attachment {
    let args = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", &config.namespace),
        ("K8S_POD_NAME", &config.name),
        ("K8S_POD_INFRA_CONTAINER_ID", id.as_str()),
        ("K8S_POD_UID", &config.uid),
    ];
    let mut runtime_config = serde_json::Map::new();
    if !config.port_mappings.is_empty() {
        runtime_config.insert("portMappings".to_owned(), config.port_mappings.iter().map(port_mapping).collect());
    }
    Attachment {
        container_id: id.as_str().to_owned(),
        netns: netns.to_owned(),
        ifname: INTERFACE.to_owned(),
        args: args.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        runtime_config,
    }
}

fn port_mapping(port: &PortMapping) -> serde_json::Value {
    serde_json::json!({
        "hostPort": port.host_port,
        "containerPort": port.container_port,
        "protocol": port.protocol,
        "hostIP": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    })
}
