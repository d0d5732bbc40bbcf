//! What has to be done, from what should be and what is. Pure.

use std::net::IpAddr;

use berth_sys::netlink::link::{Link, Mac, NewVxlan, Tunnel};
use berth_sys::netlink::neighbour::{Neighbour, Table};
use berth_sys::netlink::route::{Owned, Way};
use ipnetwork::IpNetwork;

use super::observe::{Observed, Side};
use super::{Mode, PROTOCOL, Peer, Settings, device_name, hardware_address};
use crate::Error;

/// What a vxlan puts before each packet: the header of IPv4 or IPv6, of UDP, its own, and the packet's of Ethernet.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// One change of the kernel's tables.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Make(NewVxlan<'static>),
    Unmake(&'static str),
    SetUp(u32),
    AddRoute(Owned),
    DeleteRoute(Owned),
    AddNeighbour(Table, Neighbour),
    DeleteNeighbour(Table, Neighbour),
}

/// The steps in their order, and the first thing that cannot be had. What stands on a device that is yet to be made is
/// planned when it is there.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) problem: Option<Error>,
}

/// What there should be, as far as the links for it are there.
#[derive(Debug, Default)]
struct Wanted {
    /// For IPv4 and IPv6, the vxlan if it is needed.
    devices: [Option<NewVxlan<'static>>; 2],
    routes: Vec<Owned>,
    entries: Vec<(Table, Neighbour)>,
}

/// Compares.
pub(super) fn plan(settings: &Settings, peers: &[Peer], observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = Wanted::default();
    let mut taken: Vec<(&str, IpNetwork)> = Vec::new();
    for (peer, range) in peers.iter().flat_map(|peer| peer.ranges.iter().map(move |range| (peer, *range))) {
        let refused = |problem: String| Error::Peer { name: peer.name.clone(), range, problem };
        let sound = sense(settings, peers, &taken, range).map_or(Ok(()), |problem| Err(refused(problem)));
        match sound.and_then(|()| wanted.lead_to(settings, peer, &range, observed)) {
            Ok(()) => taken.push((&peer.name, range)),
            Err(error) => drop(plan.problem.get_or_insert(error)),
        }
    }
    plan.devices(&wanted, observed);
    plan.routes(&wanted, observed);
    plan.entries(&wanted, observed);
    // A device goes last: what stands on it would be gone before it is deleted.
    plan.steps.sort_by_key(|step| matches!(step, Step::Unmake(_)));
    plan
}

/// What is wrong with a range of pods, if anything: a route to it must lead nobody astray.
fn sense(settings: &Settings, peers: &[Peer], taken: &[(&str, IpNetwork)], range: IpNetwork) -> Option<String> {
    let first = range.network();
    if range.prefix() == 0 || first.is_loopback() || first.is_multicast() || first.is_unspecified() {
        return Some("it is no range that pods can have".to_owned());
    }
    let of_peers = peers.iter().flat_map(|peer| &peer.addresses);
    let mut nodes = settings.addresses.iter().chain(&settings.sources).chain(of_peers);
    if let Some(node) = nodes.find(|node| range.contains(**node)) {
        return Some(format!("it holds {node}, which is an address of a node"));
    }
    let other = taken.iter().find(|(_, other)| overlap(*other, range));
    other.map(|(name, other)| format!("it overlaps with {other} of node {name}"))
}

fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

impl Wanted {
    fn lead_to(
        &mut self,
        settings: &Settings,
        peer: &Peer,
        range: &IpNetwork,
        observed: &Observed,
    ) -> Result<(), Error> {
        let v4 = range.is_ipv4();
        let refused = |problem: String| Error::Peer { name: peer.name.clone(), range: *range, problem };
        let version = if v4 { "IPv4" } else { "IPv6" };
        let own = settings.addresses.iter().find(|own| own.is_ipv4() == v4);
        let own = own.ok_or_else(|| refused(format!("this node has no {version} address")))?;
        let via = peer.addresses.iter().find(|address| address.is_ipv4() == v4);
        let via = *via.ok_or_else(|| refused(format!("it has no {version} address")))?;
        let side = observed.sides.iter().find(|side| side.address == *own);
        let side = side.ok_or_else(|| refused(format!("no link of this node has its address {own}")))?;
        let is_near = side.networks.iter().any(|network| network.contains(via));
        match settings.mode {
            Mode::Auto | Mode::Direct if is_near => {
                let way = Way { to: *range, via: Some(via), link: side.link };
                self.routes.push(Owned { way, protocol: PROTOCOL, source: None, onlink: false });
                Ok(())
            }
            Mode::Direct => Err(refused(format!("{via} is not on the link of {own}, and there is no other way"))),
            Mode::Auto | Mode::Overlay => {
                self.tunnel_to(settings, side, *range, via, observed);
                Ok(())
            }
        }
    }

    fn tunnel_to(&mut self, settings: &Settings, side: &Side, range: IpNetwork, via: IpAddr, observed: &Observed) {
        let v4 = range.is_ipv4();
        let tunnel = Tunnel { vni: settings.vni, port: settings.port, local: side.address, link: side.link };
        let overhead = if v4 { OVERHEAD_V4 } else { OVERHEAD_V6 };
        let device = NewVxlan {
            name: device_name(v4),
            mac: hardware_address(&side.address),
            mtu: side.mtu.saturating_sub(overhead),
            tunnel,
        };
        self.devices[usize::from(!v4)] = Some(device);
        let Some(link) = observed.devices.iter().find(|link| is_as(link, &device)).map(|link| link.index) else {
            return;
        };
        let source = observed.sources.iter().find(|source| source.is_ipv4() == v4).copied();
        let mac = hardware_address(&via);
        let gateway = gateway(via, mac);
        let way = Way { to: range, via: Some(gateway), link };
        self.routes.push(Owned { way, protocol: PROTOCOL, source, onlink: v4 });
        for (table, address) in [(Table::Neighbours, gateway), (Table::Forwarding, via)] {
            let entry = (table, Neighbour { link, address, mac });
            // A node with several ranges has one end.
            if !self.entries.contains(&entry) {
                self.entries.push(entry);
            }
        }
    }
}

impl Plan {
    fn devices(&mut self, wanted: &Wanted, observed: &Observed) {
        for (number, device) in wanted.devices.iter().enumerate() {
            let name = device_name(number == 0);
            let found = observed.devices.iter().find(|link| link.name == name);
            match (device, found) {
                (None, None) => {}
                (Some(device), None) => self.steps.push(Step::Make(*device)),
                (Some(device), Some(link)) if is_as(link, device) => {
                    if !link.up {
                        self.steps.push(Step::SetUp(link.index));
                    }
                }
                // It is made anew in the next pass.
                (_, Some(link)) if link.kind == "vxlan" => self.steps.push(Step::Unmake(name)),
                (Some(_), Some(link)) => {
                    let problem = format!("is the name of another link, a {}", link.kind);
                    self.problem.get_or_insert(super::wrong(name, problem));
                }
                (None, Some(_)) => {}
            }
        }
    }

    fn routes(&mut self, wanted: &Wanted, observed: &Observed) {
        for route in observed.routes.iter().filter(|route| route.protocol == PROTOCOL) {
            if !wanted.routes.iter().any(|one| one.way.to == route.way.to) {
                self.steps.push(Step::DeleteRoute(*route));
            }
        }
        for route in wanted.routes.iter().filter(|route| !observed.routes.contains(route)) {
            let to = route.way.to;
            match observed.routes.iter().find(|other| other.way.to == to && other.protocol != PROTOCOL) {
                Some(other) => {
                    let problem = format!("there is a route of somebody else's already (proto {})", other.protocol);
                    self.problem.get_or_insert(super::wrong(&to.to_string(), problem));
                }
                None => {
                    // Never over another's, not even for a moment.
                    let old = observed.routes.iter().find(|other| other.way.to == to);
                    self.steps.extend(old.map(|old| Step::DeleteRoute(*old)));
                    self.steps.push(Step::AddRoute(*route));
                }
            }
        }
    }

    fn entries(&mut self, wanted: &Wanted, observed: &Observed) {
        let is_ours = |entry: &Neighbour| {
            let device = observed.devices.iter().find(|link| link.index == entry.link);
            device.is_some_and(|link| wanted.devices.iter().flatten().any(|device| is_as(link, device)))
        };
        for (table, entry) in observed.entries.iter().filter(|(_, entry)| is_ours(entry)) {
            // A wrong hardware address is replaced, where there can be one only.
            let stays = |(other, one): &(Table, Neighbour)| match table {
                Table::Neighbours => (other, one.link, one.address) == (table, entry.link, entry.address),
                Table::Forwarding => (other, one) == (table, entry),
            };
            if !wanted.entries.iter().any(stays) {
                self.steps.push(Step::DeleteNeighbour(*table, *entry));
            }
        }
        for (table, entry) in wanted.entries.iter().filter(|one| !observed.entries.contains(one)) {
            self.steps.push(Step::AddNeighbour(*table, *entry));
        }
    }
}

/// What a node's end of a vxlan is called inside: with IPv4 as the node itself. With IPv6 the kernel takes no router that is
/// reached by another link, whatever the flag says: there it is a link-local address, made of the hardware address.
fn gateway(node: IpAddr, Mac([a, b, c, d, e, f]): Mac) -> IpAddr {
    match node {
        IpAddr::V4(_) => node,
        IpAddr::V6(_) => IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]),
    }
}

/// Whether a link is this vxlan, and need not be made anew.
fn is_as(link: &Link, device: &NewVxlan<'_>) -> bool {
    link.name == device.name
        && link.tunnel == Some(device.tunnel)
        && link.mac == Some(device.mac)
        && link.mtu == device.mtu
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(mode: Mode) -> Settings {
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        Settings { sources: vec!["10.1.0.1".parse().unwrap()], mode, ..Settings::new(addresses) }
    }

    fn peer(number: u8, near: bool) -> Peer {
        let (v4, v6) = if near { ("192.0.2", "2001:db8::") } else { ("198.51.100", "2001:db9::") };
        Peer {
            name: format!("node{number}"),
            addresses: vec![format!("{v4}.{number}").parse().unwrap(), format!("{v6}{number:x}").parse().unwrap()],
            ranges: vec![
                format!("10.{number}.0.0/24").parse().unwrap(),
                format!("fd00:{number:x}::/64").parse().unwrap(),
            ],
        }
    }

    fn bare() -> Observed {
        let side = |address: &str, network: &str| Side {
            address: address.parse().unwrap(),
            link: 2,
            mtu: 1500,
            networks: vec![network.parse().unwrap()],
        };
        let sides = vec![side("192.0.2.1", "192.0.2.1/24"), side("2001:db8::1", "2001:db8::1/64")];
        Observed { sides, sources: vec!["10.1.0.1".parse().unwrap()], ..Observed::default() }
    }

    /// The kernel, as far as a plan needs one.
    fn apply(observed: &mut Observed, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Make(device) => observed.devices.push(Link {
                    index: 70 + observed.devices.len() as u32 + u32::from(device.tunnel.local.is_ipv6()) * 10,
                    name: device.name.to_owned(),
                    kind: "vxlan".to_owned(),
                    mac: Some(device.mac),
                    mtu: device.mtu,
                    up: true,
                    master: None,
                    tunnel: Some(device.tunnel),
                    peer: None,
                    peer_netns: None,
                    hairpin: false,
                    isolated: false,
                    promiscuous: false,
                    group: 0,
                }),
                Step::Unmake(name) => {
                    let gone = observed.devices.iter().position(|link| link.name == name).unwrap();
                    let index = observed.devices.remove(gone).index;
                    observed.routes.retain(|route| route.way.link != index);
                    observed.entries.retain(|(_, entry)| entry.link != index);
                }
                Step::SetUp(index) => {
                    observed.devices.iter_mut().filter(|link| link.index == index).for_each(|link| link.up = true);
                }
                Step::AddRoute(route) => {
                    assert!(!observed.routes.iter().any(|other| other.way.to == route.way.to), "the kernel refuses it");
                    observed.routes.push(route);
                }
                Step::DeleteRoute(route) => observed.routes.retain(|other| *other != route),
                Step::AddNeighbour(table, entry) => {
                    let same = |other: &(Table, Neighbour)| {
                        other.0 == table && table == Table::Neighbours && other.1.address == entry.address
                    };
                    observed.entries.retain(|other| !same(other));
                    observed.entries.push((table, entry));
                }
                Step::DeleteNeighbour(table, entry) => observed.entries.retain(|other| *other != (table, entry)),
            }
        }
    }

    fn settle(settings: &Settings, peers: &[Peer], observed: &mut Observed) -> Option<Error> {
        for _ in 0..crate::limits::RECONCILE_PASSES_MAX {
            let plan = plan(settings, peers, observed);
            if plan.steps.is_empty() {
                return plan.problem;
            }
            apply(observed, &plan.steps);
        }
        panic!("it does not settle: {:?}", plan(settings, peers, observed));
    }

    #[test]
    fn near_nodes_are_reached_straight_and_far_ones_by_a_tunnel() {
        let mut observed = bare();
        assert!(settle(&settings(Mode::Auto), &[peer(2, true), peer(3, false)], &mut observed).is_none());
        assert_eq!((observed.devices.len(), observed.routes.len(), observed.entries.len()), (2, 4, 4));
        let route = |to: &str| *observed.routes.iter().find(|route| route.way.to == to.parse().unwrap()).unwrap();
        let (near, far) = (route("10.2.0.0/24"), route("10.3.0.0/24"));
        assert_eq!((near.way.link, near.onlink, near.source), (2, false, None));
        assert_eq!((far.onlink, far.source), (true, Some("10.1.0.1".parse().unwrap())));
        assert_eq!((observed.devices[0].mtu, observed.devices[1].mtu), (1450, 1430));
        // All leave.
        assert!(settle(&settings(Mode::Auto), &[], &mut observed).is_none());
        assert_eq!((observed.devices.len(), observed.routes.len(), observed.entries.len()), (0, 0, 0));
    }

    #[test]
    fn what_cannot_be_had_is_told_and_the_rest_is_done() {
        let told = |mode, peers: &[Peer], observed: &mut Observed| {
            settle(&settings(mode), peers, observed).map(|error| error.to_string()).unwrap_or_default()
        };
        let mut observed = bare();
        let error = told(Mode::Direct, &[peer(2, true), peer(3, false)], &mut observed);
        assert!(error.contains("node3") && error.contains("198.51.100.3 is not on the link"), "{error}");
        assert_eq!(observed.routes.len(), 2);
        let mut homeless = Observed::default();
        let error = told(Mode::Auto, &[peer(2, true)], &mut homeless);
        assert!(error.contains("no link of this node has its address 192.0.2.1"), "{error}");
        let mut taken = bare();
        let way = Way { to: "10.2.0.0/24".parse().unwrap(), via: None, link: 9 };
        let theirs = Owned { way, protocol: 4, source: None, onlink: false };
        taken.routes.push(theirs);
        let error = told(Mode::Auto, &[peer(2, true)], &mut taken);
        assert!(error.contains("10.2.0.0/24: there is a route of somebody else's already (proto 4)"), "{error}");
        assert!(taken.routes.contains(&theirs) && taken.routes.len() == 2);
        let lone = Peer { addresses: vec!["192.0.2.5".parse().unwrap()], ..peer(5, true) };
        assert!(told(Mode::Auto, &[lone], &mut bare()).contains("it has no IPv6 address"));
    }

    #[test]
    fn ranges_that_would_lead_astray_are_refused_and_the_rest_is_done() {
        let told = |range: &str| {
            let odd = Peer { ranges: vec![range.parse().unwrap()], ..peer(3, true) };
            let mut observed = bare();
            let error = settle(&settings(Mode::Auto), &[peer(2, true), odd], &mut observed).map(|it| it.to_string());
            assert_eq!(observed.routes.len(), 2, "{range}");
            error.unwrap_or_default()
        };
        for (range, why) in [
            ("0.0.0.0/0", "no range that pods can have"),
            ("127.0.0.0/8", "no range that pods can have"),
            ("ff00::/8", "no range that pods can have"),
            ("192.0.2.0/25", "192.0.2.1, which is an address of a node"),
            ("10.1.0.0/24", "10.1.0.1, which is an address of a node"),
            ("2001:db8::/32", "which is an address of a node"),
            ("10.2.0.128/25", "it overlaps with 10.2.0.0/24 of node node2"),
            ("10.2.0.0/23", "it overlaps with 10.2.0.0/24 of node node2"),
        ] {
            let error = told(range);
            assert!(error.contains("node3") && error.contains(why), "{range}: {error}");
        }
    }

    proptest! {
        #[test]
        fn from_anything_it_settles_at_what_is_wanted(
            first: [Option<bool>; 5], then: [Option<bool>; 5], overlay: bool, lost in 0usize..12, is_down: bool,
        ) {
            let peers = |all: &[Option<bool>]| -> Vec<Peer> {
                (2..).zip(all).filter_map(|(number, near)| Some(peer(number, (*near)?))).collect()
            };
            let mode = if overlay { Mode::Overlay } else { Mode::Auto };
            let mut observed = bare();
            prop_assert!(settle(&settings(Mode::Auto), &peers(&first), &mut observed).is_none());
            // Somebody takes a part away.
            let mut index = 0;
            let mut survives = || { index += 1; index % 12 != lost };
            observed.routes.retain(|_| survives());
            observed.entries.retain(|_| survives());
            if is_down {
                observed.devices.iter_mut().for_each(|link| link.up = false);
            }
            prop_assert!(settle(&settings(mode), &peers(&then), &mut observed).is_none());
            let mut fresh = bare();
            prop_assert!(settle(&settings(mode), &peers(&then), &mut fresh).is_none());
            let counts = |it: &Observed| (it.devices.len(), it.routes.len(), it.entries.len());
            prop_assert_eq!(counts(&observed), counts(&fresh));
            prop_assert!(observed.devices.iter().all(|link| link.up));
        }
    }
}
