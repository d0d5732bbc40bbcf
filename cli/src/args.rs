//! What was typed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Where mirrors of registries are configured.
const REGISTRY_CONFIG_DIR: &str = "/etc/berth/certs.d";

/// A bare Linux machine as a Kubernetes node.
#[derive(Debug, Parser)]
#[command(name = "berth", version, propagate_version = true)]
pub(crate) struct Args {
    /// Tell more; twice, everything. RUST_LOG overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a master and a node on this machine: a whole cluster
    Up(UpOptions),
    /// End the cluster or node on this machine, with its pods
    Down(DownOptions),
    /// Run a node of a cluster whose master is elsewhere, or of none
    Node(NodeOptions),
    /// Run a master alone
    Master(MasterOptions),
    /// Make the credentials with which a node joins this machine's master
    IssueNode(IssueNodeOptions),
    /// Show the pods and containers of this node
    Ps(PsOptions),
    /// Show what a container wrote
    Logs(LogsOptions),
    /// Run a command in a container
    Exec(ExecOptions),
    /// Work with images
    Image(ImageOptions),
    /// Be a CNI plugin, of the type that the configuration on the standard input says; or, called by such a name, of that
    Cni,
    /// Be an OCI runtime with runc's command line, for podman, containerd and others
    Runtime {
        /// A verb of runc's and what belongs to it; `help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// Where a node keeps things. Two nodes share a machine if these differ and their network namespaces do.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Folders {
    /// What survives a reboot: images, volumes, addresses, the master's database
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth", global = true)]
    pub(crate) state_dir: PathBuf,
    /// What does not: shims, sockets, pinned namespaces
    #[arg(long, value_name = "DIR", default_value = "/run/berth", global = true)]
    pub(crate) run_dir: PathBuf,
}

/// What a node can be told, in kubelet's words.
#[derive(Debug, Clone, ClapArgs, Serialize, Deserialize)]
pub(crate) struct NodeFlags {
    /// A KubeletConfiguration (kubelet.config.k8s.io/v1beta1) file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The node's name, if not the host's
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,
    /// The node's address; the one that leads to the default route otherwise
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Labels for the Node, as key=value
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub(crate) node_labels: Vec<(String, String)>,
    /// A folder of pod manifests to run
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
    /// The containers' logs
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub(crate) pod_logs_dir: PathBuf,
    /// Links to the logs by container, for log collectors
    #[arg(long, value_name = "DIR", default_value = "/var/log/containers")]
    pub(crate) container_logs_dir: PathBuf,
    /// The cgroup below which the pods' are made
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_root: Option<String>,
    /// The port of the node's own API
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The bridge of the built-in pod network
    #[arg(long, value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// A registry to be spoken to over plain HTTP
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) insecure_registry: Vec<String>,
    /// Folder of HOST/hosts.toml files: mirrors and certificates of registries, in containerd's format
    #[arg(long, value_name = "DIR", default_value = REGISTRY_CONFIG_DIR)]
    #[serde(default)]
    pub(crate) registry_config_dir: PathBuf,
    /// Folders of CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin", value_delimiter = ',')]
    pub(crate) cni_bin_dir: Vec<PathBuf>,
    /// Folder of CNI configuration lists; if it has one, it replaces the built-in network
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// The shim's program; berth-shim beside this one otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,
}

/// What a master can be told.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct MasterFlags {
    /// Where the Kubernetes API is served
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:6443")]
    pub(crate) listen: SocketAddr,
    /// Addresses and names by which clients reach it, for its certificate
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) tls_san: Vec<String>,
    /// The network that the nodes' pod ranges are cut from
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub(crate) cluster_cidr: IpNetwork,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) master: MasterFlags,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Go to the background once the node is Ready
    #[arg(long)]
    pub(crate) detach: bool,
    /// Close stdout once the node is Ready: what --detach starts
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NodeOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// How to reach the master; without it the node runs the pods of --pod-manifest-path alone
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A folder that `berth issue-node` filled: kubeconfig and certificates
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub(crate) credentials: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MasterOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) master: MasterFlags,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IssueNodeOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// The node's name
    pub(crate) name: String,
    /// The node's addresses
    #[arg(long, value_name = "IP", value_delimiter = ',', required = true)]
    pub(crate) node_ip: Vec<IpAddr>,
    /// The folder to fill
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Where the node reaches the master
    #[arg(long, value_name = "URL")]
    pub(crate) server: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DownOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Also forget everything that survives a reboot: images, volumes, the master's database, the pods' logs
    #[arg(long)]
    pub(crate) purge: bool,
}

/// How a list is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For scripts
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PsOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Show ended containers too
    #[arg(short, long)]
    pub(crate) all: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Which container: `[NAMESPACE/]POD`, with `-c` where it has several, or the beginning of a container's id.
#[derive(Debug, ClapArgs)]
pub(crate) struct Which {
    /// [NAMESPACE/]POD, or the beginning of a container's id
    pub(crate) target: String,
    /// The container, if the pod has several
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogsOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Go on as the container writes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u64>,
    /// Show when each line was written
    #[arg(long)]
    pub(crate) timestamps: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExecOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) which: Which,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImageOptions {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(subcommand)]
    pub(crate) verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// List the images that are here
    Ls {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Fetch an image from its registry
    Pull {
        /// The image, such as docker.io/library/nginx:1.29
        image: String,
        #[command(flatten)]
        registry: RegistryOptions,
        /// Never let it go when the disk is full
        #[arg(long)]
        pin: bool,
        /// Make the device files that layers hold; they are left out otherwise
        #[arg(long)]
        devices: bool,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make an image of a root filesystem (folder or tar), an OCI layout or a docker archive
    Import(ImportOptions),
    /// Write images to one tar: an OCI layout, which `docker load` takes too
    Export {
        /// The archive; - for standard output
        file: PathBuf,
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Tell everything about images, as JSON
    Inspect {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove images
    Rm {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove images that no container uses and that have no tag
    Prune {
        /// Those with a tag too; pinned ones stay
        #[arg(short, long)]
        all: bool,
        /// With --all: only those not used for so long, such as 24h
        #[arg(long, value_name = "TIME", requires = "all")]
        unused_for: Option<jiff::SignedDuration>,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show an image's root at a folder
    Mount(MountImageOptions),
    /// Take an image's root off a folder, and forget what was written
    Unmount {
        /// The folder
        target: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MountImageOptions {
    /// Name or id
    pub(crate) image: String,
    /// An empty folder
    pub(crate) target: PathBuf,
    /// Let it be written to; what is written is forgotten with the mount
    #[arg(long)]
    pub(crate) writable: bool,
    /// User ids in the image as those of a user namespace, INSIDE:OUTSIDE:COUNT; repeated
    #[arg(long, value_name = "IDS", value_parser = id_map, requires = "gidmap")]
    pub(crate) uidmap: Vec<berth_rootfs::IdMap>,
    /// Group ids, likewise
    #[arg(long, value_name = "IDS", value_parser = id_map, requires = "uidmap")]
    pub(crate) gidmap: Vec<berth_rootfs::IdMap>,
}

/// How one registry is reached.
#[derive(Debug, ClapArgs)]
pub(crate) struct RegistryOptions {
    /// USER:PASSWORD for the registry
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "authfile")]
    pub(crate) creds: Option<String>,
    /// Credentials in the format of docker's config.json; without, $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json or
    /// ~/.docker/config.json
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// A registry to be spoken to over plain HTTP
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) insecure_registry: Vec<String>,
    /// Folder of HOST/hosts.toml files: mirrors and certificates of registries, in containerd's format
    #[arg(long, value_name = "DIR", default_value = REGISTRY_CONFIG_DIR)]
    pub(crate) registry_config_dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImportOptions {
    /// The folder or archive; - for standard input
    pub(crate) source: PathBuf,
    /// The image's name; an archive may bring its own, and of several images this is the one that comes
    pub(crate) name: Option<String>,
    /// The program, for a plain root filesystem; repeated for its first arguments
    #[arg(long, value_name = "WORD")]
    pub(crate) entrypoint: Vec<String>,
    /// Default arguments, for a plain root filesystem
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) cmd: Vec<String>,
    /// Environment, for a plain root filesystem
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The user, for a plain root filesystem
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Make the device files that layers hold; they are left out otherwise
    #[arg(long)]
    pub(crate) devices: bool,
    /// The working directory, for a plain root filesystem
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl NodeFlags {
    /// The labels; the last of one key counts.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.node_labels.iter().cloned().collect()
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn id_map(text: &str) -> Result<berth_rootfs::IdMap, String> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([inside, outside, count]) => Ok(berth_rootfs::IdMap { inside: *inside, outside: *outside, count: *count }),
        _ => Err("expected INSIDE:OUTSIDE:COUNT, such as 0:100000:65536".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
