//! Pod networks after the [CNI specification](https://www.cni.dev/docs/spec/) 1.1, with built-in plugins that run in this
//! process, and a host for foreign ones.
//!
//! | room | what it owns |
//! |---|---|
//! | `list` | configuration lists |
//! | `chain` | the verbs over a list; taking back what failed |
//! | `repair` | what somebody took away, made anew |
//! | `builtin` | bridge, host-local, static, portmap, bandwidth, firewall, loopback |
//! | `foreign` | plugins that are programs |
//! | [`nodes`] | ways to the pods of other nodes |
//! | [`plugin`] | the built-in ones as such programs, for others |
//! | `cache`, `host` | what must be remembered: results; what was changed on the host |
//!
//! Everything happens in the network namespace that the calling thread is in, by netlink: no program is run but foreign
//! plugins. All state is on disk, so a process can be killed at any point: DEL and GC finish the work.
//!
//! ```text
//! <state>/results/<network>/<container>:<interface>.json    attachments, complete ones only
//! <state>/networks/<network>/<address>                      addresses and their owners
//! <state>/host/<network>.json                               what to set back when the network is removed
//! ```
#![forbid(unsafe_code)]

mod attachment;
mod builtin;
mod cache;
mod call;
mod chain;
mod error;
mod foreign;
mod host;
mod limits;
mod list;
mod lock;
pub mod nodes;
pub mod plugin;
mod repair;
mod site;
mod spec;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_sys::netlink::watch::Watch;
use ipnetwork::IpNetwork;

pub use attachment::Attachment;
use builtin::Plugin;
use builtin::bridge::Interfaces;
use chain::Chain;
pub use error::Error;
use list::List;
use site::NftSockets;
pub use spec::result::{AddResult, Interface, IpConfig, Route};

/// A network: a parsed configuration list and the folder where its results are kept. Cheap to clone; every verb may be
/// called from several threads and processes at the same time, for different attachments.
#[derive(Debug, Clone)]
pub struct Network {
    list: Arc<List>,
    dirs: Dirs,
    sockets: Arc<NftSockets>,
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
        Ok(Self { list: Arc::new(List::parse(list)?), dirs, sockets: Arc::default() })
    }

    /// As [`Self::parse`], with nothing built in: every plugin is sought in the folders.
    pub fn of_programs(list: &[u8], dirs: Dirs) -> Result<Self, Error> {
        Ok(Self { list: Arc::new(List::parse_with(list, Plugin::foreign)?), dirs, sockets: Arc::default() })
    }

    /// The first configuration list (`*.conflist`) in a folder, by name. `None` if there is none.
    pub fn first_in(dir: &Path, dirs: Dirs) -> Result<Option<Self>, Error> {
        let Some((path, text)) = list::first_in(dir)? else { return Ok(None) };
        Self::parse(&text, dirs).map(Some).map_err(|error| match error {
            Error::Config { field, problem } => {
                Error::Config { field: format!("{}: {field}", path.display()), problem }
            }
            Error::Decode { source, .. } => Error::Decode { what: path.display().to_string(), source },
            other => other,
        })
    }

    /// What is wrong with a list of which a plugin is neither built in nor installed, such as one that another tool left.
    pub fn missing_plugin(&self) -> Option<Error> {
        self.list.plugins.iter().find_map(|plugin| match plugin {
            Plugin::Foreign(foreign) => foreign.find(&self.dirs).err(),
            _ => None,
        })
    }

    /// The list of the built-in network: bridge with host-local addresses and masquerade, loopback, portmap, bandwidth,
    /// firewall.
    pub fn builtin(
        name: &str,
        bridge: &str,
        ranges: &[IpNetwork],
        mtu: Option<u32>,
        dirs: Dirs,
    ) -> Result<Self, Error> {
        Self::parse(list::builtin(name, bridge, ranges, mtu).to_string().as_bytes(), dirs)
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.list.name
    }

    /// ADD. Undone if a plugin fails.
    pub fn add(&self, attachment: &Attachment) -> Result<AddResult, Error> {
        self.chain().add(attachment, None)
    }

    /// DEL, for a caller that drops the namespace right after it: addresses and ports are free when this returns, and the
    /// interface has no address any more; it goes with the namespace, in the kernel's own time. Success if there is
    /// nothing, also if the namespace is gone.
    pub fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        self.chain().del(attachment, None, Interfaces::Leave)
    }

    /// DEL, for a namespace that lives on: the interface too is gone when this returns, for which the kernel takes tens of
    /// milliseconds.
    pub fn detach(&self, attachment: &Attachment) -> Result<(), Error> {
        self.chain().del(attachment, None, Interfaces::Delete)
    }

    /// CHECK: whether everything is as ADD made it.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        self.chain().check(attachment)
    }

    /// GC: releases what belongs to attachments other than these (container id, interface). The list must have those
    /// too whose ADD is under way.
    pub fn gc(&self, valid: &[(String, String)]) -> Result<(), Error> {
        self.chain().gc(valid)
    }

    /// STATUS: whether ADD has a chance.
    pub fn status(&self) -> Result<(), Error> {
        self.chain().status()
    }

    /// Makes anew what somebody took away from under the containers that are attached: the bridge and its ports, the nft
    /// tables and the ports of the host in them. Cheap if all stands.
    pub fn repair(&self) -> Result<(), Error> {
        self.chain().repair()
    }

    /// Subscriptions to all that [`Self::repair`] looks at, in the network namespace of the calling thread. ADD and DEL
    /// are among what they tell.
    pub fn watches() -> Result<[Watch; 2], Error> {
        Ok([Watch::of_interfaces()?, Watch::of_nftables()?])
    }

    /// Takes what these have told, without waiting; whether [`Self::repair`] should look. Tables of nft that are neither ours
    /// nor filters that pods have to pass are passed over, however often another tool changes them.
    pub fn concerns(&self, [links, nftables]: &mut [Watch; 2]) -> Result<bool, Error> {
        let links = links.drain()?;
        Ok(nftables.drain_tables(|table| self.chain().is_about(table))? || links)
    }

    /// Removes what the built-in network keeps on the host while no attachment is left: the bridge and the nft tables;
    /// settings of the kernel get back the values that they had. Refused while containers are attached.
    pub fn remove(&self) -> Result<(), Error> {
        self.chain().remove()
    }

    fn chain(&self) -> Chain<'_> {
        Chain { list: &self.list, dirs: &self.dirs, sockets: &self.sockets }
    }
}
