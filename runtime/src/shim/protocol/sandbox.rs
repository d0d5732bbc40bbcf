//! What is written down about a sandbox: what it shall be, and who answers for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxIdMapping;
use serde::{Deserialize, Serialize};

/// What a shim has to make before it listens. Written to `sandbox.json` by the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// The sandbox's id: `[a-zA-Z0-9_.-]{1,128}`, also the name of its directory.
    pub id: String,
    /// The host name inside a new uts namespace.
    pub hostname: String,
    /// Which namespaces the containers of this sandbox share.
    pub namespaces: SandboxNamespaces,
    /// The users of a new user namespace (user_namespaces(7)), at least one entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Its groups, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// The pod's cgroup, absolute below each hierarchy's root, such as `/kubepods/burstable/pod<uid>`. The shim makes it
    /// with the sandbox, and removes it with the sandbox if it was not there before. It puts itself into no pod cgroup;
    /// the containers go below it.
    pub cgroup: String,
    /// Sysctls to set in the sandbox's own namespaces, by dotted name.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The OCI runtime that makes the containers; absent, it is berth's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<Handler>,
}

/// Another OCI runtime, driven by its command line: runc, crun and whatever takes the same words.
///
/// It is run with `--root`, `--log` and `--log-format json` before each of the verbs `create`, `start`, `kill [--all]`,
/// `delete --force`, `exec --detach`, `pause`, `resume` and `update --resources`; `kill` and `exec` beside any but `create`
/// and `delete`, the others one at a time for one container. What a container uses, its processes, its end and the OOM
/// killer's visits are seen by the shim itself, which adopts what the runtime makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// Its folder of containers (`--root`); absent, it is one in the sandbox's directory, which goes with the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// More arguments that precede every verb, such as `--systemd-cgroup`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// How many seconds one verb may take before it is killed; absent: [`HANDLER_SECS_MAX_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secs_max: Option<u32>,
}

/// How long one verb of another runtime may take where [`Handler`] does not say it.
pub const HANDLER_SECS_MAX_DEFAULT: u32 = 60;

impl Handler {
    /// The folder below a sandbox's directory with one folder for each container that a handler has made there.
    pub fn folder(dir: &Path) -> PathBuf {
        dir.join("handler/containers")
    }

    /// Its folder of containers, for the sandbox in `dir`.
    pub fn root(&self, dir: &Path) -> PathBuf {
        self.root.clone().unwrap_or_else(|| dir.join("handler/root"))
    }

    /// How long one verb may take.
    pub fn time_max(&self) -> Duration {
        Duration::from_secs(self.secs_max.unwrap_or(HANDLER_SECS_MAX_DEFAULT).into())
    }

    /// The arguments that precede every verb, for the sandbox in `dir`.
    pub fn arguments(&self, dir: &Path) -> Vec<OsString> {
        let own = self.args.iter().map(OsString::from);
        own.chain(["--root".into(), self.root(dir).into()]).collect()
    }
}

/// How the sandbox comes by each of its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxNamespaces {
    /// The user namespace. A new one is made first: it owns the others that are made, which its root may then change. The
    /// containers join it by its path, as they do the others. With a shared pid namespace it has to map user and group
    /// 65535, which the init of that runs as.
    #[serde(default = "host")]
    pub user: NamespaceMode,
    /// The network namespace.
    pub net: NamespaceMode,
    /// The System V IPC and POSIX message queue namespace.
    pub ipc: NamespaceMode,
    /// The host name's namespace.
    pub uts: NamespaceMode,
    /// The process namespace; `New` is one namespace that all containers share (`shareProcessNamespace`), `Container`
    /// gives each its own.
    pub pid: NamespaceMode,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceMode {
    /// The shim makes it and pins it below `ns/`.
    New,
    /// The one that the shim was started in.
    Host,
    /// Each container makes its own.
    Container,
}

fn host() -> NamespaceMode {
    NamespaceMode::Host
}

/// Who answers at `shim.sock`. Written to `shim.json` when the shim is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimRecord {
    /// [`super::VERSION`] of the shim.
    pub protocol: u32,
    /// [`super::REVISION`] of the shim.
    #[serde(default)]
    pub revision: u32,
    /// The shim's process id in the initial pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, so that a reused pid is not taken for the shim.
    pub start_time: u64,
}
