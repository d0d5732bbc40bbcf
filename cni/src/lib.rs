//! Pod networks after the CNI specification 1.1, with built-in plugins that run in this process.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables, dead_code, reason = "the outline of the crate")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// A network: a parsed configuration list and the folder where its results are kept.
#[derive(Debug, Clone)]
pub struct Network;

/// One interface of one container in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The container's (for Kubernetes: the sandbox's) id.
    pub container_id: String,
    /// The path of its network namespace.
    pub netns: PathBuf,
    /// The name of the interface inside, such as `eth0`.
    pub ifname: String,
    /// `CNI_ARGS`: `K8S_POD_NAME` and so on.
    pub args: Vec<(String, String)>,
    /// `runtimeConfig` by capability, such as `portMappings`.
    pub runtime_config: serde_json::Map<String, serde_json::Value>,
}

/// What ADD gave (CNI spec, "Success", with the fields that the engine reads; all others are kept).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddResult {
    /// Addresses of the attachment.
    pub ips: Vec<IpConfig>,
}

/// An address of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Address and prefix length.
    pub address: IpNetwork,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// Index into the result's interfaces.
    pub interface: Option<u32>,
}

/// What can go wrong, with the specification's number in [`Error::code`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that makes no sense.
    #[error("network configuration: {message}")]
    Config {
        /// Which field and what is wrong with it.
        message: String,
    },
}

/// Where networks keep things and find things.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Cached results and addresses; survives a reboot. `/var/lib/berth/cni`.
    pub state: PathBuf,
    /// Folders of foreign plugins, in order.
    pub bin: Vec<PathBuf>,
}

impl Network {
    /// Parses a configuration list.
    pub fn parse(list: &[u8], dirs: Dirs) -> Result<Self, Error> {
        todo!()
    }

    /// The first configuration list in a folder, by name.
    pub fn first_in(dir: &Path, dirs: Dirs) -> Result<Option<Self>, Error> {
        todo!()
    }

    /// The list of the built-in network: bridge with host-local addresses and masquerade, portmap, loopback.
    pub fn builtin(
        name: &str,
        bridge: &str,
        ranges: &[IpNetwork],
        mtu: Option<u32>,
        dirs: Dirs,
    ) -> Result<Self, Error> {
        todo!()
    }

    /// ADD. Undone if a later plugin fails.
    pub fn add(&self, attachment: &Attachment) -> Result<AddResult, Error> {
        todo!()
    }

    /// DEL. Success if there is nothing, also if the namespace is gone.
    pub fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        todo!()
    }

    /// CHECK.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        todo!()
    }

    /// GC: releases what belongs to attachments other than these (container id, interface).
    pub fn gc(&self, valid: &[(String, String)]) -> Result<(), Error> {
        todo!()
    }

    /// STATUS.
    pub fn status(&self) -> Result<(), Error> {
        todo!()
    }

    /// Removes what the built-in network keeps on the host while no attachment is left: the bridge and the nft table.
    pub fn remove(&self) -> Result<(), Error> {
        todo!()
    }
}
