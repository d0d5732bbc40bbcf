//! Sandboxes, containers and images: what a container runtime is to Kubernetes (the verbs of CRI v1), without
//! Kubernetes' objects and with one stream of events in place of polling.
//!
//! It owns the records below `<run>/sandboxes` and `<run>/containers`, starts one shim per sandbox, and brings image,
//! network and runtime together, none of which knows the others. Everything it must remember is in those records, in the
//! shims and in the kernel: an engine that is killed at any instruction and opened again adopts what lives and finishes
//! what was half done.
#![forbid(unsafe_code)]

pub mod config;
mod error;
mod event;
mod status;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

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
    /// The size in bytes at which a container's log is rotated.
    pub log_max_bytes: u64,
    /// How many files of a container's log are kept.
    pub log_max_files: u32,
}

/// The built-in pod network: a bridge, addresses from one range per family, masquerade to the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// The bridge's name.
    pub bridge: String,
    /// The node's pod ranges.
    pub pod_cidrs: Vec<ipnetwork::IpNetwork>,
    /// The largest packet; the kernel's choice when absent.
    pub mtu: Option<u32>,
}

/// Credentials for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Whether an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry even if an image of that name is here.
    Always,
    /// Only if none of that name is here.
    IfNotPresent,
}

/// The engine. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    #[allow(dead_code, reason = "filled in with the engine")]
    inner: Arc<()>,
}

#[allow(clippy::todo, clippy::unused_async, unused_variables, missing_docs, reason = "the outline of the engine")]
impl Engine {
    /// Opens the engine: adopts living shims, ends what is half done, frees what nobody owns any more.
    pub async fn open(config: EngineConfig) -> Result<Self, Error> {
        todo!()
    }

    /// Sets or replaces the built-in pod network. Sandboxes cannot be made before a network is known.
    pub fn set_pod_network(&self, network: PodNetwork) {
        todo!()
    }

    /// Whether pods can get a network: `Err` says what is missing.
    pub async fn network_ready(&self) -> Result<(), Error> {
        todo!()
    }

    /// The stream of events. One that falls behind by more than its capacity is told so by
    /// [`broadcast::error::RecvError::Lagged`] and has to look at everything again.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        todo!()
    }

    /// Makes a sandbox: namespaces, cgroup, network. Undone on failure, also if this future is dropped.
    pub async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, Error> {
        todo!()
    }

    /// Kills what runs in a sandbox and releases its network. Success if it is stopped or gone already.
    pub async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        todo!()
    }

    /// Stops a sandbox and forgets it, its containers and their snapshots. Success if it is gone already. Goes on at
    /// errors and returns the first.
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        todo!()
    }

    /// One sandbox.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, Error> {
        todo!()
    }

    /// All sandboxes, oldest first.
    pub async fn sandboxes(&self) -> Vec<SandboxStatus> {
        todo!()
    }

    /// Sets a container up in a sandbox; its image is present.
    pub async fn create_container(&self, sandbox: &SandboxId, config: ContainerConfig) -> Result<ContainerId, Error> {
        todo!()
    }

    /// Runs a created container's program.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        todo!()
    }

    /// Sends a signal to a container's first process. Success if it has ended.
    pub async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        todo!()
    }

    /// The signal that the container's image wants to be stopped with (`STOPSIGNAL`), SIGTERM otherwise.
    pub async fn stop_signal(&self, id: &ContainerId) -> Result<i32, Error> {
        todo!()
    }

    /// Kills a container if it runs and forgets it and its snapshot; its log stays. Success if it is gone already.
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        todo!()
    }

    /// Runs a command in a container and waits for it. Output beyond `output_bytes_max` of each stream is dropped. On
    /// `timeout` the command is killed and [`Error::ExecTimeout`] returned.
    pub async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
        output_bytes_max: usize,
    ) -> Result<ExecOutput, Error> {
        todo!()
    }

    /// Runs a command in a container on the caller's own descriptors and gives its exit code.
    pub async fn exec_with(&self, id: &ContainerId, command: &[String], stdio: [OwnedFd; 3]) -> Result<i32, Error> {
        todo!()
    }

    /// Makes an image present. Concurrent pulls of one reference are one.
    pub async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        auth: Option<RegistryAuth>,
    ) -> Result<ImageStatus, Error> {
        todo!()
    }

    /// An image by reference or id, if it is present.
    pub async fn image(&self, reference: &str) -> Result<Option<ImageStatus>, Error> {
        todo!()
    }

    /// All images that are present.
    pub async fn images(&self) -> Result<Vec<ImageStatus>, Error> {
        todo!()
    }

    /// The address of a sandbox's pod, if it has one of its own.
    pub async fn pod_ips(&self, id: &SandboxId) -> Result<Vec<IpAddr>, Error> {
        todo!()
    }
}
