//! `bridge`: pods of one node on one bridge, each by a veth pair whose other end is made straight in its namespace.
//!
//! ```text
//!   pod's namespace          │ host's namespace
//!   eth0 10.0.0.2/24 ────────┼── berth3f… ─┐
//!   default via 10.0.0.1     │             ├─ bridge 10.0.0.1/24 ── forwarding, masquerade ── outside
//!   eth0 10.0.0.3/24 ────────┼── berth91… ─┘
//! ```
//!
//! Here are the verbs; [`config`] is what they are told, [`links`] what they do to the kernel, [`check`] how they look at it.

mod check;
mod config;
mod links;
mod spoof;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_sys::netlink::Route as Netlink;
use berth_sys::netlink::link::{Link, Mac};
use ipnetwork::IpNetwork;

use super::masquerade;
use super::own_table::{self, OwnTable, table_name};
use super::wishes::Wishes;
use crate::Error;
use crate::attachment::{HOST_NAME_PREFIX, Owner, group_of};
use crate::cache::Record;
use crate::call::Call;
use crate::host::Host;
use crate::site::Site;
use crate::spec::result::{AddResult, Interface, Route};

pub(crate) use self::config::Bridge;
pub(crate) use self::links::delete as delete_links;

/// Whether DEL waits for the kernel to take an interface apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interfaces {
    /// No: the caller drops the namespace, and the interface goes with it.
    Leave,
    /// Yes.
    Delete,
}

impl Bridge {
    pub(crate) fn add(&self, call: &Call<'_>) -> Result<AddResult, Error> {
        // The namespace first: without it nothing needs to be undone.
        drop(call.inside()?);
        let wishes = Wishes::of(&self.object, call)?;
        let mut result = self.addresses(call, &wishes)?;
        let mut outside = Netlink::open()?;
        let host = Host::new(call.site);
        let bridge = self.ensure_bridge(&mut outside, &host, &result)?;
        if self.is_gateway {
            forward(&host, &result)?;
        }
        if self.masquerade {
            let table = self.masquerades(call.site, &result)?;
            call.site.nft(|nft| table.ensure(nft, call.site))?;
        }
        self.connect(call, &mut outside, &bridge, &result, wishes.mac)?;
        let inside = links::configure(call, &mut result, self.probes)?;
        self.check_source(call.site, &call.owner(), inside.mac)?;
        result.interfaces = interfaces(call, &bridge, &inside);
        result.ips.iter_mut().for_each(|ip| ip.interface = Some(2));
        Ok(result)
    }

    /// Addresses and routes, as IPAM gives them, with the default routes that this plugin adds.
    fn addresses(&self, call: &Call<'_>, wishes: &Wishes) -> Result<AddResult, Error> {
        let mut result = self.ipam.add(call, wishes)?;
        if let Some(dns) = [&wishes.dns, &self.dns].into_iter().find(|dns| !dns.is_empty()) {
            result.dns = dns.clone();
        }
        if self.is_gateway {
            for ip in &mut result.ips {
                ip.gateway = ip.gateway.or_else(|| ip.address.iter().nth(1));
            }
        }
        if self.is_default_gateway {
            for gateway in result.ips.iter().filter_map(|ip| ip.gateway) {
                let Some(dst) = default_of(&gateway) else { continue };
                if !result.routes.iter().any(|route| route.dst == dst) {
                    result.routes.push(Route { dst, gw: Some(gateway), other: Default::default() });
                }
            }
        }
        Ok(result)
    }

    /// The bridge and its ports, for those who are attached.
    pub(crate) fn repair_links(&self, site: Site<'_>, records: &[Record]) -> Result<(), Error> {
        let Some(first) = records.first() else { return Ok(()) };
        let mut outside = Netlink::open()?;
        let bridge = self.ensure_bridge(&mut outside, &Host::new(site), &first.result)?;
        let ports: HashSet<String> = outside.ports(bridge.index)?.into_iter().map(|port| port.name).collect();
        for record in records {
            let name = record.attachment.owner().host_name();
            if !ports.contains(&name) {
                self.join(&mut outside, &name, &bridge)?;
            }
        }
        Ok(())
    }

    /// The tables, for those who are attached.
    pub(crate) fn repair_table(&self, site: Site<'_>, records: &[Record]) -> Result<(), Error> {
        self.repair_sources(site, records)?;
        let Some(first) = records.first().filter(|_| self.masquerade) else { return Ok(()) };
        let table = self.masquerades(site, &first.result)?;
        site.nft(|nft| table.ensure_whole(nft, site)).map(drop)
    }

    /// The table that masquerades pods, the one of this result among them.
    pub(super) fn masquerades(&self, site: Site<'_>, result: &AddResult) -> Result<OwnTable, Error> {
        Ok(masquerade::table(site.network, &self.subnets(site, result)?, &self.inside))
    }

    /// DEL. `result` is what ADD gave, if that is known.
    pub(crate) fn del(&self, call: &Call<'_>, result: Option<&AddResult>, interfaces: Interfaces) -> Result<(), Error> {
        let forgotten = self.forget_source(call.site, &call.owner());
        if interfaces == Interfaces::Delete {
            links::delete(&mut Netlink::open()?, &[call.owner().host_name()])?;
        } else if let Some(result) = result {
            links::silence(call, result);
        }
        self.ipam.del(call, result).and(forgotten)
    }

    /// Whether ADD has a chance: the kernel answers, and an address is left.
    pub(crate) fn status(&self, site: Site<'_>) -> Result<(), Error> {
        Netlink::open()?.link(&self.name)?;
        if self.masquerade {
            site.nft(|nft| Ok(nft.note(own_table::table(&table_name(site.network)))?))?;
        }
        self.ipam.status(site)
    }

    /// Frees addresses and deletes interfaces of everybody who is not among the valid.
    pub(crate) fn gc(&self, site: Site<'_>, valid: &HashSet<Owner>) -> Result<(), Error> {
        let mut outside = Netlink::open()?;
        let names: HashSet<String> = valid.iter().map(Owner::host_name).collect();
        if let Some(bridge) = outside.link(&self.name)? {
            let group = group_of(site.network);
            let is_own = |port: &Link| port.name.starts_with(HOST_NAME_PREFIX) && port.group == group;
            let ports = outside.ports(bridge.index)?.into_iter().filter(is_own).map(|port| port.name);
            let stale: Vec<_> = ports.filter(|name| !names.contains(name)).collect();
            links::delete(&mut outside, &stale)?;
        }
        let forgotten = self.forget_sources(site, &|name| !names.contains(name));
        self.ipam.gc(site, valid).and(forgotten)
    }

    /// The host's side of the network is taken away: the bridge, if it was made for it, and the table.
    pub(crate) fn remove(&self, site: Site<'_>) -> Result<(), Error> {
        if Host::new(site).bridges()?.contains(&self.name) {
            links::delete(&mut Netlink::open()?, std::slice::from_ref(&self.name))?;
        }
        site.nft(|nft| own_table::remove(nft, &table_name(site.network)))?;
        if self.checks_source {
            site.nft(|nft| spoof::remove(nft, site.network))?;
        }
        self.ipam.remove(site)
    }
}

/// The bridge that pods are on: the one that is known, of the same list, or the one that a plugin of another program tells
/// of in its result.
pub(crate) fn bridge_of(known: Option<&str>, result: &AddResult) -> Result<Option<String>, Error> {
    if let Some(known) = known {
        return Ok(Some(known.to_owned()));
    }
    let Some(first) = result.interfaces.iter().find(|interface| interface.sandbox.is_empty()) else {
        return Ok(None);
    };
    let link = Netlink::open()?.link(&first.name)?;
    Ok(link.filter(|link| link.kind == "bridge").map(|link| link.name))
}

/// Lets the host pass on what is not for itself.
fn forward(host: &Host, result: &AddResult) -> Result<(), Error> {
    if result.addresses().any(|address| address.is_ipv4()) {
        host.set("net/ipv4/ip_forward", "1")?;
    }
    if result.addresses().any(|address| address.is_ipv6()) {
        host.set("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// What was made, for the result: bridge, the host's end, the pod's end.
fn interfaces(call: &Call<'_>, bridge: &Link, inside: &Link) -> Vec<Interface> {
    let interface = |name: String, mac: Option<Mac>, mtu, sandbox| Interface {
        name,
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu: Some(mtu),
        sandbox,
        other: Default::default(),
    };
    vec![
        interface(bridge.name.clone(), bridge.mac, bridge.mtu, String::new()),
        interface(call.owner().host_name(), Some(call.owner().host_mac()), inside.mtu, String::new()),
        interface(inside.name.clone(), inside.mac, inside.mtu, call.attachment.netns.to_string_lossy().into_owned()),
    ]
}

/// The default route's destination, of an address's version.
fn default_of(address: &IpAddr) -> Option<IpNetwork> {
    let unspecified: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNetwork::new(unspecified, 0).ok()
}
