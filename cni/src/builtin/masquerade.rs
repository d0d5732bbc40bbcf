//! Translation of pods' addresses on the way to the outside, in an nft table of the network's own:
//!
//! ```text
//! table inet berth-<network> {
//!     chain postrouting { type nat hook postrouting priority 100
//!         ip daddr 10.0.0.0/24 return          # stays among the pods, of other nodes too if they are told
//!         ip daddr 224.0.0.0/4 return          # multicast
//!         ip saddr 10.0.0.0/24 masquerade      # to the outside
//!     }
//! }
//! ```

use berth_sys::nft::rule::{Expr, Rule, Verdict, destination_in, source_in};
use berth_sys::nft::table::{Base, ChainKind, Family, Hook};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::own_table::{OwnTable, table_name};

const CHAIN: &str = "postrouting";
/// Where nft places translation of sources.
const PRIORITY: i32 = 100;

/// The table that masquerades these subnets, but not on the way to `inside`: other nodes' pods.
pub(crate) fn table(network: &str, subnets: &[IpNetwork], inside: &[IpNetwork]) -> OwnTable {
    let base = Base { kind: ChainKind::Nat, hook: Hook::PostRouting, priority: PRIORITY };
    OwnTable {
        family: Family::Inet,
        name: table_name(network),
        chains: vec![(CHAIN, Some(base))],
        maps: vec![],
        rules: rules(subnets, inside).into_iter().map(|rule| (CHAIN, rule)).collect(),
    }
}

fn rules(subnets: &[IpNetwork], inside: &[IpNetwork]) -> Vec<Rule> {
    let stays =
        subnets.iter().chain(inside).map(|subnet| ending(destination_in(*subnet), returning(), "stays among the pods"));
    let multicast = [
        Ipv4Network::new([224, 0, 0, 0].into(), 4).map(IpNetwork::V4),
        Ipv6Network::new([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8).map(IpNetwork::V6),
    ];
    let multicast = multicast.into_iter().flatten().map(|all| ending(destination_in(all), returning(), "multicast"));
    let leaves = subnets.iter().map(|subnet| ending(source_in(*subnet), Expr::Masquerade, "to the outside"));
    stays.chain(multicast).chain(leaves).collect()
}

fn returning() -> Expr {
    Expr::Verdict(Verdict::Return)
}

/// A rule that does something with the packets that match.
pub(super) fn ending(mut exprs: Vec<Expr>, end: Expr, comment: &'static str) -> Rule {
    exprs.push(end);
    Rule { exprs, comment: comment.into() }
}
