//! What can go wrong, with the numbers of the CNI specification (section "Error").

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use berth_sys::{namespace, netlink};
use ipnetwork::IpNetwork;

/// What can go wrong, with the specification's number in [`Error::code`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration of a version of the specification that is not spoken here.
    #[error("network configuration: cniVersion: {found:?} is not supported; use one of {}", crate::spec::VERSIONS.join(", "))]
    Version {
        /// What the configuration says.
        found: String,
    },
    /// A configuration that makes no sense.
    #[error("network configuration: {field}: {problem}")]
    Config {
        /// Which field, such as `plugins[0].ipam.ranges[0][0].subnet`.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// Text that is no JSON, or JSON that is not what it should be.
    #[error("cannot decode {what}")]
    Decode {
        /// Which text.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An attachment that makes no sense.
    #[error("{variable}: {problem}")]
    Attachment {
        /// The specification's name for it: `CNI_CONTAINERID`, `CNI_NETNS`, `CNI_IFNAME`.
        variable: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The container is not attached to this network.
    #[error("container {container_id} has no interface {ifname} in network {network}")]
    Unknown {
        /// The network.
        network: String,
        /// The container.
        container_id: String,
        /// The interface.
        ifname: String,
    },
    /// ADD for what has been added and not deleted.
    #[error("container {container_id} has interface {ifname} in network {network} already; DEL it first")]
    Attached {
        /// The network.
        network: String,
        /// The container.
        container_id: String,
        /// The interface.
        ifname: String,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Every address of a range is taken.
    #[error("network {network}: no address left in {range}; {taken} are taken")]
    NoAddress {
        /// The network.
        network: String,
        /// The ranges that were searched.
        range: String,
        /// How many of their addresses are taken.
        taken: usize,
    },
    /// An address that the attachment wants cannot be its own.
    #[error("network {network}: address {address} is wanted, but {why}")]
    AddressRefused {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// Why not.
        why: String,
    },
    /// Somebody else holds a lock for too long.
    #[error("the lock {path} is held by another process for more than {} s", crate::limits::LOCK_WAIT_MAX.as_secs())]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// The port of the host belongs to another container.
    #[error("host port {port} is forwarded to another container already")]
    HostPort {
        /// Which, such as `tcp 10.0.0.1:80`.
        port: String,
    },
    /// There is no way to the pods of another node.
    #[error("node {name}: no way to its pods {range}: {problem}")]
    Peer {
        /// The node.
        name: String,
        /// Their addresses.
        range: IpNetwork,
        /// Why.
        problem: String,
    },
    /// What is changed here is changed by somebody else at the same time, again and again.
    #[error("{what} are changed by somebody else all the time")]
    Unsteady {
        /// What.
        what: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] netlink::Error),
    /// The namespace could not be used.
    #[error("CNI_NETNS: the network namespace cannot be used")]
    Namespace(#[from] namespace::Error),
    /// CHECK found something else than ADD made.
    #[error("container {container_id}: {what}")]
    Mismatch {
        /// The container.
        container_id: String,
        /// What is not as it should be.
        what: String,
    },
    /// The network cannot take new containers.
    #[error("network {network} cannot take containers: {why}")]
    Unavailable {
        /// The network.
        network: String,
        /// What is missing.
        why: String,
    },
    /// Containers are attached still.
    #[error("network {network} cannot be removed: {attachments} containers are attached")]
    Busy {
        /// The network.
        network: String,
        /// How many.
        attachments: usize,
    },
    /// There is neither a built-in plugin nor an executable of this type.
    #[error("network configuration: plugins: no plugin of type {kind:?} is built in, nor found in {searched}")]
    PluginMissing {
        /// The type.
        kind: String,
        /// The folders that were searched.
        searched: String,
    },
    /// A foreign plugin failed.
    #[error("plugin {kind}: {message}{}", crate::foreign::tail(details, stderr))]
    Plugin {
        /// Its type.
        kind: String,
        /// Its number for what went wrong.
        code: u32,
        /// Its sentence.
        message: String,
        /// More from it.
        details: String,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
}

impl Error {
    /// The specification's number: below 100 those that it defines, from 100 on our own.
    pub fn code(&self) -> u32 {
        match self {
            Self::Version { .. } => 1,
            Self::Unknown { .. } => 3,
            Self::Attachment { .. } | Self::Namespace(_) => 4,
            Self::Io { .. } => 5,
            Self::Decode { .. } => 6,
            Self::Config { .. } | Self::PluginMissing { .. } => 7,
            Self::NoAddress { .. } | Self::AddressRefused { .. } | Self::Locked { .. } => 11,
            Self::Unavailable { .. } => 50,
            Self::Kernel(_) => 100,
            Self::Attached { .. } => 101,
            Self::HostPort { .. } => 102,
            Self::Mismatch { .. } => 103,
            Self::Busy { .. } => 104,
            Self::Peer { .. } => 105,
            Self::Unsteady { .. } => 106,
            Self::Plugin { code, .. } => *code,
        }
    }

    /// For `map_err`: what was tried on which path.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
