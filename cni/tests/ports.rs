//! Ports of the host that lead to pods, from every side, over both versions of IP and each protocol. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use berth_cni::Network;
use berth_sys::netlink::Changes;
use harness::{Echo, Host, Netns, Pod, ask, eventually, join, nft, pod_with_ports, talk};

const RANGES: &[&str] = &["10.77.0.0/24", "fd77::/64"];
/// A refusal that comes sooner is one that the kernel gave, not one that was waited for.
const AT_ONCE: Duration = Duration::from_millis(900);

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A host at `192.0.2.1` and `2001:db8::1`, what is outside of it, and the network.
fn site() -> (Host, Netns, Network) {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24", "2001:db8::1/64"], &outside, "up0", &["192.0.2.9/24", "2001:db8::9/64"]);
    let network = host.network(RANGES);
    (host, outside, network)
}

/// Whether a stream and datagrams arrive at a pod that listens on port 80, from one side.
fn check(from: &Netns, side: &str, target: &str, port: u16, pod: &Pod) {
    let target = at(target, port);
    talk(from, target, &pod.netns, at("::", 80)).unwrap_or_else(|error| panic!("tcp from {side}: {error}"));
    assert_eq!(ask(from, target).as_deref(), Ok("web"), "udp from {side} to {target}");
}

#[test]
fn streams_and_datagrams_arrive_from_every_side() {
    let (host, outside, network) = site();
    let neighbour = host.pod(&network, "neighbour");
    let ports = r#"[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "UDP"}]"#;
    let web = pod_with_ports(&host, &network, "web", ports);
    let _echo = Echo::new(&web.netns, at("::", 80), "web");
    // Nobody knows the pods' gateway but pods and the host.
    for (from, side, targets) in [
        (&outside, "outside", &["192.0.2.1", "2001:db8::1"][..]),
        (&host.netns, "the host", &["192.0.2.1", "2001:db8::1", "127.0.0.1", "127.1.2.3", "10.77.0.1", "fd77::1"]),
        (&neighbour.netns, "a neighbour", &["192.0.2.1", "2001:db8::1", "10.77.0.1", "fd77::1"]),
        (&web.netns, "the pod itself", &["192.0.2.1", "2001:db8::1", "10.77.0.1", "fd77::1"]),
    ] {
        targets.iter().for_each(|target| check(from, side, target, 8080, &web));
    }
}

#[test]
fn a_port_of_one_address_is_of_no_other() {
    let (host, outside, network) = site();
    let ports = r#"[{"hostPort": 81, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
        {"hostPort": 81, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1"},
        {"hostPort": 82, "containerPort": 80, "protocol": "tcp", "hostIP": "2001:db8::1"},
        {"hostPort": 82, "containerPort": 80, "protocol": "udp", "hostIP": "2001:db8::1"},
        {"hostPort": 83, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
        {"hostPort": 83, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"},
        {"hostPort": 84, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"},
        {"hostPort": 84, "containerPort": 80, "protocol": "udp", "hostIP": "0.0.0.0"},
        {"hostPort": 85, "containerPort": 80, "protocol": "tcp", "hostIP": "::"},
        {"hostPort": 85, "containerPort": 80, "protocol": "udp", "hostIP": "::"}]"#;
    let web = pod_with_ports(&host, &network, "web", ports);
    let _echo = Echo::new(&web.netns, at("::", 80), "web");
    let all = ["192.0.2.1", "2001:db8::1", "127.0.0.1", "10.77.0.1", "fd77::1"];
    for (port, leads) in [
        (81, &["192.0.2.1"][..]),
        (82, &["2001:db8::1"]),
        (83, &["127.0.0.1"]),
        (84, &["192.0.2.1", "127.0.0.1", "10.77.0.1"]),
        (85, &["2001:db8::1", "fd77::1"]),
    ] {
        leads.iter().for_each(|target| check(&host.netns, "the host", target, port, &web));
        for target in all.iter().filter(|target| !leads.contains(target)) {
            talk(&host.netns, at(target, port), &web.netns, at("::", 80)).unwrap_err();
        }
    }
    check(&outside, "outside", "192.0.2.1", 81, &web);
    check(&outside, "outside", "2001:db8::1", 82, &web);
    talk(&outside, at("192.0.2.1", 83), &web.netns, at("::", 80)).unwrap_err();
}

#[test]
fn one_port_is_of_two_pods_by_address_or_by_protocol() {
    let (host, outside, network) = site();
    let one = pod_with_ports(
        &host,
        &network,
        "one",
        r#"[{"hostPort": 53, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}]"#,
    );
    let two = pod_with_ports(&host, &network, "two", r#"[{"hostPort": 53, "containerPort": 80, "protocol": "tcp"}]"#);
    let three =
        pod_with_ports(&host, &network, "three", r#"[{"hostPort": 53, "containerPort": 80, "protocol": "udp"}]"#);
    talk(&outside, at("192.0.2.1", 53), &one.netns, at("0.0.0.0", 80)).unwrap();
    talk(&host.netns, at("10.77.0.1", 53), &two.netns, at("0.0.0.0", 80)).unwrap();
    talk(&outside, at("2001:db8::1", 53), &two.netns, at("::", 80)).unwrap();
    let _echo = Echo::new(&three.netns, at("::", 80), "three");
    assert_eq!(ask(&outside, at("192.0.2.1", 53)).as_deref(), Ok("three"));
    host.del(&network, &two.attachment).unwrap();
    talk(&outside, at("192.0.2.1", 53), &one.netns, at("0.0.0.0", 80)).unwrap();
}

#[test]
fn the_loopback_of_version_6_is_left_alone() {
    let (host, _outside, network) = site();
    let web = pod_with_ports(&host, &network, "web", r#"[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]"#);
    // Refused at once: whoever tried `localhost` goes on to 127.0.0.1.
    let begin = Instant::now();
    let error = host.netns.run(|| TcpStream::connect_timeout(&at("::1", 8080), 3 * AT_ONCE)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(begin.elapsed() < AT_ONCE);
    talk(&host.netns, at("::1", 8080), &host.netns, at("::1", 8080)).unwrap();
    talk(&host.netns, at("127.0.0.1", 8080), &web.netns, at("0.0.0.0", 80)).unwrap();
}

/// As elements of the table: not every kernel can open such a socket.
#[test]
fn sctp_stands_in_the_table_and_goes_with_the_pod() {
    let (host, _outside, network) = site();
    let ports = r#"[{"hostPort": 9, "containerPort": 99, "protocol": "SCTP"},
        {"hostPort": 10, "containerPort": 99, "protocol": "sctp", "hostIP": "2001:db8::1"}]"#;
    let pod = pod_with_ports(&host, &network, "web", ports);
    host.netns.run(|| network.check(&pod.attachment)).unwrap();
    let maps = || nft(&host.netns, &["list", "table", "inet", "berth-pods-ports"]);
    let stands = maps();
    for wanted in ["sctp . 9 ", "10.77.0.2 . 99", "fd77::2 . 99", "2001:db8::1 . sctp . 10 "] {
        assert!(stands.contains(wanted), "{wanted} in {stands}");
    }
    host.del(&network, &pod.attachment).unwrap();
    assert!(!maps().contains("sctp ."), "{}", maps());
}

#[test]
fn a_bridge_that_was_made_anew_is_reached_from_the_loopback_again() {
    let (host, _outside, network) = site();
    let web = pod_with_ports(&host, &network, "web", r#"[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]"#);
    let reach = || talk(&host.netns, at("127.0.0.1", 8080), &web.netns, at("0.0.0.0", 80));
    reach().unwrap();
    let mut changes = Changes::new();
    changes.delete_link("berth0");
    host.netns.route().apply(changes).unwrap();
    host.netns.run(|| network.repair()).unwrap();
    reach().unwrap();
}

#[test]
fn a_stream_that_began_while_the_table_was_gone_is_led_to_the_pod() {
    let (host, outside, network) = site();
    let ports = r#"[{"hostPort": 8053, "containerPort": 80, "protocol": "udp"}]"#;
    let web = pod_with_ports(&host, &network, "web", ports);
    let _echo = Echo::new(&web.netns, at("::", 80), "web");
    // Of the kernel's timeouts a stream that is refreshed sees none.
    let client = outside.run(|| UdpSocket::bind("192.0.2.9:5000")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let heard = || -> Result<(), String> {
        let mut buffer = [0; 8];
        client.send_to(b"?", "192.0.2.1:8053").map_err(|error| error.to_string())?;
        client.recv(&mut buffer).map(drop).map_err(|error| error.to_string())
    };
    nft(&host.netns, &["flush", "ruleset"]);
    let _on_the_host = Echo::new(&host.netns, at("192.0.2.1", 8053), "host");
    eventually(heard);
    host.netns.run(|| network.repair()).unwrap();
    eventually(|| {
        heard()?;
        let mut buffer = [0; 8];
        client.send_to(b"?", "192.0.2.1:8053").map_err(|error| error.to_string())?;
        let count = client.recv(&mut buffer).map_err(|error| error.to_string())?;
        if buffer.starts_with(b"web") { Ok(()) } else { Err(String::from_utf8_lossy(&buffer[..count]).into_owned()) }
    });
}
