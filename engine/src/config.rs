//! What a client asks of the engine: sandboxes and containers as data. The words are those of CRI v1
//! (`k8s.io/cri-api/pkg/apis/runtime/v1`), without what only a gRPC face needs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A sandbox: what the containers of one pod share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxConfig {
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's uid: with `attempt`, what makes a sandbox unique.
    pub uid: String,
    /// 0 for the first sandbox of the pod, one more for each that replaces a lost one.
    pub attempt: u32,
    /// The host name; empty with a host network.
    pub hostname: String,
    /// What `/etc/resolv.conf` says in the containers.
    pub dns: DnsConfig,
    /// Lines for `/etc/hosts` beyond the pod's own.
    pub host_aliases: Vec<HostAlias>,
    /// Which network the pod is in.
    pub network: NetworkMode,
    /// Ports of the host that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// Whether the pod uses the host's IPC namespace.
    pub host_ipc: bool,
    /// Which process namespace the containers see.
    pub pid: PidMode,
    /// The pod's cgroup below each hierarchy's root, such as `/kubepods/burstable/pod<uid>`; its maker and owner of its
    /// limits is the client.
    pub cgroup: String,
    /// Namespaced sysctls by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Kept and given back, never read.
    pub labels: BTreeMap<String, String>,
    /// Kept and given back, never read.
    pub annotations: BTreeMap<String, String>,
}

/// The network of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkMode {
    /// A namespace of its own, set up by CNI.
    #[default]
    Pod,
    /// The host's.
    Host,
}

/// The process namespace of a sandbox's containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PidMode {
    /// Each container has its own.
    #[default]
    Container,
    /// All share one.
    Pod,
    /// The host's.
    Host,
}

/// The content of `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// A port of the host that leads into the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The port in the pod.
    pub container_port: u16,
    /// The port on the host.
    pub host_port: u16,
    /// The host's address; all of them when absent.
    pub host_ip: Option<IpAddr>,
}

/// A container to be created in a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerConfig {
    /// The container's name in its pod.
    pub name: String,
    /// How often a container of this name was created before in this pod.
    pub attempt: u32,
    /// An image that is present, by id or reference.
    pub image: String,
    /// Overrides the image's entrypoint; the image's command is then not used.
    pub command: Vec<String>,
    /// Overrides the image's command.
    pub args: Vec<String>,
    /// Overrides the image's working directory.
    pub working_dir: Option<String>,
    /// Added to the image's environment, later ones winning.
    pub env: Vec<(String, String)>,
    /// Folders and files of the host to show in the container, in this order.
    pub mounts: Vec<Mount>,
    /// Where the log goes; its folder is there.
    pub log_path: PathBuf,
    /// Limits.
    pub resources: Resources,
    /// Who the process is and what it may do.
    pub security: Security,
    /// Kept and given back, never read.
    pub labels: BTreeMap<String, String>,
    /// Kept and given back, never read.
    pub annotations: BTreeMap<String, String>,
}

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where it comes from; it is there.
    pub host_path: PathBuf,
    /// Where it shows.
    pub container_path: PathBuf,
    /// Whether the container may write.
    pub read_only: bool,
    /// How later mounts travel.
    pub propagation: Propagation,
}

/// Kubernetes' `mountPropagation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    /// `rprivate`.
    #[default]
    None,
    /// `rslave`.
    HostToContainer,
    /// `rshared`.
    Bidirectional,
}

/// Limits of one container, in the kernel's units; what is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Relative weight in cgroup v1's terms, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each period.
    pub cpu_quota_us: Option<i64>,
    /// The period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<i64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// Who a container's process is and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Security {
    /// All capabilities, all devices, nothing masked, no seccomp.
    pub privileged: bool,
    /// Overrides the image's user.
    pub run_as_user: Option<u32>,
    /// Overrides the user's primary group.
    pub run_as_group: Option<u32>,
    /// Refuse to run as uid 0, and as a user whose name is no number.
    pub run_as_non_root: bool,
    /// Groups beyond the image's.
    pub supplemental_groups: Vec<u32>,
    /// `CAP_`-less names, or `ALL`.
    pub add_capabilities: Vec<String>,
    /// `CAP_`-less names, or `ALL`.
    pub drop_capabilities: Vec<String>,
    /// Whether the root filesystem is read-only.
    pub read_only_rootfs: bool,
    /// Whether set-user-ID programs gain nothing (`allowPrivilegeEscalation: false`).
    pub no_new_privs: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
}

/// The system call filter of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// The engine's own profile, which refuses what containers do not need.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A profile of the host, in the OCI runtime spec's JSON.
    Localhost(PathBuf),
}
