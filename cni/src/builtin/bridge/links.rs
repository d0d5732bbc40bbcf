//! The bridge's links: made, joined, given addresses and routes, deleted.

use std::net::IpAddr;
use std::thread;
use std::time::Instant;

use berth_sys::netlink::addr::Probe;
use berth_sys::netlink::link::{Link, Mac, NewBridge, NewVeth};
use berth_sys::netlink::route::Way;
use berth_sys::netlink::{self, Changes, Route as Netlink};
use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::Bridge;
use crate::Error;
use crate::attachment::group_of;
use crate::call::Call;
use crate::host::Host;
use crate::limits::{PROBE_AGAIN, PROBE_WAIT_MAX};
use crate::spec::result::{AddResult, IpConfig};

impl Bridge {
    /// The bridge, made if it is not there, up and with the gateways' addresses.
    pub(super) fn ensure_bridge(&self, outside: &mut Netlink, host: &Host, result: &AddResult) -> Result<Link, Error> {
        let link = match outside.link(&self.name)? {
            Some(link) => link,
            None => self.create_bridge(outside, host, result)?,
        };
        if link.kind != "bridge" {
            let problem = format!("{:?} is the name of another link, which is no bridge", self.name);
            return Err(Error::Config { field: "bridge".to_owned(), problem });
        }
        let mut changes = Changes::new();
        if !link.up {
            changes.set_up(link.index);
        }
        if self.promiscuous && !link.promiscuous {
            changes.set_promiscuous(link.index);
        }
        let wanted = self.gateways(result);
        if !wanted.is_empty() {
            let found = outside.addresses(link.index)?;
            if self.forces_address {
                let in_the_way = found.iter().filter(|one| !wanted.contains(one) && self.is_in_the_way(one, &wanted));
                in_the_way.for_each(|one| changes.delete_address(link.index, *one));
            }
            wanted.into_iter().filter(|one| !found.contains(one)).for_each(|one| changes.add_address(link.index, one));
        }
        outside.apply(changes)?;
        Ok(link)
    }

    /// As the reference has it: any other address of version 4, and one of version 6 whose network overlaps.
    fn is_in_the_way(&self, address: &IpNetwork, wanted: &[IpNetwork]) -> bool {
        // Gateways of other ranges of this configuration stay.
        let is_own = self.ipam.subnets().iter().any(|subnet| subnet.contains(address.ip()));
        let is_gateway = is_own && !wanted.iter().any(|gateway| gateway.contains(address.ip()));
        let overlaps = |gateway: &IpNetwork| match (gateway, address) {
            (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
            (IpNetwork::V6(gateway), IpNetwork::V6(address)) => gateway.overlaps(*address),
            _ => false,
        };
        !is_gateway && wanted.iter().any(overlaps)
    }

    fn create_bridge(&self, outside: &mut Netlink, host: &Host, result: &AddResult) -> Result<Link, Error> {
        let _lock = host.lock()?;
        if let Some(link) = outside.link(&self.name)? {
            return Ok(link);
        }
        host.remember_bridge(&self.name)?;
        let mac = self.gateways(result).first().map(|gateway| mac_of(&gateway.ip()));
        let mut changes = Changes::new();
        changes.create_bridge(&NewBridge { name: &self.name, mac, mtu: self.mtu });
        match outside.apply(changes) {
            Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
        outside.link(&self.name)?.ok_or_else(|| {
            let problem = format!("{:?} was deleted as soon as it was made", self.name);
            Error::Config { field: "bridge".to_owned(), problem }
        })
    }

    /// The veth pair, between the bridge and the namespace.
    pub(super) fn connect(
        &self,
        call: &Call<'_>,
        outside: &mut Netlink,
        bridge: &Link,
        result: &AddResult,
        mac: Option<Mac>,
    ) -> Result<(), Error> {
        let name = call.owner().host_name();
        let veth = NewVeth {
            name: &name,
            mac: Some(call.owner().host_mac()),
            group: group_of(call.site.network),
            master: Some(bridge.index),
            mtu: self.mtu,
            peer_name: &call.attachment.ifname,
            // Of the address, so that no neighbour keeps a wrong one when the address has a new owner.
            peer_mac: mac.or_else(|| result.addresses().next().map(|address| mac_of(&address))),
            peer_netns: call.netns()?,
        };
        let create = || {
            let mut changes = Changes::new();
            changes.create_veth(&veth);
            self.set_port(&mut changes, &name);
            changes
        };
        match outside.apply(create()) {
            // The name is this attachment's alone: what has it is left of a DEL, or of an ADD that was killed.
            Err(error) if error.errno() == Some(Errno::EEXIST) && outside.link(&name)?.is_some() => {
                delete(outside, std::slice::from_ref(&name))?;
                Ok(outside.apply(create())?)
            }
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                let problem = format!("the namespace has an interface {} already", call.attachment.ifname);
                Err(Error::Attachment { variable: "CNI_IFNAME", problem })
            }
            other => Ok(other?),
        }
    }
}

impl Bridge {
    /// What a port is like.
    fn set_port(&self, changes: &mut Changes, name: &str) {
        if self.hairpin {
            changes.hairpin(name);
        }
        if self.isolated {
            changes.isolate(name);
        }
    }

    /// Makes the host's end of a pair a port of the bridge again; one that is gone stays so.
    pub(super) fn join(&self, outside: &mut Netlink, name: &str, bridge: &Link) -> Result<(), Error> {
        let Some(link) = outside.link(name)? else { return Ok(()) };
        let mut changes = Changes::new();
        changes.set_master(link.index, bridge.index);
        self.set_port(&mut changes, name);
        Ok(outside.apply(changes)?)
    }
}

/// Addresses and routes inside the namespace. The interface there is returned; routes without a gateway get theirs.
pub(super) fn configure(call: &Call<'_>, result: &mut AddResult, probes: bool) -> Result<Link, Error> {
    let mut inside = call.inside()?;
    let name = &call.attachment.ifname;
    let link = inside.link(name)?.ok_or_else(|| call.mismatch(format!("{name} vanished while it was set up")))?;
    let mut changes = Changes::new();
    for ip in &result.ips {
        if probes {
            changes.add_probed_address(link.index, ip.address);
        } else {
            changes.add_address(link.index, ip.address);
        }
    }
    changes.set_up(link.index);
    if probes {
        inside.apply(std::mem::take(&mut changes))?;
        settle(call, &mut inside, &link, result)?;
    }
    for route in &mut result.routes {
        route.gw = route.gw.or_else(|| gateway_for(&route.dst, &result.ips));
        changes.add_route(&Way { to: route.dst, via: route.gw, link: link.index });
    }
    inside.apply(changes)?;
    Ok(link)
}

/// Waits until the kernel knows of each address that was given whether it has another owner.
fn settle(call: &Call<'_>, inside: &mut Netlink, link: &Link, result: &AddResult) -> Result<(), Error> {
    let deadline = Instant::now() + PROBE_WAIT_MAX;
    loop {
        let mut probes = inside.probes(link.index)?;
        probes.retain(|(address, _)| result.addresses().any(|given| given == *address));
        let refuse = |address, why: &str| Err(call.mismatch(format!("address {address} of {} {why}", link.name)));
        match probes.iter().find(|(_, probe)| *probe == Probe::Taken).or(probes.first()) {
            None => return Ok(()),
            Some((address, Probe::Taken)) => return refuse(address, "has another owner on the link"),
            Some((address, Probe::Going)) if Instant::now() >= deadline => {
                return refuse(address, "is not known to be free in time");
            }
            Some(_) => thread::sleep(PROBE_AGAIN),
        }
    }
}

/// Takes the addresses from an interface that stays until its namespace goes: nobody speaks with an address that is not
/// its own any more. Best effort: the namespace may be gone.
pub(super) fn silence(call: &Call<'_>, result: &AddResult) {
    let Ok(mut inside) = call.inside() else { return };
    let Ok(Some(link)) = inside.link(&call.attachment.ifname) else { return };
    let mut changes = Changes::new();
    result.ips.iter().for_each(|ip| changes.delete_address(link.index, ip.address));
    let _ = inside.apply(changes);
}

/// Deletes links; those that are gone are deleted.
pub(crate) fn delete(netlink: &mut Netlink, names: &[String]) -> Result<(), netlink::Error> {
    for name in names {
        let mut changes = Changes::new();
        changes.delete_link(name);
        match netlink.apply(changes) {
            Err(error) if error.errno() != Some(Errno::ENODEV) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn gateway_for(dst: &IpNetwork, ips: &[IpConfig]) -> Option<IpAddr> {
    ips.iter().filter(|ip| ip.address.is_ipv4() == dst.is_ipv4()).find_map(|ip| ip.gateway)
}

/// A hardware address that follows from an address: locally administered, and unique in a subnet of fewer than 2^32.
fn mac_of(address: &IpAddr) -> Mac {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => (u128::from(*address) as u32).to_be_bytes(),
    };
    Mac([0x0a, 0x58, a, b, c, d])
}
