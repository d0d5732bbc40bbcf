//! Pods on a host where another tool drops what is forwarded, and pods that not everybody may talk to. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::net::{SocketAddr, SocketAddrV6};
use std::path::PathBuf;

use berth_cni::{Dirs, Network};
use berth_sys::netlink::watch::Watch;
use harness::{Host, Netns, PATIENCE, Pod, attachment, join, nft, pod_with_ports, route, run, talk};
use serde_json::{Value, json};

const RANGES: &[&str] = &["10.77.0.0/24", "fd77::/64"];
/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";
/// As docker leaves the filter, the parts that matter.
const DOCKER: &[&str] = &[
    "-N DOCKER-USER",
    "-N DOCKER",
    "-P FORWARD DROP",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -o docker0 -j DOCKER",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-A DOCKER-USER -j RETURN",
];
/// As somebody writes it by hand.
const BY_HAND: &str = "\
    table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; ct state invalid drop; }; }
    table ip6 filter { chain FORWARD { type filter hook forward priority filter; policy accept; counter drop; }; }
    table inet other { set s { type ipv4_addr; elements = { 192.0.2.77 }; }; }";

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A host at `192.0.2.1` and `2001:db8::1`, and what is outside of it, which knows the way to the pods.
fn site() -> (Host, Netns) {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24", "2001:db8::1/64"], &outside, "up0", &["192.0.2.9/24", "2001:db8::9/64"]);
    for net in ["10.77.0.0/24", "10.78.0.0/24"] {
        route(&outside, net, "192.0.2.1", "up0");
    }
    (host, outside)
}

fn docker(host: &Host) {
    for program in ["iptables-nft", "ip6tables-nft"] {
        DOCKER.iter().for_each(|words| {
            run(&host.netns, program, &words.split(' ').collect::<Vec<_>>());
        });
    }
}

/// A network on a bridge of its own, with a firewall that is configured like this.
fn network(host: &Host, name: &str, bridge: &str, subnet: &str, mut firewall: Value) -> Network {
    firewall["type"] = "firewall".into();
    let list = json!({"cniVersion": "1.1.0", "name": name, "plugins": [
        {"type": "bridge", "bridge": bridge, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        firewall,
    ]});
    Network::parse(list.to_string().as_bytes(), host.dirs()).unwrap()
}

/// All that is not in tables of ours, without handles, and without counters, which count.
fn of_others(host: &Host) -> Vec<Value> {
    let text = nft(&host.netns, &["-j", "-s", "list", "ruleset"]);
    let mut objects: Vec<Value> = serde_json::from_str::<Value>(&text).unwrap()["nftables"].as_array().unwrap().clone();
    for body in objects.iter_mut().flat_map(|object| object.as_object_mut().unwrap().values_mut()) {
        body.as_object_mut().unwrap().remove("handle");
    }
    let is_ours = |object: &Value| {
        object.as_object().unwrap().values().any(|body| {
            let of = if body.get("table").is_some() { &body["table"] } else { &body["name"] };
            of.as_str().is_some_and(|of| of.starts_with("berth-"))
        })
    };
    objects.retain(|object| !is_ours(object));
    objects
}

/// Whether streams get to the outside and, by a port of the host, to the pod.
fn passes(pod: &Pod, outside: &Netns) -> Result<(), String> {
    for (target, by) in [("192.0.2.9", "192.0.2.1"), ("2001:db8::9", "2001:db8::1")] {
        talk(&pod.netns, at(target, 8000), outside, at(target, 8000))?;
        talk(outside, at(by, 8080), &pod.netns, at("::", 80))?;
    }
    Ok(())
}

const PORTS: &str = r#"[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]"#;

#[test]
fn pods_pass_where_docker_drops_and_docker_finds_its_rules_as_they_were() {
    let (host, outside) = site();
    docker(&host);
    let before = of_others(&host);
    let network = host.network(RANGES);
    let pod = pod_with_ports(&host, &network, "web", PORTS);
    let other = host.pod(&network, "other");
    passes(&pod, &outside).unwrap();
    host.netns.run(|| network.check(&pod.attachment)).unwrap();
    // The tool can still work with its table, and sees what stands there.
    let shown = run(&host.netns, "iptables-nft", &["-S"]);
    let ours: Vec<&str> = shown.lines().filter(|line| line.contains("BERTH")).collect();
    assert_eq!(
        ours,
        [
            "-N BERTH-pods",
            "-A FORWARD -m comment --comment \"berth: pods of network pods\" -j BERTH-pods",
            "-A BERTH-pods -i berth0 -m comment --comment \"berth: from pods on berth0\" -j ACCEPT",
            "-A BERTH-pods -o berth0 -m comment --comment \"berth: to pods on berth0\" -j ACCEPT",
        ]
    );
    run(&host.netns, "iptables-nft", &["-C", "FORWARD", "-o", "docker0", "-j", "DOCKER"]);

    host.del(&network, &pod.attachment).unwrap();
    talk(&other.netns, at("192.0.2.9", 8000), &outside, at("192.0.2.9", 8000)).unwrap();
    host.del(&network, &other.attachment).unwrap();
    assert_eq!(of_others(&host), before);
    host.del(&network, &other.attachment).unwrap();
    host.netns.run(|| network.remove()).unwrap();
    assert_eq!(of_others(&host), before);
}

#[test]
fn without_the_plugin_the_drop_holds() {
    let (host, outside) = site();
    docker(&host);
    let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "berth0",
        "isDefaultGateway": true, "ipMasq": true, "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}}]});
    let network = Network::parse(list.to_string().as_bytes(), host.dirs()).unwrap();
    let pod = host.pod(&network, "one");
    talk(&pod.netns, at("192.0.2.9", 8000), &outside, at("192.0.2.9", 8000)).unwrap_err();
}

#[test]
fn a_filter_that_was_written_by_hand_is_passed_too() {
    let (host, outside) = site();
    nft(&host.netns, &[BY_HAND]);
    let before = of_others(&host);
    let network = host.network(RANGES);
    let pod = pod_with_ports(&host, &network, "web", PORTS);
    passes(&pod, &outside).unwrap();
    // Killed before the record was written: GC finds that nobody is left.
    std::fs::remove_file(host.state.path().join("results/pods/web:eth0.json")).unwrap();
    host.netns.run(|| network.gc(&[])).unwrap();
    assert_eq!(of_others(&host), before);
}

#[test]
fn where_nobody_drops_nothing_is_made() {
    let (host, outside) = site();
    let network = host.network(RANGES);
    let pod = pod_with_ports(&host, &network, "web", PORTS);
    assert!(of_others(&host).iter().all(|object| object.get("metainfo").is_some()), "{:?}", of_others(&host));
    nft(&host.netns, &["add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; }"]);
    let before = of_others(&host);
    host.netns.run(|| network.repair()).unwrap();
    assert_eq!(of_others(&host), before);

    // Then somebody begins to drop.
    let mut watches = host.netns.run(Network::watches).unwrap();
    nft(&host.netns, &["add chain ip filter FORWARD { policy drop; }"]);
    assert!(Watch::wait(&watches, PATIENCE).unwrap());
    talk(&pod.netns, at("192.0.2.9", 8000), &outside, at("192.0.2.9", 8000)).unwrap_err();
    host.netns.run(|| network.check(&pod.attachment)).unwrap_err();
    host.netns.run(|| network.repair()).unwrap();
    passes(&pod, &outside).unwrap();
    // Our own changes are told of too; after them there is nothing to do, and nothing is told.
    for watch in &mut watches {
        watch.drain().unwrap();
    }
    host.netns.run(|| network.repair()).unwrap();
    assert!(watches.iter_mut().all(|watch| !watch.drain().unwrap()));
}

#[test]
fn what_another_tool_flushed_is_put_back_once() {
    let (host, outside) = site();
    docker(&host);
    let before = of_others(&host);
    let network = host.network(RANGES);
    let pod = pod_with_ports(&host, &network, "web", PORTS);
    let with_ours = of_others(&host);
    for harm in [
        &["iptables-nft -F BERTH-pods"][..],
        &["iptables-nft -D FORWARD 1"],
        &["iptables-nft -D FORWARD 1", "iptables-nft -F BERTH-pods", "iptables-nft -X BERTH-pods"],
        &["nft flush chain ip6 filter BERTH-pods"],
        &["nft delete table inet berth-pods", "nft delete table inet berth-pods-ports"],
    ] {
        for words in harm {
            let words: Vec<&str> = words.split(' ').collect();
            run(&host.netns, words[0], &words[1..]);
        }
        host.netns.run(|| network.check(&pod.attachment)).unwrap_err();
        host.netns.run(|| network.repair()).unwrap();
        host.netns.run(|| network.repair()).unwrap();
        host.netns.run(|| network.check(&pod.attachment)).unwrap();
        let sorted = |mut objects: Vec<Value>| {
            objects.sort_by_key(Value::to_string);
            objects
        };
        assert_eq!(sorted(of_others(&host)), sorted(with_ours.clone()), "after {harm:?}");
    }
    passes(&pod, &outside).unwrap();
    // The reload of a firewall: everything goes, and the other tool makes its own table anew.
    nft(&host.netns, &["flush ruleset"]);
    docker(&host);
    host.netns.run(|| network.repair()).unwrap();
    passes(&pod, &outside).unwrap();
    host.del(&network, &pod.attachment).unwrap();
    assert_eq!(of_others(&host), before);
}

#[test]
fn rules_of_the_administrator_go_first_and_stay() {
    let (host, outside) = site();
    docker(&host);
    run(&host.netns, "iptables-nft", &["-N", "CNI-ADMIN"]);
    run(&host.netns, "iptables-nft", &["-A", "CNI-ADMIN", "-p", "tcp", "--dport", "8001", "-j", "DROP"]);
    let before = of_others(&host);
    let network = host.network(&["10.77.0.0/24"]);
    let pod = host.pod(&network, "one");
    talk(&pod.netns, at("192.0.2.9", 8000), &outside, at("192.0.2.9", 8000)).unwrap();
    talk(&pod.netns, at("192.0.2.9", 8001), &outside, at("192.0.2.9", 8001)).unwrap_err();
    host.del(&network, &pod.attachment).unwrap();
    assert_eq!(of_others(&host), before);
}

#[test]
fn two_networks_pass_and_go_one_by_one_while_others_work_on_the_same_table() {
    let (host, outside) = site();
    docker(&host);
    let before = of_others(&host);
    let one = network(&host, "one", "br1", "10.77.0.0/24", json!({}));
    let two = network(&host, "a-network-whose-name-is-longer-than-any-chain", "br2", "10.78.0.0/24", json!({}));
    let stays = host.pod(&two, "stays");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for port in 1..30 {
                let port = port.to_string();
                let rule = |verb| {
                    run(&host.netns, "iptables-nft", &[verb, "FORWARD", "-p", "tcp", "--dport", &port, "-j", "DROP"])
                };
                rule("-A");
                rule("-D");
            }
        });
        for number in 0..4 {
            let (host, one) = (&host, &one);
            scope.spawn(move || {
                for round in 0..8 {
                    let pod = host.pod(one, &format!("pod-{number}-{round}"));
                    host.netns.run(|| one.check(&pod.attachment)).unwrap();
                    host.del(one, &pod.attachment).unwrap();
                }
            });
        }
    });
    assert!(!nft(&host.netns, &["list", "ruleset"]).contains("BERTH-one"));
    talk(&stays.netns, at("192.0.2.9", 8000), &outside, at("192.0.2.9", 8000)).unwrap();
    host.del(&two, &stays.attachment).unwrap();
    assert_eq!(of_others(&host), before);
}

#[test]
fn pods_without_a_bridge_pass_by_their_subnet() {
    let (host, outside) = site();
    docker(&host);
    let before = of_others(&host);
    let data = host.state.path().join("networks");
    let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "subnet": "10.77.0.0/24",
            "routes": [{"dst": "0.0.0.0/0"}], "dataDir": data.to_str().unwrap()}},
        {"type": "firewall"},
    ]});
    let dirs = Dirs { state: host.state.path().to_owned(), bin: vec![PathBuf::from(REFERENCE)] };
    let network = Network::parse(list.to_string().as_bytes(), dirs).unwrap();
    let pod = host.pod(&network, "one");
    talk(&pod.netns, at("192.0.2.9", 8000), &outside, at("192.0.2.9", 8000)).unwrap();
    talk(&outside, at("10.77.0.2", 8000), &pod.netns, at("10.77.0.2", 8000)).unwrap();
    run(
        &host.netns,
        "iptables-nft",
        &[
            "-C",
            "BERTH-pods",
            "-s",
            "10.77.0.0/24",
            "-m",
            "comment",
            "--comment",
            "berth: from pods of 10.77.0.0/24",
            "-j",
            "ACCEPT",
        ],
    );
    host.netns.run(|| network.repair()).unwrap();
    host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    assert_eq!(of_others(&host), before);
}

/// Who reaches whom: `(from, target, to)`; each pod listens on port 80.
fn check(cases: &[(&str, &Netns, SocketAddr, &Netns, bool)]) {
    for (what, from, target, to, expected) in cases {
        let listen = SocketAddr::new([0; 4].into(), 80);
        let outcome = talk(from, *target, to, listen);
        assert_eq!(outcome.is_ok(), *expected, "{what}: {outcome:?}");
    }
}

#[test]
fn the_same_bridge_may_begin() {
    says_who_may_begin("same-bridge", "0");
}

#[test]
fn the_same_bridge_may_begin_where_frames_are_filtered_as_packets() {
    says_who_may_begin("same-bridge", "1");
}

#[test]
fn no_pod_may_begin() {
    says_who_may_begin("isolated", "0");
}

#[test]
fn no_pod_may_begin_where_frames_are_filtered_as_packets() {
    says_who_may_begin("isolated", "1");
}

fn says_who_may_begin(policy: &str, bridge_nf: &str) {
    let (host, outside) = site();
    filter_frames(&host, bridge_nf);
    let shut = network(&host, "shut", "br1", "10.77.0.0/24", json!({"ingressPolicy": policy}));
    let open = network(&host, "open", "br2", "10.78.0.0/24", json!({"ingressPolicy": "open"}));
    let pod = pod_with_ports(&host, &shut, "web", PORTS);
    let (neighbour, stranger) = (host.pod(&shut, "neighbour"), host.pod(&open, "stranger"));
    let (web, by_host) = (at("10.77.0.2", 80), at("192.0.2.1", 8080));
    check(&[
        ("a neighbour", &neighbour.netns, web, &pod.netns, policy == "same-bridge"),
        ("the host", &host.netns, web, &pod.netns, true),
        ("a pod of another bridge", &stranger.netns, web, &pod.netns, false),
        ("the outside", &outside, web, &pod.netns, false),
        ("a port, from outside", &outside, by_host, &pod.netns, true),
        ("a port, from a neighbour", &neighbour.netns, by_host, &pod.netns, true),
        ("a port, from another bridge", &stranger.netns, by_host, &pod.netns, true),
        ("a port, from the pod itself", &pod.netns, by_host, &pod.netns, true),
        ("to the outside", &pod.netns, at("192.0.2.9", 80), &outside, true),
        ("to another bridge", &pod.netns, at("10.78.0.2", 80), &stranger.netns, true),
    ]);
    for attached in [&pod, &neighbour] {
        host.netns.run(|| shut.check(&attached.attachment)).unwrap();
    }
    // Somebody flushes it all.
    nft(&host.netns, &["flush ruleset"]);
    host.netns.run(|| shut.check(&neighbour.attachment)).unwrap_err();
    host.netns.run(|| shut.repair()).unwrap();
    check(&[("a pod of another bridge", &stranger.netns, web, &pod.netns, false)]);

    // Configured anew, with the pods attached.
    let opened = network(&host, "shut", "br1", "10.77.0.0/24", json!({}));
    host.netns.run(|| opened.repair()).unwrap();
    check(&[
        ("a neighbour", &neighbour.netns, web, &pod.netns, true),
        ("a pod of another bridge", &stranger.netns, web, &pod.netns, true),
    ]);
    host.netns.run(|| shut.repair()).unwrap();
    host.del(&shut, &pod.attachment).unwrap();
    host.del(&shut, &neighbour.attachment).unwrap();
    assert!(!nft(&host.netns, &["list", "ruleset"]).contains("ingress"));
}

#[test]
fn a_chain_that_somebody_leads_to_stays_and_does_nothing() {
    let (host, outside) = site();
    docker(&host);
    let network = host.network(RANGES);
    let pod = host.pod(&network, "one");
    run(&host.netns, "iptables-nft", &["-I", "DOCKER-USER", "-j", "BERTH-pods"]);
    host.del(&network, &pod.attachment).unwrap();
    let shown = run(&host.netns, "iptables-nft", &["-S"]);
    let left: Vec<&str> = shown.lines().filter(|line| line.contains("BERTH")).collect();
    assert_eq!(left, ["-N BERTH-pods", "-A DOCKER-USER -j BERTH-pods"]);
    let again = host.pod(&network, "two");
    talk(&again.netns, at("192.0.2.9", 8000), &outside, at("192.0.2.9", 8000)).unwrap();
}

/// By every address of version 6, whether frames are filtered as packets or not.
#[test]
fn isolated_pods_are_so_over_version_6() {
    for bridge_nf in ["0", "1"] {
        let host = Host::new();
        filter_frames(&host, bridge_nf);
        let network = network(&host, "shut", "br1", "fd77::/64", json!({"ingressPolicy": "isolated"}));
        let pod = pod_with_ports(&host, &network, "web", PORTS);
        let neighbour = host.pod(&network, "neighbour");
        let everywhere = at("::", 80);
        let reach = |from: &Netns, target| talk(from, target, &pod.netns, everywhere);
        reach(&host.netns, at("fd77::2", 80)).unwrap();
        reach(&neighbour.netns, at("fd77::1", 8080)).unwrap();
        reach(&neighbour.netns, at("fd77::2", 80)).unwrap_err();
        talk(&neighbour.netns, at("fd77::1", 90), &host.netns, at("::", 90)).unwrap();

        // Addresses of the link, which a pod can give itself and no range tells of.
        for (netns, link, address) in [
            (&pod.netns, "eth0", "fe80::a/64"),
            (&neighbour.netns, "eth0", "fe80::b/64"),
            (&host.netns, "br1", "fe80::c/64"),
        ] {
            run(netns, "ip", &["-6", "addr", "add", address, "dev", link, "nodad"]);
        }
        let index = neighbour.netns.route().link("eth0").unwrap().unwrap().index;
        let of_link = |host_part, port| SocketAddrV6::new([0xfe80, 0, 0, 0, 0, 0, 0, host_part].into(), port, 0, index);
        reach(&neighbour.netns, of_link(0xa, 80).into()).unwrap_err();
        talk(&neighbour.netns, of_link(0xc, 91).into(), &host.netns, at("::", 91)).unwrap();
        // Nothing else was in the way.
        nft(&host.netns, &["flush ruleset"]);
        reach(&neighbour.netns, of_link(0xa, 80).into()).unwrap();
        reach(&neighbour.netns, at("fd77::2", 80)).unwrap();
    }
}

/// Whether packets inside frames of a bridge go through the filters of IP; only a kernel with `br_netfilter` asks.
fn filter_frames(host: &Host, setting: &str) {
    for version in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{version}");
        let _ = host.netns.run(|| std::fs::write(path, setting));
    }
}

#[test]
fn a_policy_without_a_bridge_is_refused_by_its_name() {
    let host = Host::new();
    let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [
        {"type": "loopback"}, {"type": "firewall", "ingressPolicy": "same-bridge"}]});
    let network = Network::parse(list.to_string().as_bytes(), host.dirs()).unwrap();
    let netns = Netns::new();
    let error = host.add(&network, &attachment("one", &netns.path())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "network configuration: plugins[1].ingressPolicy: needs a bridge, and no plugin before this one tells of any"
    );
    assert_eq!(error.code(), 7);
}
