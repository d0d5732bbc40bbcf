//! Ways to the pods of other nodes: a route for each of their ranges, straight to a node on the same link, and by vxlan to
//! all others.
//!
//! ```text
//!   10.1.0.0/24 via 192.0.2.11 dev eth1 proto 183                        same link
//!   10.2.0.0/24 via 198.51.100.12 dev berthvx4 proto 183 onlink          elsewhere, with
//!     neighbour  198.51.100.12 at 0a:59:…                                the hardware address of its end, and
//!     forwarding 0a:59:… behind 198.51.100.12                            the machine that this is behind
//!   fd00:2::/64 via fe80::859:… dev berthvx6 proto 183                   the same with IPv6
//! ```
//!
//! The link is the one that owns the node's address, whatever the default route says: in a cluster of Vagrant's machines
//! each has the same address on its first interface. Nothing is learnt and nothing is asked for: every entry is permanent,
//! and the hardware address of a node's end follows from the node's address, so that nobody has to publish it.
//!
//! Routes are tagged with a protocol number of our own, [`PROTOCOL`], by which those of nodes that have left are found,
//! also after a restart. Routes of others are left alone; one to the same range is an error.
//!
//! `observe` looks, `plan` compares, and what it says is applied, again and again until there is nothing left to do.
//! [`Nodes`] is to be told of peers, and when its descriptor becomes readable: links flap, people flush.

mod observe;
mod plan;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use berth_sys::netlink::link::{Mac, NAME_BYTES_MAX};
use berth_sys::netlink::watch::Watch;
use berth_sys::netlink::{Changes, Route as Netlink};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use sha2::{Digest, Sha256};

use self::observe::Observed;
use self::plan::Step;
use crate::Error;
use crate::limits::RECONCILE_PASSES_MAX;

/// The owner of our routes (`rtm_protocol`): free in iproute2's list of 2026.
pub const PROTOCOL: u8 = 183;

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its address, and a second one of the other IP version.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its bridge of pods, with which it speaks itself to pods behind a vxlan: their answers come back by
    /// the same way. Those that no link has yet are left out until one has.
    pub sources: Vec<IpAddr>,
    /// Which ways there may be.
    pub mode: Mode,
    /// The number of the vxlan.
    pub vni: u32,
    /// Its UDP port.
    pub port: u16,
}

impl Settings {
    /// With what flannel uses on Linux: number 1, port 8472.
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, sources: Vec::new(), mode: Mode::Auto, vni: 1, port: 8472 }
    }
}

/// Which ways to other nodes there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Straight on the same link, by vxlan elsewhere.
    #[default]
    Auto,
    /// Straight only; a node elsewhere is an error.
    Direct,
    /// By vxlan only: for networks that pass on no addresses but their own.
    Overlay,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for errors.
    pub name: String,
    /// Its addresses, of each IP version that it has ranges of.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods.
    pub ranges: Vec<IpNetwork>,
}

/// The ways to other nodes, kept.
#[derive(Debug)]
pub struct Nodes {
    settings: Settings,
    /// None until they are told: what a process before this one made is left as it is.
    peers: Option<Vec<Peer>>,
    watch: Watch,
}

impl Nodes {
    /// Begins to keep the ways from the network namespace of the calling thread; every call has to come from there. Nothing
    /// is changed until peers are told.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        if settings.addresses.is_empty() {
            return Err(wrong("addresses", "has no address of the node"));
        }
        if settings.vni >= 1 << 24 {
            return Err(wrong("vni", format!("{} is no number of a vxlan: below {}", settings.vni, 1 << 24)));
        }
        Ok(Self { settings, peers: None, watch: Watch::of_links()? })
    }

    /// Tells all other nodes there are, and makes the ways to them; those to others go. The first of what could not be had
    /// is the error, all else is done.
    pub fn set_peers(&mut self, peers: Vec<Peer>) -> Result<(), Error> {
        self.peers = Some(peers);
        self.reconcile()
    }

    /// Makes everything as it should be. Without anything to do it costs a few reads of the kernel's tables.
    pub fn reconcile(&mut self) -> Result<(), Error> {
        // What comes from now on is about what is seen below.
        self.watch.drain()?;
        let Some(peers) = &self.peers else { return Ok(()) };
        for _ in 0..RECONCILE_PASSES_MAX {
            let mut kernel = Netlink::open()?;
            let observed = Observed::look(&mut kernel, &self.settings)?;
            let plan = plan::plan(&self.settings, peers, &observed);
            if plan.steps.is_empty() {
                return plan.problem.map_or(Ok(()), Err);
            }
            let mut outcome = Ok(());
            for step in &plan.steps {
                let mut changes = Changes::new();
                step.write(&mut changes);
                outcome = outcome.and(match kernel.apply(changes) {
                    // It went by itself meanwhile.
                    Err(error) if step.takes_away() && error.errno().is_some_and(is_absence) => Ok(()),
                    // Somebody was faster: the next pass sees whose it is.
                    Err(error) if matches!(step, Step::AddRoute(_)) && error.errno() == Some(Errno::EEXIST) => Ok(()),
                    other => other,
                });
            }
            outcome?;
        }
        Err(Error::Unsteady { what: "the routes to other nodes".to_owned() })
    }

    /// To be called when the descriptor is readable: looks whether somebody changed what is ours, and repairs it. Events
    /// that our own changes make are among them, and find nothing to do.
    pub fn handle_events(&mut self) -> Result<(), Error> {
        if self.watch.drain()? { self.reconcile() } else { Ok(()) }
    }

    /// Takes all ways away.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.set_peers(Vec::new())
    }
}

/// Becomes readable when links, addresses, routes or neighbours have changed.
impl AsFd for Nodes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

/// The name of the vxlan between nodes' addresses of this IP version.
fn device_name(v4: bool) -> &'static str {
    const NAMES: [&str; 2] = ["berthvx4", "berthvx6"];
    const _: () = assert!(NAMES[0].len() <= NAME_BYTES_MAX);
    NAMES[usize::from(!v4)]
}

/// The hardware address of a node's end of a vxlan: locally administered, and as good as unique.
fn hardware_address(node: &IpAddr) -> Mac {
    let digest = Sha256::digest(node.to_string().as_bytes());
    Mac([0x0a, 0x59, digest[0], digest[1], digest[2], digest[3]])
}

fn wrong(field: &str, problem: impl Into<String>) -> Error {
    Error::Config { field: format!("nodes: {field}"), problem: problem.into() }
}

fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::ESRCH | Errno::ENOENT | Errno::ENODEV)
}

impl Step {
    fn takes_away(&self) -> bool {
        matches!(self, Self::Unmake(_) | Self::DeleteRoute(_) | Self::DeleteNeighbour(..))
    }

    fn write(&self, changes: &mut Changes) {
        match self {
            Self::Make(vxlan) => changes.create_vxlan(vxlan),
            Self::Unmake(name) => changes.delete_link(name),
            Self::SetUp(link) => changes.set_up(*link),
            Self::AddRoute(route) => changes.add_owned_route(route),
            Self::DeleteRoute(route) => changes.delete_owned_route(route),
            Self::AddNeighbour(table, entry) => changes.add_neighbour(*table, entry),
            Self::DeleteNeighbour(table, entry) => changes.delete_neighbour(*table, entry),
        }
    }
}
