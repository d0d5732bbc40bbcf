//! Gives each node a network for its pods, cut from the cluster's. Once given it stays.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::action::{Action, Plan};
use super::observe::World;

/// Prefix of a node's network: 254 pods, or 2^64.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;
/// How many networks are looked through for a free one.
const NETWORKS_MAX: u128 = 65536;

pub(super) fn plan(world: &World, cluster: IpNetwork) -> Plan {
    let mut taken: BTreeSet<IpNetwork> = world.nodes.iter().filter_map(|node| network(node)).collect();
    taken.extend(world.assumed_networks.values());
    let mut plan = Plan::default();
    let waiting = world.nodes.iter().filter(|node| network(node).is_none());
    for node in waiting.filter(|node| !world.assumed_networks.contains_key(&node.name_any())) {
        // With none left the node waits; one becomes free when a node goes.
        let Some(free) = networks(cluster).find(|network| !taken.iter().any(|other| overlap(*other, *network))) else {
            break;
        };
        taken.insert(free);
        plan.actions.push(Action::GiveNetwork { node: node.name_any(), network: free });
    }
    plan
}

fn network(node: &Node) -> Option<IpNetwork> {
    node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// The networks of nodes within that of the cluster, in order.
fn networks(cluster: IpNetwork) -> Box<dyn Iterator<Item = IpNetwork>> {
    match cluster {
        IpNetwork::V4(cluster) => {
            let prefix = cluster.prefix().max(NODE_PREFIX_V4);
            let count = 1_u128 << (prefix - cluster.prefix());
            let first = u32::from(cluster.network());
            let step = move |n: u128| {
                let offset = u32::try_from(n << (32 - prefix)).ok()?;
                IpNetwork::new(std::net::Ipv4Addr::from(first.checked_add(offset)?).into(), prefix).ok()
            };
            Box::new((0..count.min(NETWORKS_MAX)).filter_map(step))
        }
        IpNetwork::V6(cluster) => {
            let prefix = cluster.prefix().max(NODE_PREFIX_V6);
            let count = 1_u128.checked_shl(u32::from(prefix - cluster.prefix())).unwrap_or(u128::MAX);
            let first = u128::from(cluster.network());
            let step = move |n: u128| {
                let offset = n.checked_shl(128 - u32::from(prefix))?;
                IpNetwork::new(std::net::Ipv6Addr::from(first.checked_add(offset)?).into(), prefix).ok()
            };
            Box::new((0..count.min(NETWORKS_MAX)).filter_map(step))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn given(nodes: &[(&str, Option<&str>)], assumed: &[(&str, &str)], cluster: &str) -> Vec<String> {
        let node = |(name, cidr): &(&str, Option<&str>)| {
            let node: Value = json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}});
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let world = World {
            nodes: nodes.iter().map(node).collect(),
            assumed_networks: assumed.iter().map(|(n, c)| ((*n).to_owned(), c.parse().unwrap())).collect(),
            ..World::default()
        };
        let told = |action: Action| match action {
            Action::GiveNetwork { node, network } => format!("{node} {network}"),
            other => panic!("{other:?}"),
        };
        plan(&world, cluster.parse().unwrap()).actions.into_iter().map(told).collect()
    }

    #[test]
    fn each_node_gets_its_own_network() {
        let nodes = [("a", None), ("b", Some("10.0.0.0/24")), ("c", None), ("d", Some("10.0.2.0/24"))];
        assert_eq!(given(&nodes, &[], "10.0.0.0/16"), ["a 10.0.1.0/24", "c 10.0.3.0/24"]);
    }

    #[test]
    fn what_was_given_is_not_given_again_before_the_watch_shows_it() {
        let nodes = [("0", None), ("a", None)];
        assert_eq!(given(&nodes, &[("a", "10.0.0.0/24")], "10.0.0.0/16"), ["0 10.0.1.0/24"]);
    }

    #[test]
    fn small_and_new_networks_are_cut_too() {
        assert_eq!(given(&[("a", None), ("b", None)], &[], "10.0.0.0/25"), ["a 10.0.0.0/25"]);
        assert_eq!(given(&[("a", None), ("b", None)], &[], "fd00::/48"), ["a fd00::/64", "b fd00:0:0:1::/64"]);
        assert_eq!(given(&[("a", None)], &[], "::/0"), ["a ::/64"]);
        assert_eq!(given(&[("a", None)], &[], "0.0.0.0/0"), ["a 0.0.0.0/24"]);
    }

    #[test]
    fn a_node_with_a_network_of_another_size_is_respected() {
        assert_eq!(given(&[("a", Some("10.0.0.0/20")), ("b", None)], &[], "10.0.0.0/16"), ["b 10.0.16.0/24"]);
    }
}
