//! What the engine tells about sandboxes, containers and images.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{ContainerConfig, SandboxConfig};

/// A sandbox's id: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SandboxId(pub(crate) String);

/// A container's id: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub(crate) String);

impl SandboxId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A sandbox and what runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// Its id.
    pub id: SandboxId,
    /// As it was asked for.
    pub config: SandboxConfig,
    /// Whether its shim lives and its network is set up.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// The pod's own addresses; empty with a host network.
    pub ips: Vec<IpAddr>,
    /// Its containers, oldest first, ended ones among them.
    pub containers: Vec<ContainerStatus>,
}

/// The state of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SandboxState {
    /// Containers can be created in it.
    Ready,
    /// Stopped, half made, or its shim is gone: to be removed.
    NotReady,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// As it was asked for.
    pub config: ContainerConfig,
    /// The image's id (digest of its configuration).
    pub image_id: String,
    /// The image by digest, `repository@sha256:…`, where it was pulled.
    pub image_ref: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: ContainerState,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ContainerState {
    /// Set up, not started.
    Created,
    /// Its program runs.
    #[serde(rename_all = "camelCase")]
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Its program ended.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// When it was started, if it ever was.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// 0 to 255; 128 + n when signal n ended it.
        exit_code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Whether the kernel's OOM killer took it.
        oom_killed: bool,
    },
    /// Its shim died and left no record of its end.
    Unknown,
}

/// An image that is present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// The digest of its configuration, `sha256:…`.
    pub id: String,
    /// `repository:tag` names.
    pub tags: Vec<String>,
    /// `repository@sha256:…` names.
    pub digests: Vec<String>,
    /// Compressed size in bytes.
    pub size_bytes: u64,
    /// The user that the image wants to be: a uid or a name.
    pub user: Option<String>,
}

/// What one run of a command gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// 0 to 255; 128 + n when signal n ended it.
    pub exit_code: i32,
    /// What it wrote, cut at the limit that was asked for.
    pub stdout: Vec<u8>,
    /// What it wrote, cut at the limit that was asked for.
    pub stderr: Vec<u8>,
}

/// What the engine is made of and where things are: told to people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineInfo {
    /// The engine's version.
    pub version: String,
    /// Free-form facts by name.
    pub facts: BTreeMap<String, String>,
    /// The folder of the images.
    pub image_dir: PathBuf,
}
