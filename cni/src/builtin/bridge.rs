//! `bridge`: pods of one node on one bridge, each by a veth pair whose other end is made straight in its namespace.
//!
//! ```text
//!   pod's namespace          │ host's namespace
//!   eth0 10.0.0.2/24 ────────┼── berth3f… ─┐
//!   default via 10.0.0.1     │             ├─ bridge 10.0.0.1/24 ── forwarding, masquerade ── outside
//!   eth0 10.0.0.3/24 ────────┼── berth91… ─┘
//! ```

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_sys::netlink::link::{Link, Mac, NAME_BYTES_MAX, NewBridge, NewVeth};
use berth_sys::netlink::route::Way;
use berth_sys::netlink::{self, Changes, Route as Netlink};
use berth_sys::nft::Nft;
use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::firewall;
use super::host_local::HostLocal;
use super::masquerade;
use crate::Error;
use crate::attachment::{HOST_NAME_PREFIX, Owner};
use crate::call::Call;
use crate::foreign::Foreign;
use crate::host::Host;
use crate::spec::fields::Fields;
use crate::spec::result::{AddResult, Interface, IpConfig, Route};

/// The reference plugin's name for a bridge that has none.
const BRIDGE_DEFAULT: &str = "cni0";
/// What the kernel allows for a veth.
const MTU_MAX: u32 = 65535;
const MTU_MIN: u32 = 68;
/// The smallest MTU over which IPv6 can be spoken (RFC 8200).
const MTU_MIN_V6: u32 = 1280;
/// Options of the reference plugin that change what a network does and that are not built in.
const NOT_BUILT_IN: &[&str] = &[
    "vlan",
    "vlanTrunk",
    "macspoofchk",
    "promiscMode",
    "portIsolation",
    "disableContainerInterface",
    "enabledad",
    "forceAddress",
];

/// What the configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    is_gateway: bool,
    is_default_gateway: bool,
    masquerade: bool,
    hairpin: bool,
    mtu: Option<u32>,
    ipam: Ipam,
}

/// Who gives out the addresses.
#[derive(Debug, Clone)]
enum Ipam {
    HostLocal(HostLocal),
    Foreign(Foreign),
    None,
}

/// Whether DEL waits for the kernel to take an interface apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interfaces {
    /// No: the caller drops the namespace, and the interface goes with it.
    Leave,
    /// Yes.
    Delete,
}

impl Bridge {
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self, Error> {
        for option in NOT_BUILT_IN {
            let off = |value: &serde_json::Value| {
                value.is_null() || *value == false || *value == 0 || value.as_array().is_some_and(Vec::is_empty)
            };
            if fields.map().get(*option).is_some_and(|value| !off(value)) {
                return Err(fields.error(option, "is not supported by the built-in bridge"));
            }
        }
        let name = fields.text("bridge")?.unwrap_or(BRIDGE_DEFAULT).to_owned();
        if name.len() > NAME_BYTES_MAX || name.contains(['/', ':', ' ']) || name == "." || name == ".." {
            return Err(
                fields.error("bridge", format!("{name:?} is no name for a link: at most {NAME_BYTES_MAX} bytes"))
            );
        }
        // Both words mean the same packets; they are always translated by nftables.
        if let Some(other) = fields.text("ipMasqBackend")?.filter(|word| !matches!(*word, "iptables" | "nftables")) {
            return Err(fields.error("ipMasqBackend", format!("{other:?} is not known; use \"nftables\"")));
        }
        let ipam = Ipam::parse(fields)?;
        let mtu = fields.number("mtu")?.filter(|mtu| *mtu != 0);
        let least = if ipam.gives_v6() { MTU_MIN_V6 } else { MTU_MIN };
        if let Some(mtu) = mtu.filter(|mtu| !(least..=MTU_MAX).contains(mtu)) {
            return Err(fields.error("mtu", format!("{mtu} is not between {least} and {MTU_MAX}")));
        }
        let is_default_gateway = fields.flag("isDefaultGateway")?;
        Ok(Self {
            name,
            is_gateway: fields.flag("isGateway")? || is_default_gateway,
            is_default_gateway,
            masquerade: fields.flag("ipMasq")?,
            hairpin: fields.flag("hairpinMode")?,
            mtu,
            ipam,
        })
    }

    pub(crate) fn add(&self, call: &Call<'_>) -> Result<AddResult, Error> {
        // The namespace first: without it nothing needs to be undone.
        drop(call.inside()?);
        let mut result = self.addresses(call)?;
        let mut outside = Netlink::open()?;
        let host = Host::new(call.dirs, call.network);
        let bridge = self.ensure_bridge(&mut outside, &host, &result)?;
        if self.is_gateway {
            forward(&host, &result)?;
        }
        if self.masquerade {
            masquerade::firewall(call.network, &self.subnets(&result)).ensure(&mut Nft::open()?, &host)?;
        }
        self.connect(call, &mut outside, &bridge, &result)?;
        let inside = self.configure(call, &mut result)?;
        let owner = call.owner();
        result.interfaces = vec![
            interface(&bridge.name, bridge.mac, bridge.mtu, ""),
            interface(&owner.host_name(), None, inside.mtu, ""),
            interface(&inside.name, inside.mac, inside.mtu, &call.attachment.netns.to_string_lossy()),
        ];
        result.ips.iter_mut().for_each(|ip| ip.interface = Some(2));
        Ok(result)
    }

    /// Addresses and routes, as IPAM gives them, with the default routes that this plugin adds.
    fn addresses(&self, call: &Call<'_>) -> Result<AddResult, Error> {
        let mut result = match &self.ipam {
            Ipam::None => AddResult::default(),
            Ipam::Foreign(foreign) => foreign.add(call, None)?,
            Ipam::HostLocal(ipam) => {
                let reserved = ipam.store(call.network, call.dirs).reserve(&ipam.sets, &call.owner())?;
                let ip = |address, gateway| IpConfig { address, gateway: Some(gateway), interface: None };
                AddResult {
                    ips: reserved.iter().map(|one| ip(one.address, one.gateway)).collect(),
                    routes: ipam.routes.clone(),
                    ..AddResult::default()
                }
            }
        };
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

    /// The subnets that are masqueraded: all of the configuration, or what a foreign IPAM gave.
    pub(crate) fn subnets(&self, result: &AddResult) -> Vec<IpNetwork> {
        match &self.ipam {
            Ipam::HostLocal(ipam) => ipam.subnets().collect(),
            _ => result
                .ips
                .iter()
                .filter_map(|ip| IpNetwork::new(ip.address.network(), ip.address.prefix()).ok())
                .collect(),
        }
    }

    /// The bridge, made if it is not there, up and with the gateways' addresses.
    fn ensure_bridge(&self, outside: &mut Netlink, host: &Host, result: &AddResult) -> Result<Link, Error> {
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
        let wanted = self.gateways(result);
        if !wanted.is_empty() {
            let found = outside.addresses(link.index)?;
            wanted.into_iter().filter(|one| !found.contains(one)).for_each(|one| changes.add_address(link.index, one));
        }
        outside.apply(changes)?;
        Ok(link)
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

    fn gateways(&self, result: &AddResult) -> Vec<IpNetwork> {
        if !self.is_gateway {
            return Vec::new();
        }
        let gateways = result.ips.iter().filter_map(|ip| IpNetwork::new(ip.gateway?, ip.address.prefix()).ok());
        gateways.collect()
    }

    /// The veth pair, between the bridge and the namespace.
    fn connect(&self, call: &Call<'_>, outside: &mut Netlink, bridge: &Link, result: &AddResult) -> Result<(), Error> {
        let name = call.owner().host_name();
        let veth = NewVeth {
            name: &name,
            master: Some(bridge.index),
            mtu: self.mtu,
            peer_name: &call.attachment.ifname,
            // Of the address, so that no neighbour keeps a wrong one when the address has a new owner.
            peer_mac: result.ips.first().map(|ip| mac_of(&ip.address.ip())),
            peer_netns: call.netns()?,
        };
        let create = || {
            let mut changes = Changes::new();
            changes.create_veth(&veth);
            if self.hairpin {
                changes.hairpin(&name);
            }
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

    /// Addresses and routes inside the namespace. The interface there is returned.
    fn configure(&self, call: &Call<'_>, result: &mut AddResult) -> Result<Link, Error> {
        let mut inside = call.inside()?;
        let name = &call.attachment.ifname;
        let link = inside.link(name)?.ok_or_else(|| call.mismatch(format!("{name} vanished while it was set up")))?;
        let mut changes = Changes::new();
        result.ips.iter().for_each(|ip| changes.add_address(link.index, ip.address));
        changes.set_up(link.index);
        for route in &mut result.routes {
            route.gw = route.gw.or_else(|| gateway_for(&route.dst, &result.ips));
            changes.add_route(&Way { to: route.dst, via: route.gw, link: link.index });
        }
        inside.apply(changes)?;
        Ok(link)
    }

    /// DEL. `result` is what ADD gave, if that is known.
    pub(crate) fn del(&self, call: &Call<'_>, result: Option<&AddResult>, interfaces: Interfaces) -> Result<(), Error> {
        let owner = call.owner();
        if interfaces == Interfaces::Delete {
            delete(&mut Netlink::open()?, &[owner.host_name()])?;
        } else if let Some(result) = result {
            silence(call, result);
        }
        match &self.ipam {
            Ipam::HostLocal(ipam) => {
                let addresses: Option<Vec<IpAddr>> =
                    result.map(|result| result.ips.iter().map(|ip| ip.address.ip()).collect());
                ipam.store(call.network, call.dirs).release(&owner, addresses.as_deref())
            }
            Ipam::Foreign(foreign) => foreign.del(call, result),
            Ipam::None => Ok(()),
        }
    }

    pub(crate) fn check(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        let mut outside = Netlink::open()?;
        let name = call.owner().host_name();
        let bridge = outside.link(&self.name)?.ok_or_else(|| call.mismatch(format!("bridge {} is gone", self.name)))?;
        match outside.link(&name)? {
            Some(link) if link.master == Some(bridge.index) && link.up => {}
            Some(_) => return Err(call.mismatch(format!("{name} is down, or no port of {}", self.name))),
            None => return Err(call.mismatch(format!("{name} is gone"))),
        }
        let addresses = outside.addresses(bridge.index)?;
        if let Some(gateway) = self.gateways(result).iter().find(|gateway| !addresses.contains(gateway)) {
            return Err(call.mismatch(format!("{} has lost its address {gateway}", self.name)));
        }
        if self.masquerade && !masquerade::firewall(call.network, &self.subnets(result)).stands(&mut Nft::open()?)? {
            return Err(call.mismatch("the nft table that masquerades is gone or changed".to_owned()));
        }
        check_inside(call, result)?;
        match &self.ipam {
            Ipam::Foreign(foreign) => foreign.check(call, result),
            Ipam::HostLocal(ipam) => {
                let taken = ipam.store(call.network, call.dirs).of(&call.owner())?;
                match result.ips.iter().map(|ip| ip.address.ip()).find(|ip| !taken.contains(ip)) {
                    Some(lost) => Err(call.mismatch(format!("address {lost} is not reserved"))),
                    None => Ok(()),
                }
            }
            Ipam::None => Ok(()),
        }
    }

    /// Whether ADD has a chance: the kernel answers, and an address is left.
    pub(crate) fn status(&self, network: &str, version: &str, dirs: &crate::Dirs) -> Result<(), Error> {
        Netlink::open()?.link(&self.name)?;
        if self.masquerade {
            Nft::open()?.note(firewall::table(network))?;
        }
        match &self.ipam {
            Ipam::HostLocal(ipam) => ipam.store(network, dirs).has_room(&ipam.sets),
            Ipam::Foreign(foreign) => foreign.status(network, version, dirs),
            Ipam::None => Ok(()),
        }
    }

    /// Frees addresses and deletes interfaces of everybody who is not among the valid.
    pub(crate) fn gc(&self, network: &str, dirs: &crate::Dirs, valid: &HashSet<Owner>) -> Result<(), Error> {
        let mut outside = Netlink::open()?;
        if let Some(bridge) = outside.link(&self.name)? {
            let names: HashSet<String> = valid.iter().map(Owner::host_name).collect();
            let ports = outside.ports(bridge.index)?.into_iter().map(|port| port.name);
            let stale: Vec<_> =
                ports.filter(|name| name.starts_with(HOST_NAME_PREFIX) && !names.contains(name)).collect();
            delete(&mut outside, &stale)?;
        }
        match &self.ipam {
            Ipam::HostLocal(ipam) => ipam.store(network, dirs).keep_only(&|owner| valid.contains(owner)),
            _ => Ok(()),
        }
    }

    /// The host's side of the network is taken away: the bridge, if it was made for it, and the table.
    pub(crate) fn remove(&self, network: &str, dirs: &crate::Dirs) -> Result<(), Error> {
        let host = Host::new(dirs, network);
        if host.bridges()?.contains(&self.name) {
            delete(&mut Netlink::open()?, std::slice::from_ref(&self.name))?;
        }
        firewall::remove(&mut Nft::open()?, &format!("berth-{network}"))?;
        match &self.ipam {
            Ipam::HostLocal(ipam) => ipam.store(network, dirs).remove_all(),
            _ => Ok(()),
        }
    }

    /// The built-in IPAM, if it is that.
    pub(crate) fn host_local(&self) -> Option<&HostLocal> {
        match &self.ipam {
            Ipam::HostLocal(ipam) => Some(ipam),
            _ => None,
        }
    }

    /// The foreign IPAM, if it is that.
    pub(crate) fn foreign_ipam(&self) -> Option<&Foreign> {
        match &self.ipam {
            Ipam::Foreign(foreign) => Some(foreign),
            _ => None,
        }
    }
}

impl Ipam {
    fn parse(fields: &Fields<'_>) -> Result<Self, Error> {
        let Some(ipam) = fields.object("ipam")?.filter(|ipam| !ipam.map().is_empty()) else { return Ok(Self::None) };
        match ipam.required("type")? {
            "host-local" => Ok(Self::HostLocal(HostLocal::parse(&ipam)?)),
            kind => Ok(Self::Foreign(Foreign::parse(kind, &ipam.path("type"), fields)?)),
        }
    }

    fn gives_v6(&self) -> bool {
        matches!(self, Self::HostLocal(ipam) if ipam.subnets().any(|subnet| subnet.is_ipv6()))
    }
}

/// Lets the host pass on what is not for itself.
fn forward(host: &Host, result: &AddResult) -> Result<(), Error> {
    if result.ips.iter().any(|ip| ip.address.is_ipv4()) {
        host.set("net/ipv4/ip_forward", "1")?;
    }
    if result.ips.iter().any(|ip| ip.address.is_ipv6()) {
        host.set("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Takes the addresses from an interface that stays until its namespace goes: nobody speaks with an address that is not
/// its own any more. Best effort: the namespace may be gone.
fn silence(call: &Call<'_>, result: &AddResult) {
    let Ok(mut inside) = call.inside() else { return };
    let Ok(Some(link)) = inside.link(&call.attachment.ifname) else { return };
    let mut changes = Changes::new();
    result.ips.iter().for_each(|ip| changes.delete_address(link.index, ip.address));
    let _ = inside.apply(changes);
}

fn check_inside(call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
    let mut inside = call.inside()?;
    let name = &call.attachment.ifname;
    let link = inside.link(name)?.filter(|link| link.up).ok_or_else(|| call.mismatch(format!("{name} is not up")))?;
    let addresses = inside.addresses(link.index)?;
    if let Some(ip) = result.ips.iter().find(|ip| !addresses.contains(&ip.address)) {
        return Err(call.mismatch(format!("{name} has lost its address {}", ip.address)));
    }
    let routes = inside.routes()?;
    let stands = |route: &Route| routes.iter().any(|found| found.to == route.dst && found.via == route.gw);
    match result.routes.iter().find(|route| !stands(route)) {
        Some(lost) => Err(call.mismatch(format!("the route to {} is gone", lost.dst))),
        None => Ok(()),
    }
}

/// Deletes links; those that are gone are deleted.
fn delete(netlink: &mut Netlink, names: &[String]) -> Result<(), netlink::Error> {
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

fn interface(name: &str, mac: Option<Mac>, mtu: u32, sandbox: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu: Some(mtu),
        sandbox: sandbox.to_owned(),
        other: Default::default(),
    }
}

/// The default route's destination, of an address's version.
fn default_of(address: &IpAddr) -> Option<IpNetwork> {
    let unspecified: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNetwork::new(unspecified, 0).ok()
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
