//! How fast pods may receive and send: what holds, what the kernel is told, and that nothing of it stays. Needs root, tc
//! (iproute2) and the reference plugins (Debian's containernetworking-plugins).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_cni::{Dirs, Error, Network};
use harness::{Host, Netns, Pod, attachment, join, transfer};
use serde_json::{Value, json};

/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// A network of both IP versions whose pods have limits of their own.
fn plugins(host: &Host, bridge: &str) -> Value {
    json!([
        {"type": bridge, "bridge": "berth0", "isGateway": true, "ipam": {"type": "host-local",
            "dataDir": host.state.path().join("networks").to_str().unwrap(),
            "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ])
}

fn list(name: &str, plugins: &Value) -> Vec<u8> {
    json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins}).to_string().into_bytes()
}

fn dirs(host: &Host, bin: impl Into<PathBuf>) -> Dirs {
    Dirs { state: host.state.path().to_owned(), bin: vec![bin.into(), REFERENCE.into()] }
}

fn network(host: &Host) -> Network {
    Network::parse(&list("pods", &plugins(host, "bridge")), dirs(host, REFERENCE)).unwrap()
}

/// Attaches a namespace with these limits; both outlive a failure.
fn attach(host: &Host, network: &Network, id: &str, netns: &Netns, limits: Value) -> Result<Value, Error> {
    let mut attachment = attachment(id, &netns.path());
    attachment.runtime_config.insert("bandwidth".to_owned(), limits);
    host.add(network, &attachment).map(|result| json!(result))
}

fn pod(host: &Host, network: &Network, id: &str, limits: Value) -> Pod {
    let netns = Netns::new();
    let mut attachment = attachment(id, &netns.path());
    attachment.runtime_config.insert("bandwidth".to_owned(), limits);
    let result = host.add(network, &attachment).unwrap();
    Pod { netns, attachment, result }
}

/// Limits in bytes, told in bits.
fn limits(received: u64, sent: u64, burst: u64) -> Value {
    json!({"ingressRate": received * 8, "ingressBurst": burst * 8, "egressRate": sent * 8, "egressBurst": burst * 8})
}

fn ifbs(host: &Host) -> Vec<String> {
    host.netns.route().links_of("ifb").unwrap().into_iter().map(|link| link.name).collect()
}

/// The host's end of a pod's interface, whoever made it.
fn hosts_end(host: &Host, pod: &Netns) -> String {
    let peer = pod.route().link("eth0").unwrap().unwrap().peer.unwrap();
    host.netns.route().link_at(peer).unwrap().unwrap().name
}

fn tc(host: &Host, words: &str) -> Vec<u8> {
    let output = host.netns.run(|| Command::new("tc").args(words.split(' ')).output()).unwrap();
    assert!(output.status.success(), "tc {words}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn each_direction_has_its_own_limit_and_the_neighbour_has_none() {
    const RECEIVED: u64 = 2_000_000;
    const SENT: u64 = 7_000_000;
    const BURST: u64 = 100_000;
    let host = Host::new();
    let network = network(&host);
    let slow = pod(&host, &network, "slow", limits(RECEIVED, SENT, BURST));
    let free = pod(&host, &network, "free", json!({}));
    for version in [0, 1] {
        for (from, to, limit) in [(&free, &slow, RECEIVED), (&slow, &free, SENT)] {
            // A busy machine takes longer; no machine may be faster, for what is counted includes the headers.
            let target = SocketAddr::new(to.ip(version), 8000);
            let took = transfer(&from.netns, &to.netns, target, usize::try_from(limit).unwrap());
            let least = 0.9 * (limit - BURST) as f64 / limit as f64;
            assert!(took.as_secs_f64() > least, "{limit} bytes to {} took only {took:?}", to.ip(version));
        }
    }
    let shown: Vec<Value> = serde_json::from_slice(&tc(&host, "-j qdisc show")).unwrap();
    let is_limited = |pod: &Pod| {
        let veth = hosts_end(&host, &pod.netns);
        shown.iter().any(|one| one["kind"] == "tbf" && one["dev"] == veth.as_str())
    };
    assert!(is_limited(&slow) && !is_limited(&free), "{shown:?}");
}

#[test]
fn the_kernel_is_told_what_the_reference_tells_it() {
    // Bits in a second and bits: usual, one way each, what kubelet gives as burst, more than 2^32 bytes in a second.
    for limits in [
        limits(1_000_000, 3_000_000, 500_000),
        json!({"ingressRate": 8_000_000, "ingressBurst": 1_000_000}),
        json!({"egressRate": 8_000_000, "egressBurst": 1_000_000}),
        json!({"ingressRate": 10_000_000, "ingressBurst": i32::MAX, "egressRate": 10_000_000, "egressBurst": i32::MAX}),
        limits(5_000_000_000, 6_000_000_000, 50_000_000),
    ] {
        let state = |of_programs: bool| {
            let host = Host::new();
            let list = list("pods", &plugins(&host, "bridge"));
            let parse = if of_programs { Network::of_programs } else { Network::parse };
            let network = parse(&list, dirs(&host, REFERENCE)).unwrap();
            let pod = pod(&host, &network, "one", limits.clone());
            state_of(&host, &pod)
        };
        let ((ours, amounts), (theirs, their_amounts)) = (state(false), state(true));
        assert_eq!(ours, theirs, "for {limits}");
        // The reference rounds the burst to microseconds, we to the kernel's ticks of 64 ns.
        let is_near = |(ours, theirs): (&f64, &f64)| (ours - theirs).abs() <= theirs / 1000.0 + 1.0;
        let are_near = amounts.len() == their_amounts.len() && amounts.iter().zip(&their_amounts).all(is_near);
        assert!(are_near, "{amounts:?} are not {their_amounts:?} for {limits}");
    }
}

/// Disciplines and filters of a host with one pod, with roles in place of names. Without what the reference (1.1.1) tells
/// beyond its wish: a class that nothing has, and a second action behind one that ends the packet's way. Bursts and
/// latencies stand apart, being rounded.
fn state_of(host: &Host, pod: &Pod) -> (Value, Vec<f64>) {
    let veth = hosts_end(host, &pod.netns);
    let ifbs = ifbs(host);
    let parse = |text: &[u8]| -> Vec<Value> { serde_json::from_slice(text).unwrap() };
    let mut disciplines = parse(&tc(host, "-j qdisc show"));
    disciplines.retain(|one| one["dev"] == veth.as_str() || ifbs.iter().any(|ifb| one["dev"] == ifb.as_str()));
    disciplines.sort_by_key(|one| (one["dev"] != veth.as_str(), one["kind"].to_string()));
    let mut amounts = Vec::new();
    for options in disciplines.iter_mut().filter_map(|one| one["options"].as_object_mut()) {
        let rounded = ["burst", "lat"].into_iter().filter_map(|name| options.remove(name));
        amounts.extend(rounded.map(|value| value.as_f64().unwrap()));
    }
    let mut filters = parse(&tc(host, &format!("-j filter show dev {veth} ingress")));
    for options in filters.iter_mut().filter_map(|one| one.get_mut("options")?.as_object_mut()) {
        options.remove("flowid");
        if let Some(actions) = options.get_mut("actions").and_then(Value::as_array_mut) {
            assert_eq!(actions[0]["control_action"]["type"], "stolen");
            actions.truncate(1);
        }
    }
    let mut text = json!({"disciplines": disciplines, "filters": filters}).to_string();
    text = text.replace(&format!("\"{veth}\""), "\"the veth\"");
    for ifb in &ifbs {
        text = text.replace(&format!("\"{ifb}\""), "\"the ifb\"");
    }
    let mtu_of = |name: &str| host.netns.route().link(name).unwrap().map(|link| (link.mtu, link.up));
    let links: Vec<_> = ifbs.iter().map(|ifb| mtu_of(ifb)).collect();
    (json!({"tc": serde_json::from_str::<Value>(&text).unwrap(), "ifbs": links}), amounts)
}

#[test]
fn deleting_leaves_no_ifb_whatever_is_gone_already() {
    let host = Host::new();
    let network = network(&host);
    let both = || limits(1_000_000, 1_000_000, 100_000);
    let one = pod(&host, &network, "one", both());
    assert_eq!(ifbs(&host).len(), 1);
    host.del(&network, &one.attachment).unwrap();
    assert_eq!(ifbs(&host), [""; 0]);
    host.del(&network, &one.attachment).unwrap();

    let Pod { netns, attachment, .. } = pod(&host, &network, "two", both());
    drop(netns);
    host.del(&network, &attachment).unwrap();
    assert_eq!(ifbs(&host), [""; 0], "without its namespace");

    // DEL without being told of the limit, nor what ADD gave: killed before the record was written.
    let Pod { netns, mut attachment, .. } = pod(&host, &network, "three", both());
    std::fs::remove_file(host.state.path().join("results/pods/three:eth0.json")).unwrap();
    attachment.runtime_config.clear();
    drop(netns);
    host.del(&network, &attachment).unwrap();
    assert_eq!(ifbs(&host), [""; 0], "without its record");
}

#[test]
fn what_leaked_is_collected_and_what_is_valid_stays() {
    let host = Host::new();
    let network = network(&host);
    let both = || limits(1_000_000, 1_000_000, 100_000);
    let stays = pod(&host, &network, "stays", both());
    let kept = ifbs(&host);
    let (leaks, lost) = (pod(&host, &network, "leaks", both()), pod(&host, &network, "lost", both()));
    std::fs::remove_file(host.state.path().join("results/pods/lost:eth0.json")).unwrap();
    // Of somebody else.
    let mut changes = berth_sys::netlink::Changes::new();
    changes.create_ifb("ifb0", 1500);
    host.netns.route().apply(changes).unwrap();
    host.netns.run(|| network.gc(&[("stays".to_owned(), "eth0".to_owned())])).unwrap();
    let mut left = ifbs(&host);
    left.retain(|name| name != "ifb0");
    assert_eq!(left, kept);
    assert_eq!(ifbs(&host).len(), 2, "ifb0 is not ours");
    host.netns.run(|| network.check(&stays.attachment)).unwrap();
    drop((leaks, lost));
}

#[test]
fn pods_of_another_network_keep_their_limits_when_this_one_is_collected() {
    let host = Host::new();
    let one = network(&host);
    let mut of_two = plugins(&host, "bridge");
    of_two[0]["bridge"] = "berth1".into();
    of_two[0]["ipam"]["ranges"] = json!([[{"subnet": "10.78.0.0/24"}]]);
    let two = Network::parse(&list("others", &of_two), dirs(&host, REFERENCE)).unwrap();
    let other = pod(&host, &two, "other", limits(1_000_000, 1_000_000, 100_000));
    // As the specification has it, GC is told the attachments of its own network.
    host.netns.run(|| one.gc(&[])).unwrap();
    host.netns.run(|| two.check(&other.attachment)).unwrap();
}

#[test]
fn a_failure_after_the_limit_takes_it_back() {
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    program(&folder.path().join("refuses"), "#!/bin/sh\ncat > /dev/null\n[ $CNI_COMMAND != ADD ] || exit 1\n");
    let mut plugins = plugins(&host, "bridge");
    plugins.as_array_mut().unwrap().push(json!({"type": "refuses"}));
    let network = Network::parse(&list("pods", &plugins), dirs(&host, folder.path())).unwrap();
    let netns = Netns::new();
    let error = attach(&host, &network, "one", &netns, limits(1_000_000, 1_000_000, 100_000)).unwrap_err();
    assert!(error.to_string().contains("refuses"), "{error}");
    assert_eq!((ifbs(&host), host.ports(), host.reserved()), (vec![], vec![], vec![]));
}

fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn behind_the_bridge_of_another_tool_it_is_the_same() {
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    symlink(Path::new(REFERENCE).join("bridge"), folder.path().join("their-bridge")).unwrap();
    let list = list("pods", &plugins(&host, "their-bridge"));
    let network = Network::parse(&list, dirs(&host, folder.path())).unwrap();
    let pod = pod(&host, &network, "one", limits(1_000_000, 1_000_000, 100_000));
    let shown: Vec<Value> = serde_json::from_slice(&tc(&host, "-j qdisc show")).unwrap();
    let veth = hosts_end(&host, &pod.netns);
    assert!(shown.iter().any(|one| one["kind"] == "tbf" && one["dev"] == veth.as_str()), "{shown:?}");
    assert_eq!(ifbs(&host).len(), 1);
    host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    assert_eq!((ifbs(&host), host.ports()), (vec![], vec![]));
}

#[test]
fn a_check_names_what_was_changed() {
    let host = Host::new();
    let network = network(&host);
    for (harm, complaint) in [
        ("qdisc del dev VETH root", "the rate of VETH is not limited as it should be"),
        (
            "qdisc replace dev VETH root tbf rate 1mbit burst 50kb latency 25ms",
            "the rate of VETH is not limited as it should be",
        ),
        ("qdisc del dev IFB root", "the rate of IFB is not limited as it should be"),
        ("filter del dev VETH ingress", "what it sends does not go by IFB"),
        ("qdisc del dev VETH ingress", "what it sends does not go by IFB"),
    ] {
        let pod = pod(&host, &network, "one", limits(1_000_000, 1_000_000, 100_000));
        host.netns.run(|| network.check(&pod.attachment)).unwrap();
        let (veth, ifb) = (hosts_end(&host, &pod.netns), ifbs(&host).remove(0));
        let named = |text: &str| text.replace("VETH", &veth).replace("IFB", &ifb);
        tc(&host, &named(harm));
        let error = host.netns.run(|| network.check(&pod.attachment)).unwrap_err();
        assert_eq!((error.code(), error.to_string()), (103, format!("container one: {}", named(complaint))), "{harm}");
        host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    }
    let pod = pod(&host, &network, "one", limits(1_000_000, 1_000_000, 100_000));
    let ifb = ifbs(&host).remove(0);
    let mut changes = berth_sys::netlink::Changes::new();
    changes.delete_link(&ifb);
    host.netns.route().apply(changes).unwrap();
    let error = host.netns.run(|| network.check(&pod.attachment)).unwrap_err();
    assert_eq!((error.code(), error.to_string()), (103, format!("container one: {ifb} is gone")));
}

#[test]
fn limits_that_make_no_sense_are_refused_by_their_field_and_nothing_is_made() {
    let host = Host::new();
    let network = network(&host);
    let netns = Netns::new();
    for (limits, complaint) in [
        (json!({"ingressRate": 8000}), "ingressBurst: is missing, and ingressRate is not"),
        (json!({"ingressBurst": 8000}), "ingressRate: is missing, and ingressBurst is not"),
        (json!({"egressRate": 8000, "egressBurst": 0}), "egressBurst: is missing, and egressRate is not"),
        (json!({"egressRate": "8M", "egressBurst": 8000}), "egressRate: must be a whole number, but is text"),
        (json!({"egressRate": 1.5, "egressBurst": 8000}), "egressRate: must be a whole number, but is a number"),
        (json!({"egressRate": -8, "egressBurst": 8000}), "egressRate: must be a whole number, but is a number"),
        (json!({"egressRate": 8000, "egressBurst": u64::MAX}), "egressBurst: 18446744073709551615 is more than 4 GiB"),
    ] {
        let error = attach(&host, &network, "one", &netns, limits).unwrap_err();
        let expected = format!("network configuration: runtimeConfig.bandwidth.{complaint}");
        assert_eq!((error.code(), error.to_string()), (7, expected));
    }
    let error = attach(&host, &network, "one", &netns, json!("fast")).unwrap_err();
    assert!(error.code() == 7 && error.to_string().contains("runtimeConfig.bandwidth: must be an object"), "{error}");
    assert_eq!((ifbs(&host), host.ports(), host.reserved()), (vec![], vec![], vec![]));
}

#[test]
fn an_interface_that_is_no_pair_with_the_host_is_refused_and_strangers_keep_their_speed() {
    let host = Host::new();
    let list = list("pods", &json!([{"type": "bandwidth", "capabilities": {"bandwidth": true}}]));
    let network = Network::parse(&list, dirs(&host, REFERENCE)).unwrap();
    // The stranger's pair on the host and the pod's pair elsewhere have the same numbers.
    let (stranger, elsewhere, pod) = (Netns::new(), Netns::new(), Netns::new());
    join(&host.netns, "stranger", &[], &stranger, "eth0", &[]);
    join(&elsewhere, "other", &[], &pod, "eth0", &[]);
    let number = |netns: &Netns, name: &str| netns.route().link(name).unwrap().unwrap().index;
    assert_eq!(number(&host.netns, "stranger"), number(&elsewhere, "other"));
    let error = attach(&host, &network, "one", &pod, limits(1_000_000, 1_000_000, 100_000)).unwrap_err();
    assert!(error.to_string().contains("eth0 has no other end on the host"), "{error}");
    assert_eq!(ifbs(&host), [""; 0]);
    assert!(!String::from_utf8(tc(&host, "qdisc show dev stranger")).unwrap().contains("tbf"));
    // Without a limit nobody asks for the pair.
    attach(&host, &network, "one", &pod, json!({"ingressRate": 0, "ingressBurst": 0})).unwrap();
}
