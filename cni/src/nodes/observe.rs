//! What there is: the node's links, and the routes and entries on them.

use std::net::IpAddr;

use berth_sys::netlink::Route as Netlink;
use berth_sys::netlink::link::Link;
use berth_sys::netlink::neighbour::{Neighbour, Table};
use berth_sys::netlink::route::Owned;
use ipnetwork::IpNetwork;

use super::{Settings, device_name};
use crate::Error;

/// All that a plan is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    /// The node's addresses that a link has.
    pub(super) sides: Vec<Side>,
    /// The vxlans by their names, whoever made them.
    pub(super) devices: Vec<Link>,
    /// The routes of the main table.
    pub(super) routes: Vec<Owned>,
    /// The permanent entries on the vxlans.
    pub(super) entries: Vec<(Table, Neighbour)>,
    /// Of the addresses of pods' bridges, those that there are.
    pub(super) sources: Vec<IpAddr>,
}

/// One of the node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) address: IpAddr,
    pub(super) link: u32,
    pub(super) mtu: u32,
    /// The networks of its IP version on that link.
    pub(super) networks: Vec<IpNetwork>,
}

impl Observed {
    pub(super) fn look(kernel: &mut Netlink, settings: &Settings) -> Result<Self, Error> {
        let addresses = kernel.all_addresses()?;
        let mut observed = Self { routes: kernel.owned_routes()?, ..Self::default() };
        for own in &settings.addresses {
            let Some((index, _)) = addresses.iter().find(|(_, address)| address.ip() == *own) else { continue };
            let Some(link) = kernel.link_at(*index)? else { continue };
            let here = |(of, address): &&(u32, IpNetwork)| of == index && address.is_ipv4() == own.is_ipv4();
            let networks = addresses.iter().filter(here).map(|(_, address)| *address).collect();
            observed.sides.push(Side { address: *own, link: *index, mtu: link.mtu, networks });
        }
        for v4 in [true, false] {
            let Some(device) = kernel.link(device_name(v4))? else { continue };
            for table in [Table::Neighbours, Table::Forwarding] {
                let entries = kernel.neighbours(table, device.index)?;
                observed.entries.extend(entries.into_iter().map(|entry| (table, entry)));
            }
            observed.devices.push(device);
        }
        let is_there = |source: &&IpAddr| addresses.iter().any(|(_, address)| address.ip() == **source);
        observed.sources = settings.sources.iter().filter(is_there).copied().collect();
        Ok(observed)
    }
}
