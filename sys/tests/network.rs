//! Links, addresses, routes and nftables, each test in network namespaces of its own. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use berth_sys::conntrack::{Conntrack, Which};
use berth_sys::namespace::{Kind, in_netns, open, pin_new, unpin};
use berth_sys::netlink::link::{Mac, NewBridge, NewVeth};
use berth_sys::netlink::route::Way;
use berth_sys::netlink::{Changes, Route};
use berth_sys::nft::Nft;
use berth_sys::nft::batch::Batch;
use berth_sys::nft::rule::{
    Base as Header, Expr, Meta, Register, Rule, Verdict, comes_in_by, destination_local, source_in,
};
use berth_sys::nft::set::{Element, Field, Set, concat};
use berth_sys::nft::table::{Base, ChainKind, Family, Hook, Table};
use nix::errno::Errno;
use nix::libc;

/// A network namespace that ends with the value.
struct Netns {
    folder: tempfile::TempDir,
    fd: OwnedFd,
}

impl Netns {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        pin_new(&[Kind::Net], folder.path()).expect("tests of the network need root");
        let fd = open(&folder.path().join("net")).unwrap();
        Self { folder, fd }
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(&self.fd, work).unwrap()
    }

    fn route(&self) -> Route {
        self.run(Route::open).unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        unpin(&self.folder.path().join("net")).unwrap();
    }
}

#[test]
fn a_pair_joins_a_bridge_and_a_namespace() {
    let (host, pod) = (Netns::new(), Netns::new());
    let (mut here, mut there) = (host.route(), pod.route());
    let mac = Mac([10, 88, 10, 0, 0, 1]);
    let mut changes = Changes::new();
    changes.create_bridge(&NewBridge { name: "br0", mac: Some(mac), mtu: Some(1400) });
    here.apply(changes).unwrap();
    let bridge = here.link("br0").unwrap().unwrap();
    assert_eq!((bridge.kind.as_str(), bridge.mac, bridge.mtu, bridge.up), ("bridge", Some(mac), 1400, true));

    let peer_mac = Mac([10, 88, 10, 0, 0, 2]);
    let veth = NewVeth {
        name: "veth0",
        mac: None,
        group: 0,
        master: Some(bridge.index),
        mtu: Some(1400),
        peer_name: "eth0",
        peer_mac: Some(peer_mac),
        peer_netns: std::os::fd::AsFd::as_fd(&pod.fd),
    };
    let mut changes = Changes::new();
    changes.create_veth(&veth);
    changes.hairpin("veth0");
    here.apply(changes).unwrap();
    assert!(here.link("veth0").unwrap().unwrap().hairpin);
    let mut again = Changes::new();
    again.create_veth(&veth);
    assert_eq!(here.apply(again).unwrap_err().errno(), Some(Errno::EEXIST));
    assert_eq!(here.ports(bridge.index).unwrap().iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["veth0"]);

    let eth0 = there.link("eth0").unwrap().unwrap();
    assert_eq!((eth0.kind.as_str(), eth0.mac, eth0.mtu, eth0.up), ("veth", Some(peer_mac), 1400, false));
    let way = Way { to: "0.0.0.0/0".parse().unwrap(), via: Some("10.0.0.1".parse().unwrap()), link: eth0.index };
    let way6 = Way { to: "::/0".parse().unwrap(), via: Some("fd00::1".parse().unwrap()), link: eth0.index };
    let mut changes = Changes::new();
    changes.set_up(1);
    changes.add_address(eth0.index, "10.0.0.2/24".parse().unwrap());
    changes.add_address(eth0.index, "fd00::2/64".parse().unwrap());
    changes.set_up(eth0.index);
    changes.add_route(&way);
    changes.add_route(&way6);
    there.apply(changes).unwrap();
    let addresses = there.addresses(eth0.index).unwrap();
    assert!(addresses.contains(&"10.0.0.2/24".parse().unwrap()) && addresses.contains(&"fd00::2/64".parse().unwrap()));
    let routes = there.routes().unwrap();
    assert!(routes.contains(&way) && routes.contains(&way6), "{routes:?}");

    let mut changes = Changes::new();
    changes.delete_route(&way);
    changes.delete_address(eth0.index, "10.0.0.2/24".parse().unwrap());
    there.apply(changes).unwrap();
    assert!(!there.routes().unwrap().contains(&way));
    let mut changes = Changes::new();
    changes.delete_link("veth0");
    here.apply(changes).unwrap();
    assert_eq!(there.link("eth0").unwrap(), None);
}

#[test]
fn a_refusal_says_what_was_asked_for() {
    let host = Netns::new();
    let mut changes = Changes::new();
    changes.delete_link("nothing");
    let error = host.route().apply(changes).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENODEV));
    assert!(error.to_string().starts_with("cannot delete link nothing: "), "{error}");
    assert_eq!(host.route().link("a-name-that-is-too-long").unwrap(), None);
}

#[test]
fn a_batch_is_made_whole_or_not_at_all() {
    let host = Netns::new();
    let mut nft = host.run(Nft::open).unwrap();
    let table = Table { family: Family::Inet, name: "test" };
    assert_eq!(nft.note(table).unwrap(), None);

    let mut batch = skeleton(table);
    batch.add_rule(table, "no-such-chain", &Rule { exprs: vec![], comment: "wrong".into() });
    let error = nft.commit(batch).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    assert!(error.to_string().contains("no-such-chain"), "{error}");
    assert_eq!(nft.note(table).unwrap(), None);

    nft.commit(skeleton(table)).unwrap();
    assert_eq!(nft.note(table).unwrap().as_deref(), Some(&b"v1"[..]));
    // The second time it replaces the first.
    nft.commit(skeleton(table)).unwrap();

    let elements: Vec<_> = (0..2000u16).map(element).collect();
    let mut batch = Batch::new();
    batch.add_elements(table, "ports", &elements);
    nft.commit(batch).unwrap();
    // At once, while the set still grows.
    for _ in 0..20 {
        let mut found = nft.elements(table, "ports").unwrap();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(found, elements);
    }

    let mut batch = Batch::new();
    batch.add_elements(table, "ports", &[element(5000), element(7)]);
    assert_eq!(nft.commit(batch).unwrap_err().errno(), Some(Errno::EEXIST));
    assert_eq!(nft.elements(table, "ports").unwrap().len(), 2000);

    let mut batch = Batch::new();
    batch.delete_elements(table, "ports", &elements[1..]);
    nft.commit(batch).unwrap();
    assert_eq!(nft.elements(table, "ports").unwrap(), elements[..1]);
    let mut batch = Batch::new();
    batch.delete_table(table);
    nft.commit(batch).unwrap();
    assert_eq!(nft.elements(table, "ports").unwrap(), []);
}

fn element(port: u16) -> Element {
    let port = port.to_be_bytes();
    Element {
        key: concat([&[6][..], &port]),
        value: Some(concat([&[10, 0, 0, 1][..], &port])),
        comment: "web".to_owned(),
    }
}

fn skeleton(table: Table<'_>) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.delete_table(table);
    batch.add_table_with_note(table, b"v1");
    let nat = |hook, priority| Some(Base { kind: ChainKind::Nat, hook, priority });
    batch.add_chain(table, "prerouting", nat(Hook::PreRouting, -100));
    batch.add_chain(table, "postrouting", nat(Hook::PostRouting, 100));
    let key = &[Field::Protocol, Field::Port];
    batch.add_set(table, &Set { name: "ports", key, value: Some(&[Field::Ipv4, Field::Port]) });
    let mut exprs = source_in("10.0.0.0/24".parse().unwrap());
    exprs.push(Expr::Masquerade);
    batch.add_rule(table, "postrouting", &Rule { exprs, comment: "to the outside".into() });
    let mut exprs = destination_local().to_vec();
    exprs.extend([
        Expr::Meta(Meta::Protocol, Register(0)),
        Expr::Payload(Header::Transport, 2, 2, Register(1)),
        Expr::Map("ports".into(), Register(0), Register(0)),
        Expr::Dnat { family: Family::Ip, address: Register(0), port: Register(1) },
    ]);
    batch.add_rule(table, "prerouting", &Rule { exprs, comment: "from the outside".into() });
    batch
}

/// Connections that are there beside the ones that are meant.
const OTHERS: u16 = 20_000;

#[test]
fn of_many_connections_only_those_that_are_meant_are_forgotten() {
    let host = Netns::new();
    let mut changes = Changes::new();
    changes.set_up(1);
    host.route().apply(changes).unwrap();
    // With translation the kernel keeps connections.
    let table = Table { family: Family::Inet, name: "test" };
    host.run(Nft::open).unwrap().commit(skeleton(table)).unwrap();
    let socket = host.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    for port in 1..=OTHERS {
        // Nobody listens there: the refusals are those of the datagrams before.
        let _ = socket.send_to(b"?", ("127.0.0.1", port));
    }
    let count = || {
        let text = host.run(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")).unwrap();
        text.trim().parse::<u16>().unwrap()
    };
    let before = count();
    assert!(before >= OTHERS, "{before}");
    let mut conntrack = host.run(Conntrack::open).unwrap();
    let address = "127.0.0.1".parse().unwrap();
    for (which, expected) in [
        (Which::BegunTo { address: "0.0.0.0".parse().unwrap(), port: 5000 }, 1),
        (Which::BegunTo { address, port: 5000 }, 0),
        (Which::BegunTo { address, port: 5001 }, 1),
        (Which::BegunTo { address: "127.0.0.2".parse().unwrap(), port: 5002 }, 0),
        (Which::AnsweredFrom { address, port: 5003 }, 1),
        (Which::BegunTo { address: "::".parse().unwrap(), port: 5004 }, 0),
    ] {
        assert_eq!(conntrack.forget(libc::IPPROTO_UDP as u8, which).unwrap(), expected, "{which:?}");
    }
    assert_eq!(conntrack.forget(libc::IPPROTO_TCP as u8, Which::BegunTo { address, port: 5005 }).unwrap(), 0);
    assert!(count() >= OTHERS - 3);
}

#[test]
fn rules_are_put_into_a_chain_of_others_and_taken_out_again() {
    let host = Netns::new();
    let mut nft = host.run(Nft::open).unwrap();
    let table = Table { family: Family::Ip, name: "filter" };
    assert_eq!(nft.chain(table, "FORWARD").unwrap(), None);
    assert_eq!(nft.rules(table, "FORWARD").unwrap(), []);
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.add_chain(table, "FORWARD", Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0 }));
    batch.add_chain(table, "OURS", None);
    let accept = |comment: &'static str| Rule {
        exprs: comes_in_by("br0").into_iter().chain([Expr::Verdict(Verdict::Accept)]).collect(),
        comment: comment.into(),
    };
    batch.add_rule(table, "FORWARD", &accept("second"));
    batch.insert_rule(table, "FORWARD", &accept("first"));
    nft.commit(batch).unwrap();
    let chain = nft.chain(table, "FORWARD").unwrap().unwrap();
    assert_eq!((chain.hook, chain.drops), (Some(Hook::Forward as u32), false));
    assert_eq!(nft.chain(table, "OURS").unwrap().unwrap().hook, None);
    let rules = nft.rules(table, "FORWARD").unwrap();
    assert_eq!(rules.iter().map(|rule| rule.comment.as_str()).collect::<Vec<_>>(), ["first", "second"]);

    let mut batch = Batch::new();
    batch.delete_rule(table, "FORWARD", &rules[0]);
    batch.delete_chain(table, "OURS");
    nft.commit(batch).unwrap();
    assert_eq!(nft.rules(table, "FORWARD").unwrap(), rules[1..]);
    let mut batch = Batch::new();
    batch.delete_rule(table, "FORWARD", &rules[0]);
    assert_eq!(nft.commit(batch).unwrap_err().errno(), Some(Errno::ENOENT));
}
