//! What the agent was told to be: the command line's words and a KubeletConfiguration file, parsed once into one value
//! that needs no checks any more.

mod file;
mod load;
mod reserved;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

pub use self::reserved::{Reserved, Threshold, Thresholds};

/// What the command line gives. What is `None` or empty is left to the file, then to the default.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A KubeletConfiguration (v1beta1) file.
    pub config_file: Option<PathBuf>,
    /// How to reach the master; without it the agent runs the pods of `static_pod_path` alone.
    pub kubeconfig: Option<PathBuf>,
    /// The node's name; the host's name otherwise.
    pub node_name: Option<String>,
    /// The node's addresses; the one that leads to the default route otherwise.
    pub node_ips: Vec<IpAddr>,
    /// What survives a reboot.
    pub state_dir: PathBuf,
    /// What does not.
    pub run_dir: PathBuf,
    /// The containers' logs; `/var/log/pods` on a machine that is one node.
    pub pod_log_dir: PathBuf,
    /// Links to the logs by container, for log collectors: `/var/log/containers`. None are made when absent.
    pub container_log_dir: Option<PathBuf>,
    /// A folder of pod manifests.
    pub static_pod_path: Option<PathBuf>,
    /// Labels that the Node gets.
    pub node_labels: BTreeMap<String, String>,
    /// The cgroup below which `kubepods` is made, `/` at the start.
    pub cgroup_root: Option<String>,
    /// The bridge of the built-in pod network.
    pub bridge: Option<String>,
    /// Pod ranges; the master's otherwise, and without a master `10.244.0.0/24`.
    pub pod_cidrs: Vec<ipnetwork::IpNetwork>,
    /// The port of the agent's own server.
    pub port: Option<u16>,
    /// Whose client certificates the server believes.
    pub client_ca_file: Option<PathBuf>,
    /// The server's certificate and key; the file's otherwise, and one made here if it has none.
    pub server_certificate: Option<CertificateFiles>,
}

/// The agent's configuration, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// The node's addresses; found out when empty.
    pub node_ips: Vec<IpAddr>,
    /// How to reach the master; `None` runs alone.
    pub kubeconfig: Option<PathBuf>,
    /// What survives a reboot: pods' volumes in `pods/<uid>`, the server's certificate in `pki`.
    pub state_dir: PathBuf,
    /// What does not survive it.
    pub run_dir: PathBuf,
    /// `<pod_log_dir>/<namespace>_<name>_<uid>/<container>/<n>.log`.
    pub pod_log_dir: PathBuf,
    /// Links to the logs by container; none are made when absent.
    pub container_log_dir: Option<PathBuf>,
    /// A folder of pod manifests.
    pub static_pod_path: Option<PathBuf>,
    /// Labels that the Node gets.
    pub node_labels: BTreeMap<String, String>,
    /// The cgroup below which `kubepods` is made, `/` at the start, no `/` at the end but for the root itself.
    pub cgroup_root: String,
    /// The bridge of the built-in pod network.
    pub bridge: String,
    /// Pod ranges, if they do not come from the master.
    pub pod_cidrs: Vec<ipnetwork::IpNetwork>,
    /// Name servers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain, `cluster.local`.
    pub cluster_domain: String,
    /// The host's resolver configuration, for `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    /// How many pods this node runs at most.
    pub max_pods: u32,
    /// How many processes a pod may have; no limit when absent.
    pub pod_pids_limit: Option<u64>,
    /// Whether CPU limits are enforced by quota.
    pub cpu_cfs_quota: bool,
    /// Whether pods that say nothing about seccomp get the runtime's profile.
    pub seccomp_default: bool,
    /// The longest wait before a failing container is started again.
    pub restart_backoff_max: Duration,
    /// The size in bytes at which a container's log is rotated.
    pub log_max_bytes: u64,
    /// How many files of a container's log are kept.
    pub log_max_files: u32,
    /// Whether the agent makes its own Node.
    pub register_node: bool,
    /// Taints that a Node has when it is made.
    pub register_taints: Vec<Taint>,
    /// The machine's name at its provider.
    pub provider_id: Option<String>,
    /// What is kept from pods.
    pub reserved: Reserved,
    /// When the node counts as under pressure.
    pub thresholds: Thresholds,
    /// How often an unchanged status is written.
    pub status_report_interval: Duration,
    /// How long the node counts as alive after a heartbeat.
    pub lease_duration: Duration,
    /// Events per second on average; 0 sends none.
    pub event_rate: u32,
    /// Events at once.
    pub event_burst: u32,
    /// Where the agent's own server listens; absent: it does not.
    pub server_address: Option<SocketAddr>,
    /// The server's certificate and key; made and kept below `state_dir` when absent.
    pub server_certificate: Option<CertificateFiles>,
    /// Whose client certificates the server believes. Without it only `/healthz` answers.
    pub client_ca_file: Option<PathBuf>,
}

/// A certificate chain and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no YAML.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A field of the file makes no sense.
    #[error("{path}: field {field}: {message}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, dotted.
        field: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// Something given on the command line makes no sense.
    #[error("{option}: {message}")]
    Option {
        /// What was given.
        option: &'static str,
        /// What is wrong with it, and what would be right.
        message: String,
    },
}
