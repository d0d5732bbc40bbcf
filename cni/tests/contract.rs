//! What a pod network does, whoever does it: the same for the plugins that are built in and for the reference plugins,
//! which are programs (Debian's containernetworking-plugins). Needs root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use berth_cni::{Dirs, Error, Network};
use berth_sys::netlink::Changes;
use harness::{Echo, Host, Netns, Pod, attachment, eventually, join, talk, transfer};
use serde_json::{Value, json};

/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// Whose plugins are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugins {
    BuiltIn,
    Reference,
}

impl Plugins {
    /// A network of both IP versions.
    fn network(self, host: &Host) -> Network {
        self.network_of(
            host,
            json!({"type": "host-local", "ranges": [
                [{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]
            ]}),
        )
    }

    fn network_of(self, host: &Host, mut ipam: Value) -> Network {
        ipam["dataDir"] = host.state.path().join("networks").to_str().unwrap().into();
        let bridge = json!({"type": "bridge", "bridge": "berth0", "isDefaultGateway": true, "ipMasq": true,
            "hairpinMode": true, "capabilities": {"ips": true, "mac": true}, "ipam": ipam});
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        self.list(host, json!([bridge, {"type": "loopback"}, portmap]))
    }

    fn list(self, host: &Host, plugins: Value) -> Network {
        let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}).to_string();
        let dirs = Dirs { state: host.state.path().to_owned(), bin: vec![PathBuf::from(REFERENCE)] };
        match self {
            Self::BuiltIn => Network::parse(list.as_bytes(), dirs).unwrap(),
            Self::Reference => Network::of_programs(list.as_bytes(), dirs).unwrap(),
        }
    }
}

/// Each of these for both.
macro_rules! for_both {
    ($($test:ident)*) => {
        mod built_in { $(#[test] fn $test() { super::$test(super::Plugins::BuiltIn) })* }
        mod reference { $(#[test] fn $test() { super::$test(super::Plugins::Reference) })* }
    };
}

for_both! {
    pods_reach_pods_and_the_host_by_their_addresses
    the_outside_sees_the_host
    ports_of_the_host_lead_to_the_pod_from_every_side
    a_check_finds_what_was_changed
    deleting_leaves_nothing_and_may_be_repeated
    what_the_attachment_wants_it_gets
    fixed_addresses_are_given
    a_full_range_refuses
    a_limit_of_the_rate_holds_both_ways
    a_stream_of_udp_follows_its_port
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Connects to where the server listens; the server sees this address. The reference's gateway of version 6 can be used
/// only after the kernel has looked for another owner.
fn check(from: &Netns, to: &Netns, target: IpAddr, seen: IpAddr) {
    let target = SocketAddr::new(target, 8000);
    assert_eq!(eventually(|| talk(from, target, to, target)), seen, "to {target}");
}

fn pod_with(host: &Host, network: &Network, id: &str, capability: &str, value: Value) -> Result<Pod, Error> {
    let netns = Netns::new();
    let mut attachment = attachment(id, &netns.path());
    attachment.runtime_config.insert(capability.to_owned(), value);
    let result = host.add(network, &attachment)?;
    Ok(Pod { netns, attachment, result })
}

fn pods_reach_pods_and_the_host_by_their_addresses(plugins: Plugins) {
    let host = Host::new();
    let network = plugins.network(&host);
    let (one, two) = (host.pod(&network, "one"), host.pod(&network, "two"));
    assert_eq!((one.ip(0), one.ip(1)), ("10.77.0.2".parse().unwrap(), "fd77::2".parse().unwrap()));
    for (version, gateway) in ["10.77.0.1", "fd77::1"].into_iter().enumerate() {
        let gateway: IpAddr = gateway.parse().unwrap();
        check(&one.netns, &two.netns, two.ip(version), one.ip(version));
        check(&two.netns, &host.netns, gateway, two.ip(version));
        check(&host.netns, &one.netns, one.ip(version), gateway);
        check(&one.netns, &one.netns, one.ip(version), one.ip(version));
    }
    check(&one.netns, &one.netns, IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 1]));
    host.netns.run(|| network.check(&one.attachment)).unwrap();
    host.netns.run(|| network.status()).unwrap();
}

fn the_outside_sees_the_host(plugins: Plugins) {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24", "2001:db8::1/64"], &outside, "up0", &["192.0.2.9/24", "2001:db8::9/64"]);
    let network = plugins.network(&host);
    let (pod, other) = (host.pod(&network, "one"), host.pod(&network, "two"));
    check(&pod.netns, &outside, "192.0.2.9".parse().unwrap(), "192.0.2.1".parse().unwrap());
    check(&pod.netns, &outside, "2001:db8::9".parse().unwrap(), "2001:db8::1".parse().unwrap());
    // Among pods nothing is translated.
    check(&pod.netns, &other.netns, other.ip(0), pod.ip(0));
    check(&pod.netns, &other.netns, other.ip(1), pod.ip(1));
}

fn ports_of_the_host_lead_to_the_pod_from_every_side(plugins: Plugins) {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24", "2001:db8::1/64"], &outside, "up0", &["192.0.2.9/24", "2001:db8::9/64"]);
    let network = plugins.network(&host);
    let neighbour = host.pod(&network, "neighbour");
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}]);
    let pod = pod_with(&host, &network, "web", "portMappings", ports).unwrap();
    let reach = |from: &Netns, target: SocketAddr| talk(from, target, &pod.netns, at("::", 80));
    assert_eq!(reach(&outside, at("192.0.2.1", 8080)).unwrap().to_string(), "192.0.2.9");
    assert_eq!(reach(&outside, at("2001:db8::1", 8080)).unwrap().to_string(), "2001:db8::9");
    assert_eq!(reach(&outside, at("192.0.2.1", 8081)).unwrap().to_string(), "192.0.2.9");
    reach(&host.netns, at("10.77.0.1", 8081)).unwrap_err();
    reach(&host.netns, at("192.0.2.1", 8080)).unwrap();
    reach(&host.netns, at("127.0.0.1", 8080)).unwrap();
    reach(&neighbour.netns, at("192.0.2.1", 8080)).unwrap();
    reach(&pod.netns, at("192.0.2.1", 8080)).unwrap();
    if plugins == Plugins::BuiltIn {
        // The reference's portmap (1.1.1) looks for rules of version 4 among those of version 6.
        host.netns.run(|| network.check(&pod.attachment)).unwrap();
    }
    host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    reach(&outside, at("192.0.2.1", 8080)).unwrap_err();
}

fn a_check_finds_what_was_changed(plugins: Plugins) {
    let host = Host::new();
    let network = plugins.network(&host);
    let pod = host.pod(&network, "one");
    host.netns.run(|| network.check(&pod.attachment)).unwrap();
    let mut inside = pod.netns.route();
    let link = inside.link("eth0").unwrap().unwrap();
    let mut changes = Changes::new();
    changes.delete_address(link.index, pod.result.ips[0].address);
    inside.apply(changes).unwrap();
    let error = host.netns.run(|| network.check(&pod.attachment)).unwrap_err();
    assert!(error.code() >= 100, "{error}");
}

fn deleting_leaves_nothing_and_may_be_repeated(plugins: Plugins) {
    let host = Host::new();
    let network = plugins.network(&host);
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let pod = pod_with(&host, &network, "web", "portMappings", ports).unwrap();
    assert_eq!((host.reserved().len(), host.results().len()), (2, 1));
    assert!(host.add(&network, &pod.attachment).is_err(), "an attachment is made once");
    host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    assert_eq!((host.reserved().len(), host.results().len(), host.ports().len()), (0, 0, 0));
    assert_eq!(pod.netns.route().link("eth0").unwrap(), None);
    host.add(&network, &pod.attachment).unwrap();
    // Without its namespace.
    let Pod { netns, attachment, .. } = pod;
    drop(netns);
    host.del(&network, &attachment).unwrap();
    assert_eq!((host.reserved().len(), host.results().len()), (0, 0));
}

fn what_the_attachment_wants_it_gets(plugins: Plugins) {
    let host = Host::new();
    let network = plugins.network(&host);
    let pod = pod_with(&host, &network, "one", "ips", json!(["10.77.0.77/24", "fd77::77/64"])).unwrap();
    assert_eq!((pod.ip(0), pod.ip(1)), ("10.77.0.77".parse().unwrap(), "fd77::77".parse().unwrap()));
    let error = pod_with(&host, &network, "two", "ips", json!(["10.77.0.77/24"])).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("10.77.0.77"), "{error}");
    assert_eq!(host.reserved().len(), 2);
    let mac = "0a:77:00:00:00:01";
    let pod = pod_with(&host, &network, "three", "mac", mac.into()).unwrap();
    assert_eq!(pod.netns.route().link("eth0").unwrap().unwrap().mac.unwrap().to_string(), mac);
    assert!(pod.result.interfaces.iter().any(|interface| interface.mac == mac));
}

fn fixed_addresses_are_given(plugins: Plugins) {
    let host = Host::new();
    let network = plugins.network_of(
        &host,
        json!({"type": "static",
        "addresses": [{"address": "10.77.0.9/24", "gateway": "10.77.0.1"}],
        "routes": [{"dst": "192.0.2.0/24", "gw": "10.77.0.7"}], "dns": {"nameservers": ["10.77.0.1"]}}),
    );
    let pod = host.pod(&network, "one");
    assert_eq!(pod.ip(0).to_string(), "10.77.0.9");
    if plugins == Plugins::BuiltIn {
        // The reference's bridge (1.1.1) forgets what its ipam says of name servers.
        assert_eq!(pod.result.dns["nameservers"], json!(["10.77.0.1"]));
    }
    let routes = pod.netns.route().routes().unwrap();
    assert!(routes.iter().any(|route| route.to.to_string() == "192.0.2.0/24"), "{routes:?}");
    check(&pod.netns, &host.netns, "10.77.0.1".parse().unwrap(), pod.ip(0));
}

fn a_full_range_refuses(plugins: Plugins) {
    let host = Host::new();
    let network = plugins.network_of(&host, json!({"type": "host-local", "subnet": "10.77.0.0/30"}));
    let _only = host.pod(&network, "one");
    let netns = Netns::new();
    let error = host.add(&network, &attachment("two", &netns.path())).unwrap_err();
    assert!(error.to_string().contains("10.77.0.0/30") || error.to_string().contains("10.77.0.1-"), "{error}");
    assert_eq!((host.reserved().len(), host.results().len()), (1, 1));
    assert_eq!(netns.route().link("eth0").unwrap(), None);
}

fn a_limit_of_the_rate_holds_both_ways(plugins: Plugins) {
    const BYTES_PER_SECOND: u32 = 2_000_000;
    const BURST_BYTES: u32 = 100_000;
    const BYTES: u32 = 1_500_000;
    let host = Host::new();
    // Apart from the others: the reference's (1.1.1) falls over in CHECK if there is no limit.
    let network = plugins.list(
        &host,
        json!([
            {"type": "bridge", "bridge": "berth0", "isGateway": true, "ipam": {"type": "host-local",
                "dataDir": host.state.path().join("networks").to_str().unwrap(),
                "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        ]),
    );
    let limits = json!({"ingressRate": BYTES_PER_SECOND * 8, "ingressBurst": BURST_BYTES * 8,
        "egressRate": BYTES_PER_SECOND * 8, "egressBurst": BURST_BYTES * 8});
    let pod = pod_with(&host, &network, "slow", "bandwidth", limits).unwrap();
    let free = pod_with(&host, &network, "free", "bandwidth", json!({})).unwrap();
    if plugins == Plugins::BuiltIn {
        host.netns.run(|| network.check(&pod.attachment)).unwrap();
    }
    // A busy machine makes it slower, and nothing makes it faster.
    let least = Duration::from_secs_f64(f64::from(BYTES - BURST_BYTES) / f64::from(BYTES_PER_SECOND)).mul_f64(0.8);
    for version in [0, 1] {
        let (here, there) = (SocketAddr::new(pod.ip(version), 8000), SocketAddr::new(free.ip(version), 8000));
        let received = transfer(&free.netns, &pod.netns, here, BYTES as usize);
        let sent = transfer(&pod.netns, &free.netns, there, BYTES as usize);
        assert!(received > least && sent > least, "{received:?} and {sent:?} are below {least:?}");
    }
    let links = |kind: &str| host.netns.route().links_of(kind).unwrap().len();
    assert_eq!(links("ifb"), 1);
    let shown = disciplines(&host);
    assert_eq!(shown, [BYTES_PER_SECOND; 2], "both stand where tc shows them");
    if plugins == Plugins::BuiltIn {
        let stays = ("slow".to_owned(), "eth0".to_owned());
        host.netns.run(|| network.gc(&[stays])).unwrap();
        host.netns.run(|| network.check(&pod.attachment)).unwrap();
        // As if ADD had been killed before it wrote the result.
        std::fs::remove_file(host.state.path().join("results/pods/slow:eth0.json")).unwrap();
        host.netns.run(|| network.gc(&[])).unwrap();
    } else {
        host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    }
    assert_eq!(links("ifb"), 0);
}

/// The rates of all tbf, in bytes in a second, as tc-tbf(8) tells them.
fn disciplines(host: &Host) -> Vec<u32> {
    let output = host.netns.run(|| Command::new("tc").args(["-j", "qdisc", "show"]).output()).unwrap();
    let shown: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let rates = shown.iter().filter(|one| one["kind"] == "tbf").map(|one| one["options"]["rate"].as_u64().unwrap());
    rates.map(|rate| u32::try_from(rate).unwrap()).collect()
}

fn a_stream_of_udp_follows_its_port(plugins: Plugins) {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24"], &outside, "up0", &["192.0.2.9/24"]);
    let network = plugins.network(&host);
    let ports = json!([{"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]);
    // One and the same socket sends all the time, as a resolver or a phone does.
    let client = outside.run(|| UdpSocket::bind("192.0.2.9:5000")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let hears = |wanted: &str| {
        eventually(|| {
            let mut buffer = [0; 64];
            client.send_to(b"?", "192.0.2.1:8053").map_err(|error| error.to_string())?;
            let count = client.recv(&mut buffer).map_err(|error| error.to_string())?;
            let heard = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if heard == wanted { Ok(()) } else { Err(heard) }
        });
    };
    let _warm = host.pod(&network, "warm");
    let _on_the_host = Echo::new(&host.netns, at("192.0.2.1", 8053), "host");
    hears("host");
    let first = pod_with(&host, &network, "first", "portMappings", ports.clone()).unwrap();
    let echo = Echo::new(&first.netns, SocketAddr::new(first.ip(0), 53), "first");
    hears("first");
    host.netns.run(|| network.detach(&first.attachment)).unwrap();
    if plugins == Plugins::BuiltIn {
        // The reference (1.1.1) lets a stream go on to a pod that is gone.
        hears("host");
    }
    drop(echo);
    let second = pod_with(&host, &network, "second", "portMappings", ports).unwrap();
    let _echo = Echo::new(&second.netns, SocketAddr::new(second.ip(0), 53), "second");
    hears("second");
}
