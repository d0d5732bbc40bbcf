//! Three hosts and the ways between their pods, on one link and through a router. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;

use berth_cni::nodes::{Mode, Nodes, PROTOCOL, Peer, Settings};
use berth_cni::{Dirs, Network};
use berth_sys::netlink::Changes;
use berth_sys::netlink::link::{NewBridge, NewVeth};
use berth_sys::netlink::neighbour::Table;
use harness::{Host, Netns, Pod, eventually, join, talk, transfer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

/// A host with its number, from 1 on, and a pod.
struct Node {
    host: Host,
    number: usize,
    addresses: Vec<IpAddr>,
    network: Network,
    pod: Pod,
    nodes: Option<Nodes>,
    /// Where its first interface leads: the machine that runs the virtual ones.
    _vagrant: Netns,
}

/// Runs ip(8) in a namespace: the person who breaks things.
fn ip(netns: &Netns, words: &str) {
    let output = netns.run(|| Command::new("ip").args(words.split_whitespace()).output()).unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Node {
    /// `network` tells the networks of its second interface, without the last part: `192.0.2`, `2001:db8`.
    fn new(number: usize, [v4, v6]: [&str; 2]) -> Self {
        let (host, vagrant) = (Host::new(), Netns::new());
        // The same on every machine, and the default route with it.
        join(&host.netns, "eth0", &["10.0.2.15/24"], &vagrant, "eth0", &["10.0.2.2/24"]);
        ip(&host.netns, "route add default via 10.0.2.2");
        let addresses = vec![format!("{v4}.1{number}").parse().unwrap(), format!("{v6}::1{number}").parse().unwrap()];
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "berth0",
            "isDefaultGateway": true, "ipMasq": true, "nonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/8"],
            "ipam": {"type": "host-local", "ranges": [
                [{"subnet": format!("10.{number}.0.0/24")}], [{"subnet": format!("fd00:{number}::/64")}]]}}]});
        let dirs = Dirs { state: host.state.path().to_owned(), bin: vec![] };
        let network = Network::parse(list.to_string().as_bytes(), dirs).unwrap();
        let pod = host.pod(&network, "pod");
        Self { host, number, addresses, network, pod, nodes: None, _vagrant: vagrant }
    }

    fn settings(&self, mode: Mode) -> Settings {
        let number = self.number;
        let sources = vec![format!("10.{number}.0.1").parse().unwrap(), format!("fd00:{number}::1").parse().unwrap()];
        Settings { sources, mode, ..Settings::new(self.addresses.clone()) }
    }

    fn peer(&self) -> Peer {
        let number = self.number;
        let ranges =
            vec![format!("10.{number}.0.0/24").parse().unwrap(), format!("fd00:{number}::/64").parse().unwrap()];
        Peer { name: format!("node{number}"), addresses: self.addresses.clone(), ranges }
    }

    fn begin(&mut self, mode: Mode, peers: Vec<Peer>) {
        let settings = self.settings(mode);
        let nodes = self.host.netns.run(|| {
            let mut nodes = Nodes::new(settings).unwrap();
            nodes.set_peers(peers).unwrap();
            nodes
        });
        self.nodes = Some(nodes);
    }

    fn with<T: Send>(&mut self, work: impl FnOnce(&mut Nodes) -> T + Send) -> T {
        let nodes = self.nodes.as_mut().unwrap();
        self.host.netns.run(|| work(nodes))
    }

    /// Lets it see what happened, and repair it, until nothing more happens and all is well.
    fn repair(&mut self) {
        let mut outcome = Err("nothing has happened".to_owned());
        for _ in 0..200 {
            let happened = self.with(|nodes| {
                let mut ready = [PollFd::new(nodes.as_fd(), PollFlags::POLLIN)];
                poll(&mut ready, PollTimeout::from(300u16)).unwrap()
            });
            if happened == 0 && outcome.is_ok() {
                return;
            }
            outcome = self.with(|nodes| nodes.handle_events()).map_err(|error| error.to_string());
        }
        panic!("it is not repaired: {outcome:?}");
    }

    /// Our routes, neighbours and entries of forwarding, and how many devices there are.
    fn counts(&self) -> [usize; 4] {
        let mut route = self.host.netns.route();
        let routes = route.owned_routes().unwrap().iter().filter(|route| route.protocol == PROTOCOL).count();
        let devices = route.links_of("vxlan").unwrap();
        let mut count = |table| devices.iter().map(|link| route.neighbours(table, link.index).unwrap().len()).sum();
        [routes, count(Table::Neighbours), count(Table::Forwarding), devices.len()]
    }
}

fn begin(nodes: &mut [Node], mode: Mode) {
    let peers: Vec<Peer> = nodes.iter().map(Node::peer).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        let mut others = peers.clone();
        others.remove(index);
        node.begin(mode, others);
    }
}

/// Three hosts on one bridge, in a namespace of its own.
fn on_one_link(mode: Mode) -> ([Node; 3], Netns) {
    let switch = Netns::new();
    let mut route = switch.route();
    let mut changes = Changes::new();
    changes.create_bridge(&NewBridge { name: "switch", mac: None, mtu: None });
    route.apply(changes).unwrap();
    let bridge = route.link("switch").unwrap().unwrap().index;
    let mut nodes = [1, 2, 3].map(|number| {
        let node = Node::new(number, ["192.0.2", "2001:db8"]);
        let name = format!("port{number}");
        let (peer_name, peer_netns) = ("eth1", node.host.netns.fd.as_fd());
        let mut changes = Changes::new();
        let veth = NewVeth {
            name: &name,
            mac: None,
            group: 0,
            master: Some(bridge),
            mtu: None,
            peer_name,
            peer_mac: None,
            peer_netns,
        };
        changes.create_veth(&veth);
        route.apply(changes).unwrap();
        plug(&node);
        node
    });
    begin(&mut nodes, mode);
    (nodes, switch)
}

/// Gives the second interface its addresses.
fn plug(node: &Node) {
    ip(&node.host.netns, &format!("addr add {}/24 dev eth1", node.addresses[0]));
    ip(&node.host.netns, &format!("addr add {}/64 dev eth1 nodad", node.addresses[1]));
    ip(&node.host.netns, "link set eth1 up");
}

/// Three hosts, each on a link of its own to a router that knows nothing of pods.
fn behind_a_router() -> ([Node; 3], Netns) {
    let router = Netns::new();
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        router.run(|| std::fs::write(format!("/proc/sys/net/{setting}"), "1")).unwrap();
    }
    let mut nodes = [1, 2, 3].map(|number| {
        let (v4, v6) = (format!("198.51.{number}"), format!("2001:db8:{number}"));
        let node = Node::new(number, [&v4, &v6]);
        let name = format!("port{number}");
        join(&node.host.netns, "eth1", &[], &router, &name, &[&format!("{v4}.1/24")]);
        ip(&router, &format!("addr add {v6}::1/64 dev {name} nodad"));
        plug(&node);
        ip(&node.host.netns, &format!("route add 198.51.0.0/16 via {v4}.1"));
        ip(&node.host.netns, &format!("route add 2001:db8::/32 via {v6}::1"));
        node
    });
    begin(&mut nodes, Mode::Auto);
    (nodes, router)
}

/// Every pod reaches every other and is seen as itself, over both versions, with packets as large as they get; every
/// host reaches every pod.
fn all_reach_all(nodes: &[Node]) {
    for from in nodes {
        for to in nodes.iter().filter(|to| to.number != from.number) {
            for version in [0, 1] {
                let target = SocketAddr::new(to.pod.ip(version), 8000);
                let seen = eventually(|| talk(&from.pod.netns, target, &to.pod.netns, target));
                assert_eq!(seen, from.pod.ip(version), "{} to {target}", from.number);
                transfer(&from.pod.netns, &to.pod.netns, target, 200_000);
                eventually(|| talk(&from.host.netns, target, &to.pod.netns, target));
            }
        }
    }
}

#[test]
fn pods_of_nodes_on_one_link_reach_each_other_straight() {
    let (nodes, _switch) = on_one_link(Mode::Auto);
    all_reach_all(&nodes);
    assert_eq!(nodes[0].counts(), [4, 0, 0, 0], "two routes to each of the others, and no tunnel");
}

#[test]
fn pods_of_nodes_behind_a_router_reach_each_other_by_vxlan() {
    let (nodes, _router) = behind_a_router();
    all_reach_all(&nodes);
    assert_eq!(nodes[0].counts(), [4, 4, 4, 2]);
    let device = nodes[0].host.netns.route().link("berthvx4").unwrap().unwrap();
    assert_eq!(device.mtu, 1450);
}

#[test]
fn a_tunnel_can_be_wanted_on_one_link_too() {
    let (nodes, _switch) = on_one_link(Mode::Overlay);
    all_reach_all(&nodes);
    assert_eq!(nodes[0].counts(), [4, 4, 4, 2]);
}

#[test]
fn what_is_lost_is_made_again() {
    let (mut nodes, _router) = behind_a_router();
    let whole = nodes[0].counts();
    for harm in [
        "route del 10.2.0.0/24",
        "-6 route flush proto 183",
        "neigh flush dev berthvx4 nud permanent",
        "link del berthvx4",
        "link set berthvx6 down",
        "link set berthvx4 mtu 1400",
    ] {
        ip(&nodes[0].host.netns, harm);
        nodes[0].repair();
        assert_eq!(nodes[0].counts(), whole, "after {harm}");
    }
    let forget = || {
        Command::new("sh")
            .args([
                "-c",
                "bridge fdb show dev berthvx4 | sed 's/self.*//; s/^/fdb del /; s/$/ dev berthvx4/' | bridge -batch -",
            ])
            .status()
    };
    assert!(nodes[0].host.netns.run(forget).unwrap().success());
    nodes[0].repair();
    assert_eq!(nodes[0].counts(), whole, "after all of forwarding was deleted");
    all_reach_all(&nodes);
}

#[test]
fn a_link_that_flaps_gets_its_routes_again() {
    let (mut nodes, _switch) = on_one_link(Mode::Auto);
    let netns = &nodes[0].host.netns;
    ip(netns, "link set eth1 down");
    ip(netns, "link set eth1 up");
    // The kernel takes addresses of version 6 away with the link; whoever configures the link gives them back.
    ip(netns, &format!("addr add {}/64 dev eth1 nodad", nodes[0].addresses[1]));
    nodes[0].repair();
    assert_eq!(nodes[0].counts(), [4, 0, 0, 0]);
    all_reach_all(&nodes);
}

#[test]
fn a_node_that_leaves_takes_its_ways_along_also_past_a_restart() {
    let (mut nodes, _router) = behind_a_router();
    let (second, third) = (nodes[1].peer(), nodes[2].peer());
    nodes[0].with(|kept| kept.set_peers(vec![third.clone()])).unwrap();
    assert_eq!(nodes[0].counts(), [2, 2, 2, 2]);
    // The process ends, a node leaves and one comes, the process begins.
    nodes[0].nodes = None;
    nodes[0].begin(Mode::Auto, vec![second]);
    assert_eq!(nodes[0].counts(), [2, 2, 2, 2]);
    let target = SocketAddr::new(nodes[1].pod.ip(0), 8000);
    eventually(|| talk(&nodes[0].pod.netns, target, &nodes[1].pod.netns, target));
    nodes[0].with(Nodes::remove).unwrap();
    assert_eq!(nodes[0].counts(), [0; 4]);
}

#[test]
fn routes_of_others_are_left_alone() {
    let (mut nodes, _switch) = on_one_link(Mode::Auto);
    nodes[0].with(Nodes::remove).unwrap();
    let netns = &nodes[0].host.netns;
    ip(netns, "route add 10.2.0.0/24 via 192.0.2.13");
    ip(netns, "route add 172.16.0.0/12 via 192.0.2.13 proto 99");
    let show = |netns: &Netns| netns.run(|| Command::new("ip").args(["route", "show"]).output()).unwrap().stdout;
    let before = show(netns);
    let peers = vec![nodes[1].peer(), nodes[2].peer()];
    let error = nodes[0].with(|kept| kept.set_peers(peers)).unwrap_err().to_string();
    assert!(error.contains("10.2.0.0/24") && error.contains("somebody else"), "{error}");
    assert_eq!(nodes[0].counts(), [3, 0, 0, 0], "all else is there");
    nodes[0].with(Nodes::remove).unwrap();
    assert_eq!(String::from_utf8(show(&nodes[0].host.netns)).unwrap(), String::from_utf8(before).unwrap());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |change: fn(&mut Settings)| {
        let mut settings = Settings::new(vec!["192.0.2.1".parse().unwrap()]);
        change(&mut settings);
        Nodes::new(settings).unwrap_err().to_string()
    };
    assert!(refused(|settings| settings.addresses.clear()).contains("nodes: addresses"));
    assert!(refused(|settings| settings.vni = 1 << 24).contains("nodes: vni"));
    let network = on_one_link(Mode::Direct).0.map(|node| node.network.name().to_owned());
    assert_eq!(network, ["pods"; 3]);
}
