//! Sandboxes, containers and images: what a container runtime is to Kubernetes (the verbs of CRI v1), without
//! Kubernetes' objects and with one stream of events in place of polling.
//!
//! It owns the records below `<run>/sandboxes` and `<run>/containers`, starts one shim per sandbox, and brings image,
//! network and runtime together, none of which knows the others. Everything it must remember is in those records, in the
//! shims and in the kernel: an engine that is killed at any instruction and opened again adopts what lives and finishes
//! what was half done.
#![forbid(unsafe_code)]

pub mod config;
mod container;
mod error;
mod event;
mod exec;
mod id;
mod image;
pub mod inspect;
mod live;
mod network;
mod pod_files;
mod record;
mod recover;
mod sandbox;
mod shim;
mod signal;
mod spec;
mod status;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_rootfs::{RegistryConfig, Store};
use berth_sys::caps;
use tokio::sync::broadcast;

use crate::error::chain;
use crate::live::Sandboxes;
use crate::network::Networks;
use crate::record::Layout;

pub use berth_rootfs::{CredentialsError, Keyring};

pub use crate::config::{ContainerConfig, SandboxConfig};
pub use crate::error::Error;
pub use crate::event::Event;
pub use crate::status::{
    ContainerId, ContainerState, ContainerStatus, EngineInfo, ExecOutput, ImageStatus, SandboxId, SandboxState,
    SandboxStatus,
};

/// Where an engine keeps what it owns. Two engines share nothing if these differ and their network namespaces do.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// What must survive a reboot: images, snapshots, addresses. `/var/lib/berth`.
    pub state_dir: PathBuf,
    /// What must not: shims, sockets, pinned namespaces, records. `/run/berth`.
    pub run_dir: PathBuf,
    /// The shim's program.
    pub shim: PathBuf,
    /// Folders of foreign CNI plugins. `/opt/cni/bin`.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Folder of CNI configuration lists; the first by name is used, if there is one, in place of `pod_network`.
    /// `/etc/cni/net.d`.
    pub cni_conf_dir: PathBuf,
    /// Registries to be spoken to over plain HTTP, as `host:port`.
    pub insecure_registries: Vec<String>,
    /// Folder of `<host>/hosts.toml` files: by which mirrors registries are reached. `/etc/berth/certs.d`.
    pub registry_config_dir: Option<PathBuf>,
    /// The size in bytes at which a container's log is rotated.
    pub log_max_bytes: u64,
    /// How many files of a container's log are kept.
    pub log_max_files: u32,
}

/// The built-in pod network: a bridge, addresses from one range per family, masquerade to the outside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodNetwork {
    /// The bridge's name.
    pub bridge: String,
    /// The node's pod ranges.
    pub pod_cidrs: Vec<ipnetwork::IpNetwork>,
    /// The largest packet; the kernel's choice when absent.
    pub mtu: Option<u32>,
}

/// Whether an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry even if an image of that name is here.
    Always,
    /// Only if none of that name is here.
    IfNotPresent,
}

/// How many events a listener may fall behind.
const EVENTS_WAITING_MAX: usize = 4096;

/// The engine. Cheap to clone; every clone is the same engine.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What every clone shares. Its verbs are in the modules that they are about.
#[derive(Debug)]
struct Inner {
    config: EngineConfig,
    layout: Layout,
    store: Store,
    networks: Arc<Networks>,
    sandboxes: Sandboxes,
    events: broadcast::Sender<Event>,
    /// The capabilities that this process could give to anybody.
    bounding: u64,
}

impl Engine {
    /// Opens the engine: adopts living shims, ends what is half done, frees what nobody owns any more.
    pub async fn open(config: EngineConfig) -> Result<Self, Error> {
        let layout = Layout::make(&config.run_dir)?;
        let registries = RegistryConfig {
            insecure: config.insecure_registries.clone(),
            config_dir: config.registry_config_dir.clone(),
            ..RegistryConfig::default()
        };
        let store = Store::open(&config.state_dir.join("images"), registries)
            .map_err(|error| Error::Internal { message: chain(&error) })?;
        let inner = Arc::new(Inner {
            networks: Arc::new(Networks::new(&config)),
            layout,
            store,
            sandboxes: Sandboxes::default(),
            events: broadcast::channel(EVENTS_WAITING_MAX).0,
            bounding: caps::bounding()
                .map_err(|error| Error::Internal { message: format!("cannot read /proc/self/status: {error}") })?
                .0,
            config,
        });
        inner.recover().await?;
        inner.networks.keep();
        Ok(Self { inner })
    }

    /// Sets or replaces the built-in pod network and frees the addresses of pods that are no more. Sandboxes cannot be
    /// made before a network is known.
    pub async fn set_pod_network(&self, network: PodNetwork) -> Result<(), Error> {
        self.inner.networks.set_builtin(&network)?;
        self.inner.free_addresses().await;
        Ok(())
    }

    /// Takes the built-in pod network's bridge and rules off the host. For a node that ends for good.
    pub async fn remove_pod_network(&self) -> Result<(), Error> {
        self.inner.networks.remove_builtin().await
    }

    /// Whether pods can get a network: `Err` says what is missing.
    pub async fn network_ready(&self) -> Result<(), Error> {
        self.inner.networks.status().await
    }

    /// The stream of events. One that falls behind by more than its capacity is told so by
    /// [`broadcast::error::RecvError::Lagged`] and has to look at everything again.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Makes a sandbox: namespaces, cgroup, network. Undone on failure. If this future is dropped, the work goes on to
    /// its end; [`Self::sandboxes`] tells of it.
    pub async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, Error> {
        self.to_the_end(|inner| async move { inner.run_sandbox(config).await }).await
    }

    /// Kills what runs in a sandbox and releases its network. Success if it is stopped or gone already.
    pub async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        let id = id.clone();
        self.to_the_end(|inner| async move { inner.stop_sandbox(&id).await }).await
    }

    /// Stops a sandbox and forgets it, its containers and their snapshots. Success if it is gone already. Goes on at
    /// errors and returns the first.
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        let id = id.clone();
        self.to_the_end(|inner| async move { inner.remove_sandbox(&id).await }).await
    }

    /// One sandbox.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, Error> {
        Ok(self.inner.sandbox(id)?.status())
    }

    /// All sandboxes, oldest first.
    pub async fn sandboxes(&self) -> Vec<SandboxStatus> {
        let mut all: Vec<_> = self.inner.sandboxes.all().iter().map(|sandbox| sandbox.status()).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// Sets a container up in a sandbox; its image is present.
    pub async fn create_container(&self, sandbox: &SandboxId, config: ContainerConfig) -> Result<ContainerId, Error> {
        let sandbox = sandbox.clone();
        self.to_the_end(|inner| async move { inner.create_container(&sandbox, config).await }).await
    }

    /// Runs a created container's program.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        let id = id.clone();
        self.to_the_end(|inner| async move { inner.start_container(&id).await }).await
    }

    /// Sends a signal to a container's first process. Success if it has ended.
    pub async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        self.inner.signal_container(id, signal).await
    }

    /// The signal that the container's image wants to be stopped with (`STOPSIGNAL`), SIGTERM otherwise.
    pub async fn stop_signal(&self, id: &ContainerId) -> Result<i32, Error> {
        Ok(self.inner.container(id)?.1.stop_signal)
    }

    /// Kills a container if it runs and forgets it and its snapshot; its log stays. Success if it is gone already.
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        let id = id.clone();
        self.to_the_end(|inner| async move { inner.remove_container(&id).await }).await
    }

    /// Runs a command in a container and waits for it. Output beyond `output_bytes_max` of each stream is dropped. On
    /// `timeout`, or if this future is dropped, the command is killed; the former gives [`Error::ExecTimeout`].
    pub async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
        output_bytes_max: usize,
    ) -> Result<ExecOutput, Error> {
        self.inner.exec(id, command, timeout, output_bytes_max).await
    }

    /// Runs a command in a container on the caller's own descriptors and gives its exit code. If this future is dropped,
    /// the command is killed.
    pub async fn exec_with(&self, id: &ContainerId, command: &[String], stdio: [OwnedFd; 3]) -> Result<i32, Error> {
        self.inner.exec_with(id, command, stdio).await
    }

    /// Makes an image present. Concurrent pulls of one reference are one.
    pub async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        keyring: Option<Keyring>,
    ) -> Result<ImageStatus, Error> {
        self.inner.pull(reference, policy, keyring).await
    }

    /// An image by reference or id, if it is present.
    pub async fn image(&self, reference: &str) -> Result<Option<ImageStatus>, Error> {
        Ok(self.inner.image(reference)?.as_ref().map(image::status))
    }

    /// All images that are present.
    pub async fn images(&self) -> Result<Vec<ImageStatus>, Error> {
        self.inner.images()
    }

    /// The images and snapshots themselves, for those who import or remove images.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Runs a verb that must not stop half way because its asker lost interest.
    async fn to_the_end<T, F>(&self, verb: impl FnOnce(Arc<Inner>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let task = tokio::spawn(verb(Arc::clone(&self.inner)));
        task.await.unwrap_or_else(|error| Err(Error::Internal { message: error.to_string() }))
    }
}
