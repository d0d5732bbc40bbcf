//! `ingressPolicy`: who may begin to talk to the pods of a network. Answers always pass.
//!
//! | word | may begin |
//! |---|---|
//! | `open` | everybody |
//! | `same-bridge` | pods on the same bridge, the host, and whoever uses a port of the host that leads to the pod |
//! | `isolated` | as `same-bridge`, but no pod on the same bridge |
//!
//! The reference's `same-bridge` turns away only what comes from another bridge that has the same policy: pods of an
//! open network, other nodes and the outside still reach its pods by their addresses. Here the word means what it says.
//! Pods of other nodes are turned away too, so a cluster's network is `open`.
//!
//! ```text
//! table inet berth-<network>-ingress {
//!     chain forward { type filter hook forward priority 0
//!         ct state established,related accept
//!         ct status dnat accept                     # a port of the host
//!         oifname berth0 iifname != berth0 drop     # isolated: oifname berth0 drop
//!     }
//! }
//! table bridge berth-<network>-ingress {            # isolated: what stays on the bridge is not forwarded by IP
//!     chain prerouting { type filter hook prerouting priority -300
//!         ether type ip ip daddr 10.0.0.1 return    # the gateway is the host
//!         ether type ip ip saddr 10.0.0.0/24 ip daddr 10.0.0.0/24 drop
//!     }
//!     chain forward { type filter hook forward priority 0
//!         ether type ip ip saddr != 10.0.0.0/24 ip daddr 10.0.0.0/24 drop
//!         ether type ip6 ip6 daddr fe80::/10 drop
//!     }
//! }
//! ```
//!
//! Two chains on the bridge, because with `bridge-nf-call-iptables` a packet for a port of the host is translated between
//! them and goes on to the neighbour as a frame: in `forward` it can no longer be told from one that was sent straight
//! there, and a bridge's table knows connections only where the kernel has `nf_conntrack_bridge`. Broadcasts, multicasts
//! and what is not IP still reach neighbours. Where the subnets are those of a plugin of another program, the table has
//! those of the attachment that came last.

use std::net::{IpAddr, Ipv6Addr};

use berth_sys::nft::Nft;
use berth_sys::nft::rule::{
    Expr, Rule, Verdict, comes_in_elsewhere, connection_goes_on, destination_bits_in, destination_translated,
    frame_version_is, leaves_by, source_bits_elsewhere, source_bits_in,
};
use berth_sys::nft::table::{Base, ChainKind, Family, Hook};
use ipnetwork::{IpNetwork, Ipv6Network};

use crate::Error;
use crate::builtin::masquerade::ending;
use crate::builtin::own_table::{self, OwnTable};
use crate::spec::fields::Fields;

const FORWARD: &str = "forward";
const PREROUTING: &str = "prerouting";
/// Where nft places filters.
const PRIORITY: i32 = 0;
/// Before `br_netfilter` translates (`NF_BR_PRI_BRNF`, 0).
const PRIORITY_BRIDGED: i32 = -300;
/// Where addresses of one link are (RFC 4291).
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
const LINK_LOCAL_PREFIX: u8 = 10;
/// The families of our tables.
const FAMILIES: [Family; 2] = [Family::Inet, Family::Bridge];

/// Who may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Open,
    SameBridge,
    Isolated,
}

impl Policy {
    pub(super) fn parse(fields: &Fields<'_>) -> Result<Self, Error> {
        match fields.text("ingressPolicy")? {
            None | Some("open") => Ok(Self::Open),
            Some("same-bridge") => Ok(Self::SameBridge),
            Some("isolated") => Ok(Self::Isolated),
            Some(other) => {
                let problem = format!("{other:?} is not known; use \"open\", \"same-bridge\" or \"isolated\"");
                Err(fields.error("ingressPolicy", problem))
            }
        }
    }

    /// The tables that it needs, for pods of these subnets on a bridge that has these addresses.
    pub(super) fn tables(
        self,
        network: &str,
        bridge: &str,
        subnets: &[IpNetwork],
        gateways: &[IpAddr],
    ) -> Vec<OwnTable> {
        let mut tables = Vec::new();
        if self != Self::Open {
            let chain = (FORWARD, Some(base(Hook::Forward, PRIORITY)));
            let rules = self.routed(bridge).into_iter().map(|rule| (FORWARD, rule)).collect();
            tables.push(OwnTable {
                family: Family::Inet,
                name: name(network),
                chains: vec![chain],
                maps: vec![],
                rules,
            });
        }
        if self == Self::Isolated {
            let chains = vec![
                (PREROUTING, Some(base(Hook::PreRouting, PRIORITY_BRIDGED))),
                (FORWARD, Some(base(Hook::Forward, PRIORITY))),
            ];
            let rules = bridged(subnets, gateways);
            tables.push(OwnTable { family: Family::Bridge, name: name(network), chains, maps: vec![], rules });
        }
        tables
    }

    fn routed(self, bridge: &str) -> Vec<Rule> {
        let accept = || Expr::Verdict(Verdict::Accept);
        let mut to_pods = leaves_by(bridge).to_vec();
        if self == Self::SameBridge {
            to_pods.extend(comes_in_elsewhere(bridge));
        }
        vec![
            ending(connection_goes_on().to_vec(), accept(), "answers"),
            ending(destination_translated().to_vec(), accept(), "by a port of the host"),
            ending(to_pods, Expr::Verdict(Verdict::Drop), "nobody else begins"),
        ]
    }
}

/// Removes the tables of a network but these.
pub(super) fn remove_others(nft: &mut Nft, network: &str, stay: &[OwnTable]) -> Result<(), Error> {
    let mut outcome = Ok(());
    for family in FAMILIES {
        if stay.iter().all(|table| table.family != family) {
            outcome = outcome.and(own_table::remove_of(nft, family, &name(network)));
        }
    }
    outcome
}

fn name(network: &str) -> String {
    format!("{}-ingress", own_table::table_name(network))
}

fn base(hook: Hook, priority: i32) -> Base {
    Base { kind: ChainKind::Filter, hook, priority }
}

/// The rules for frames from one port of the bridge to another.
fn bridged(subnets: &[IpNetwork], gateways: &[IpAddr]) -> Vec<(&'static str, Rule)> {
    let frame = |address: &IpAddr, parts: &[&[Expr]], verdict, comment| {
        let mut exprs = frame_version_is(address).to_vec();
        parts.iter().for_each(|part| exprs.extend_from_slice(part));
        ending(exprs, Expr::Verdict(verdict), comment)
    };
    let mut rules = Vec::new();
    for gateway in gateways {
        let to = destination_bits_in(IpNetwork::from(*gateway));
        rules.push((PREROUTING, frame(gateway, &[&to], Verdict::Return, "to the host")));
    }
    for subnet in subnets {
        let (from, to) = (source_bits_in(*subnet), destination_bits_in(*subnet));
        rules.push((PREROUTING, frame(&subnet.ip(), &[&from, &to], Verdict::Drop, "not from a neighbour")));
        let from = source_bits_elsewhere(*subnet);
        rules.push((FORWARD, frame(&subnet.ip(), &[&from, &to], Verdict::Drop, "nor under a false name")));
    }
    if let Ok(local) = Ipv6Network::new(LINK_LOCAL, LINK_LOCAL_PREFIX).map(IpNetwork::V6) {
        let to = destination_bits_in(local);
        rules.push((FORWARD, frame(&local.ip(), &[&to], Verdict::Drop, "nor by addresses of the link")));
    }
    rules
}
