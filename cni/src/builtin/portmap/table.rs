//! The table around the maps:
//!
//! ```text
//! table inet berth-<network>-ports {
//!     map any4 { proto . port : pod address . pod port }           # every address of the host
//!     map one4 { host address . proto . port : … }                 # one address of the host (hostIP)
//!     map any6, map one6
//!     chain prerouting, chain output   → chain ports → dnat by the maps, if the destination is the host itself
//!     chain postrouting                → a pod that reaches itself or a neighbour through the host is masqueraded
//!     chain guard                      → 127.0.0.0/8 is not for what comes in over the bridge
//! }
//! ```
//!
//! From where a port is reached: from outside, from other pods, from the pod itself, and from the node by each of its
//! addresses and by 127.0.0.1 (`route_localnet`). Not by `::1`: for IPv6 the kernel has no such setting, and drops the
//! answers on their way back to `::1` whatever they are translated to. So `::1` is left alone: what listens there on the
//! node is reached as before, and where nothing does the refusal comes at once, after which programs try 127.0.0.1.

use std::net::{IpAddr, Ipv6Addr};

use berth_sys::nft::rule::{
    Base as Header, Expr, Meta, Register, Rule, Verdict, comes_in_by, destination_in, destination_local,
    destination_translated, source_in, version_is,
};
use berth_sys::nft::set::Field;
use berth_sys::nft::table::{Base, ChainKind, Family, Hook};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::Portmap;
use crate::Error;
use crate::builtin::masquerade::ending;
use crate::builtin::own_table::{self, OwnTable};
use crate::host::Host;
use crate::site::Site;
use crate::spec::result::AddResult;

/// The maps, at the places that [`map_of`] tells.
pub(super) const MAPS: [&str; 4] = ["any4", "one4", "any6", "one6"];
/// Before the kernel looks a connection up, so that only what a packet said itself is seen.
const PRIORITY_GUARD: i32 = -300;
const PRIORITY_DESTINATION: i32 = -100;
/// Before the masquerade of the whole network.
const PRIORITY_SOURCE: i32 = 99;

/// The name of a network's table.
pub(super) fn table_name(network: &str) -> String {
    format!("{}-ports", own_table::table_name(network))
}

/// The place in [`MAPS`] of the map for a pod's address, and for one address of the host or all of them.
pub(super) fn map_of(pod: &IpAddr, one: bool) -> usize {
    usize::from(pod.is_ipv6()) * 2 + usize::from(one)
}

impl Portmap {
    /// The table as it should be. `result` tells the subnets where the configuration does not.
    pub(super) fn own_table(
        &self,
        site: Site<'_>,
        result: &AddResult,
        bridge: Option<&str>,
    ) -> Result<OwnTable, Error> {
        let learns = self.subnets.is_empty();
        let subnets = if learns { Host::new(site).learn(&result.subnets())? } else { self.subnets.clone() };
        let base = |kind, hook, priority| Some(Base { kind, hook, priority });
        Ok(OwnTable {
            family: Family::Inet,
            name: table_name(site.network),
            chains: vec![
                ("ports", None),
                ("prerouting", base(ChainKind::Nat, Hook::PreRouting, PRIORITY_DESTINATION)),
                ("output", base(ChainKind::Nat, Hook::Output, PRIORITY_DESTINATION)),
                ("postrouting", base(ChainKind::Nat, Hook::PostRouting, PRIORITY_SOURCE)),
                ("guard", base(ChainKind::Filter, Hook::PreRouting, PRIORITY_GUARD)),
            ],
            maps: MAPS.iter().map(|map| types(map)).collect(),
            rules: self.rules(&subnets, bridge),
        })
    }

    fn rules(&self, subnets: &[IpNetwork], bridge: Option<&str>) -> Vec<(&'static str, Rule)> {
        let jump = || Expr::Verdict(Verdict::Jump("ports".to_owned()));
        let local = || destination_local().to_vec();
        let mut rules = vec![("prerouting", ending(local(), jump(), "for the host"))];
        if let Ok(own) = Ipv6Network::new(Ipv6Addr::LOCALHOST, 128).map(IpNetwork::V6) {
            let end = Expr::Verdict(Verdict::Return);
            rules.push(("output", ending(destination_in(own), end, "no answer would come back to ::1")));
        }
        rules.push(("output", ending(local(), jump(), "from the host to itself")));
        // One address of the host goes before all of them.
        rules.extend(["one4", "any4", "one6", "any6"].map(|map| ("ports", translate(map))));
        let loopback = Ipv4Network::new([127, 0, 0, 0].into(), 8).map(IpNetwork::V4).ok();
        if self.masquerade {
            for subnet in subnets {
                let mut exprs = destination_translated().to_vec();
                exprs.extend(source_in(*subnet));
                exprs.extend(destination_in(*subnet));
                rules.push(("postrouting", ending(exprs, Expr::Masquerade, "to a neighbour through the host")));
            }
            if let Some(loopback) = loopback {
                let mut exprs = destination_translated().to_vec();
                exprs.extend(source_in(loopback));
                rules.push(("postrouting", ending(exprs, Expr::Masquerade, "from the host's loopback")));
            }
        }
        if let (Some(bridge), Some(loopback)) = (bridge, loopback) {
            let mut exprs = comes_in_by(bridge).to_vec();
            exprs.extend(destination_in(loopback));
            rules.push(("guard", ending(exprs, Expr::Verdict(Verdict::Drop), "pods do not reach the host's loopback")));
        }
        rules
    }
}

/// A map with the types of its keys and values.
fn types(map: &'static str) -> (&'static str, Vec<Field>, Vec<Field>) {
    let address = if map.ends_with('4') { Field::Ipv4 } else { Field::Ipv6 };
    let mut key = vec![Field::Protocol, Field::Port];
    if map.starts_with("one") {
        key.insert(0, address);
    }
    (map, key, vec![address, Field::Port])
}

/// The rule that looks a packet up in a map and sends it where the map says.
fn translate(map: &'static str) -> Rule {
    let v4 = map.ends_with('4');
    let (any, offset, length) = if v4 { (IpAddr::from([0; 4]), 16, 4) } else { (IpAddr::from([0; 16]), 24, 16) };
    let mut exprs = version_is(&any).to_vec();
    let mut register = 0;
    if map.starts_with("one") {
        exprs.push(Expr::Payload(Header::Network, offset, length, Register(0)));
        register = (length / 4) as u8;
    }
    exprs.push(Expr::Meta(Meta::Protocol, Register(register)));
    exprs.push(Expr::Payload(Header::Transport, 2, 2, Register(register + 1)));
    exprs.push(Expr::Map(map.to_owned(), Register(0), Register(0)));
    let family = if v4 { Family::Ip } else { Family::Ip6 };
    let port = Register((length / 4) as u8);
    ending(exprs, Expr::Dnat { family, address: Register(0), port }, "to the pod")
}
