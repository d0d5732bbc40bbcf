//! Where packets go: pod to pod, to the host, to the outside, over IPv4 and IPv6. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;

use berth_cni::Network;
use berth_sys::netlink::Changes;
use berth_sys::netlink::watch::Watch;
use harness::{Host, Netns, Pod, join, nft, pod_with_ports, route, setting, talk};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const RANGES: &[&str] = &["10.77.0.0/24", "fd77::/64"];

fn at(ip: impl AsRef<str>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.as_ref().parse().unwrap(), port)
}

/// Connects to where the server listens; the server sees this address.
fn check(from: &Netns, to: &Netns, target: IpAddr, seen: IpAddr) {
    let target = SocketAddr::new(target, 8000);
    assert_eq!(talk(from, target, to, target).unwrap(), seen, "to {target}");
}

#[test]
fn ports_of_the_host_lead_to_the_pod() {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24", "2001:db8::1/64"], &outside, "up0", &["192.0.2.9/24", "2001:db8::9/64"]);
    let network = host.network(RANGES);
    let neighbour = host.pod(&network, "neighbour");
    let pod = pod_with_ports(
        &host,
        &network,
        "web",
        r#"[{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
        {"hostPort": 8081, "containerPort": 80, "hostIP": "192.0.2.1"}]"#,
    );
    let any = at("::", 80);
    let reach = |from: &Netns, target: SocketAddr| talk(from, target, &pod.netns, any);

    assert_eq!(reach(&outside, at("192.0.2.1", 8080)).unwrap().to_string(), "192.0.2.9");
    assert_eq!(reach(&outside, at("2001:db8::1", 8080)).unwrap().to_string(), "2001:db8::9");
    assert_eq!(reach(&outside, at("192.0.2.1", 8081)).unwrap().to_string(), "192.0.2.9");
    reach(&outside, at("2001:db8::1", 8081)).unwrap_err();
    reach(&host.netns, at("10.77.0.1", 8081)).unwrap_err();
    reach(&host.netns, at("192.0.2.1", 8080)).unwrap();
    reach(&host.netns, at("127.0.0.1", 8080)).unwrap();
    reach(&neighbour.netns, at("192.0.2.1", 8080)).unwrap();
    reach(&pod.netns, at("192.0.2.1", 8080)).unwrap();
    loopback_is_out_of_reach(&host, &neighbour);

    let taken = r#"[{"hostPort": 8080, "containerPort": 90}]"#;
    let netns = Netns::new();
    let mut attachment = harness::attachment("second", &netns.path());
    attachment.runtime_config.insert("portMappings".into(), serde_json::from_str(taken).unwrap());
    let error = host.add(&network, &attachment).unwrap_err();
    assert_eq!(error.to_string(), "host port tcp 8080 is forwarded to another container already");
    assert_eq!(host.reserved().len(), 4, "what the failed ADD had taken is free");

    host.netns.run(|| network.check(&pod.attachment)).unwrap();
    host.del(&network, &pod.attachment).unwrap();
    drop(pod);
    host.add(&network, &attachment).unwrap();
    host.netns.run(|| network.check(&attachment)).unwrap();
}

/// The way from the host's loopback to pods is one way.
fn loopback_is_out_of_reach(host: &Host, pod: &Pod) {
    pod.netns.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")).unwrap();
    let mut changes = Changes::new();
    changes.delete_address(1, "127.0.0.1/8".parse().unwrap());
    pod.netns.route().apply(changes).unwrap();
    route(&pod.netns, "127.0.0.0/8", "10.77.0.1", "eth0");
    talk(&pod.netns, at("127.0.0.1", 9000), &host.netns, at("127.0.0.1", 9000)).unwrap_err();
}

#[test]
fn what_was_deleted_under_us_is_made_again() {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24"], &outside, "up0", &["192.0.2.9/24"]);
    let network = host.network(&["10.77.0.0/24"]);
    let ports = r#"[{"hostPort": 8080, "containerPort": 80}]"#;
    let first = pod_with_ports(&host, &network, "first", ports);
    let mut changes = Changes::new();
    changes.delete_link("berth0");
    host.netns.route().apply(changes).unwrap();
    let error = host.netns.run(|| network.check(&first.attachment)).unwrap_err();
    assert_eq!(error.to_string(), "container first: bridge berth0 is gone");
    host.netns.run(|| {
        let mut nft = berth_sys::nft::Nft::open().unwrap();
        for name in ["berth-pods", "berth-pods-ports"] {
            let mut batch = berth_sys::nft::batch::Batch::new();
            let table = berth_sys::nft::table::Table { family: berth_sys::nft::table::Family::Inet, name };
            batch.delete_table(table);
            nft.commit(batch).unwrap();
        }
    });

    let second = pod_with_ports(&host, &network, "second", r#"[{"hostPort": 8090, "containerPort": 80}]"#);
    check(&second.netns, &outside, "192.0.2.9".parse().unwrap(), "192.0.2.1".parse().unwrap());
    host.netns.run(|| network.check(&second.attachment)).unwrap();
    host.del(&network, &first.attachment).unwrap();
    // The first one's port was put back with the table, and went with its DEL.
    let third = pod_with_ports(&host, &network, "third", ports);
    host.netns.run(|| network.check(&third.attachment)).unwrap();
}

#[test]
fn removing_the_network_leaves_the_host_as_it_was() {
    let host = Host::new();
    let network = host.network(RANGES);
    let before = (setting(&host.netns, "net/ipv4/ip_forward"), setting(&host.netns, "net/ipv6/conf/all/forwarding"));
    let pod = pod_with_ports(&host, &network, "web", r#"[{"hostPort": 8080, "containerPort": 80}]"#);
    assert_eq!(setting(&host.netns, "net/ipv4/ip_forward"), "1");
    let error = host.netns.run(|| network.remove()).unwrap_err();
    assert_eq!(error.to_string(), "network pods cannot be removed: 1 containers are attached");
    host.del(&network, &pod.attachment).unwrap();
    host.netns.run(|| network.remove()).unwrap();
    host.netns.run(|| network.remove()).unwrap();
    assert_eq!(host.netns.route().link("berth0").unwrap(), None);
    assert_eq!(
        (setting(&host.netns, "net/ipv4/ip_forward"), setting(&host.netns, "net/ipv6/conf/all/forwarding")),
        before
    );
    assert_eq!(host.reserved().len() + host.results().len(), 0);
    let mut nft = host.netns.run(berth_sys::nft::Nft::open).unwrap();
    for name in ["berth-pods", "berth-pods-ports"] {
        let table = berth_sys::nft::table::Table { family: berth_sys::nft::table::Family::Inet, name };
        assert_eq!(nft.note(table).unwrap(), None);
    }
}

#[test]
fn what_was_flushed_is_noticed_and_repaired_without_anybody_coming() {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24"], &outside, "up0", &["192.0.2.9/24"]);
    let network = host.network(&["10.77.0.0/24"]);
    let pod = pod_with_ports(&host, &network, "web", r#"[{"hostPort": 8080, "containerPort": 80}]"#);
    let reach = || talk(&outside, at("192.0.2.1", 8080), &pod.netns, at("0.0.0.0", 80));
    reach().unwrap();
    for harm in [
        "nft flush ruleset",
        "nft delete table inet berth-pods-ports",
        "nft flush table inet berth-pods",
        "nft flush chain inet berth-pods-ports ports",
        "nft flush map inet berth-pods-ports any4",
        "ip link delete berth0",
        "ip link set berth0 down",
    ] {
        let mut watches = host.netns.run(Network::watches).unwrap();
        let words: Vec<&str> = harm.split(' ').collect();
        let done = host.netns.run(|| Command::new(words[0]).args(&words[1..]).status()).unwrap();
        assert!(done.success(), "{harm}");
        let is_told = watches.iter_mut().any(|watch| {
            let mut ready = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(500u16)).unwrap() > 0
        });
        assert!(is_told, "{harm}");
        host.netns.run(|| network.check(&pod.attachment)).unwrap_err();
        host.netns.run(|| network.repair()).unwrap();
        host.netns.run(|| network.check(&pod.attachment)).unwrap();
        reach().unwrap_or_else(|error| panic!("after {harm}: {error}"));
        check(&pod.netns, &outside, "192.0.2.9".parse().unwrap(), "192.0.2.1".parse().unwrap());
        // Nothing to do is nothing done: no endless round of our own events.
        let mut watches = host.netns.run(Network::watches).unwrap();
        host.netns.run(|| network.repair()).unwrap();
        assert!(watches.iter_mut().all(|watch| !watch.drain().unwrap()), "after {harm}");
    }
}

#[test]
fn only_what_matters_is_a_reason_to_look() {
    let host = Host::new();
    let network = host.network(RANGES);
    let _pod = pod_with_ports(&host, &network, "web", r#"[{"hostPort": 8080, "containerPort": 80}]"#);
    let mut watches = host.netns.run(Network::watches).unwrap();
    // Addresses of version 6 are settled for a while, and links tell of it: here, those where nothing happens.
    let quiet = Netns::new();
    watches[0] = quiet.run(Watch::of_interfaces).unwrap();
    for (change, matters) in [
        ("add table inet theirs; add chain inet theirs c { type filter hook input priority 0; }", false),
        ("add set inet theirs s { type ipv4_addr; }; add element inet theirs s { 192.0.2.1, 192.0.2.2 }", false),
        ("add rule inet theirs c tcp dport 22 accept; flush chain inet theirs c; delete table inet theirs", false),
        ("add table inet berth-other; delete table inet berth-other", false),
        ("add table ip filter", true),
        ("flush map inet berth-pods-ports any4", true),
        ("delete table inet berth-pods", true),
        ("flush ruleset", true),
        ("add table inet theirs; add chain inet theirs c", false),
    ] {
        nft(&host.netns, &[change]);
        // What a change is told with is there when it is made.
        assert_eq!(network.concerns(&mut watches).unwrap(), matters, "{change}");
        assert!(!network.concerns(&mut watches).unwrap(), "told once");
    }
    // More than fits is lost, and counts.
    let many = "add table inet theirs; delete table inet theirs; ".repeat(200);
    for _ in 0..40 {
        nft(&host.netns, &[&many]);
    }
    assert!(network.concerns(&mut watches).unwrap());
    host.netns.run(|| network.repair()).unwrap();
    nft(&host.netns, &["list", "table", "inet", "berth-pods-ports"]);
}

#[test]
fn a_table_that_another_tool_made_after_its_flush_stays_as_it_is() {
    let (host, outside) = (Host::new(), Netns::new());
    join(&host.netns, "up0", &["192.0.2.1/24"], &outside, "up0", &["192.0.2.9/24"]);
    let network = host.network(&["10.77.0.0/24"]);
    let pod = pod_with_ports(&host, &network, "web", r#"[{"hostPort": 8080, "containerPort": 80}]"#);
    let mut watches = host.netns.run(Network::watches).unwrap();
    // As firewalld and `nft -f /etc/nftables.conf` do it.
    nft(
        &host.netns,
        &["flush ruleset; add table inet theirs; add chain inet theirs input { type filter hook input priority 0; }; \
            add rule inet theirs input tcp dport 8080 accept; add table ip berth-other"],
    );
    let theirs = || nft(&host.netns, &["list", "table", "inet", "theirs"]);
    let before = theirs();
    assert!(Watch::wait(&watches, harness::PATIENCE).unwrap());
    assert!(network.concerns(&mut watches).unwrap());
    host.netns.run(|| network.repair()).unwrap();
    talk(&outside, at("192.0.2.1", 8080), &pod.netns, at("0.0.0.0", 80)).unwrap();
    check(&pod.netns, &outside, "192.0.2.9".parse().unwrap(), "192.0.2.1".parse().unwrap());
    assert_eq!(theirs(), before);
    // What we made is told of; it is looked at once more, and then there is peace.
    assert!(network.concerns(&mut watches).unwrap());
    host.netns.run(|| network.repair()).unwrap();
    assert!(!watches[1].drain().unwrap());
    host.del(&network, &pod.attachment).unwrap();
    host.netns.run(|| network.remove()).unwrap();
    assert_eq!(theirs(), before);
}

#[test]
fn tables_of_others_are_left_alone() {
    let host = Host::new();
    let network = host.network(RANGES);
    let theirs = "add table inet theirs; add chain inet theirs input { type filter hook input priority 0; }; \
        add rule inet theirs input tcp dport 22 accept; add table ip berth-other; add set ip berth-other s { type ipv4_addr; }";
    let nft = |words: &[&str]| {
        let output = host.netns.run(|| Command::new("nft").args(words).output()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    nft(&[theirs]);
    let before = nft(&["list", "ruleset"]);
    std::thread::scope(|scope| {
        // Another tool at work in the same family at the same time.
        scope.spawn(|| {
            for _ in 0..20 {
                nft(&["add table inet busy; add chain inet busy c; delete table inet busy"]);
            }
        });
        for number in 0..20 {
            let ports = format!(r#"[{{"hostPort": {}, "containerPort": 80}}]"#, 8000 + number);
            let pod = pod_with_ports(&host, &network, &format!("pod{number}"), &ports);
            host.del(&network, &pod.attachment).unwrap();
        }
    });
    host.netns.run(|| network.remove()).unwrap();
    assert_eq!(nft(&["list", "ruleset"]), before);
}
