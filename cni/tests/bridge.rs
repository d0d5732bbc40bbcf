//! The bridge's options, each by what it does to packets. Needs root, `ip` and `bridge` (iproute2) and `nft`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::net::SocketAddr;

use berth_cni::{Error, Network};
use berth_sys::netlink::Changes;
use harness::{Host, Netns, Pod, attachment, nft, run, talk};
use serde_json::{Value, json};

/// A network on the bridge `berth0` with these options beside the usual ones.
fn network(host: &Host, name: &str, subnet: &str, options: &Value) -> Network {
    let mut bridge = json!({"type": "bridge", "bridge": "berth0", "isGateway": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]}});
    bridge.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let list = json!({"cniVersion": "1.1.0", "name": name, "plugins": [bridge]});
    Network::parse(list.to_string().as_bytes(), host.dirs()).unwrap()
}

/// As [`network`], where each pod is given the address that it asks for.
fn network_of_wishes(host: &Host, options: &Value) -> Network {
    let mut bridge = json!({"type": "bridge", "bridge": "berth0", "capabilities": {"ips": true},
        "ipam": {"type": "static"}});
    bridge.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [bridge]});
    Network::parse(list.to_string().as_bytes(), host.dirs()).unwrap()
}

fn pod_at(host: &Host, network: &Network, id: &str, address: &str) -> Result<Pod, Error> {
    let netns = Netns::new();
    let mut attachment = attachment(id, &netns.path());
    attachment.runtime_config.insert("ips".to_owned(), json!([address]));
    let result = host.add(network, &attachment)?;
    Ok(Pod { netns, attachment, result })
}

fn host_end(pod: &Pod) -> String {
    pod.result.interfaces[1].name.clone()
}

fn checked(host: &Host, network: &Network, pod: &Pod) -> Result<(), String> {
    host.netns.run(|| network.check(&pod.attachment)).map_err(|error| error.to_string())
}

/// Whether a pod reaches another, or the host with `None`.
fn reaches(host: &Host, from: &Pod, to: Option<&Pod>) -> Result<(), String> {
    let (netns, ip) = match to {
        Some(pod) => (&pod.netns, pod.ip(0)),
        None => (&host.netns, from.result.ips[0].gateway.unwrap()),
    };
    let target = SocketAddr::new(ip, 8000);
    talk(&from.netns, target, netns, target).map(drop)
}

#[test]
fn isolated_pods_reach_the_host_and_not_each_other() {
    let host = Host::new();
    let network = network(&host, "pods", "10.77.0.0/24", &json!({"portIsolation": true}));
    let (one, other) = (host.pod(&network, "one"), host.pod(&network, "other"));
    reaches(&host, &one, None).unwrap();
    reaches(&host, &other, None).unwrap();
    reaches(&host, &one, Some(&other)).unwrap_err();
    checked(&host, &network, &one).unwrap();
    run(&host.netns, "bridge", &["link", "set", "dev", &host_end(&one), "isolated", "off"]);
    assert!(checked(&host, &network, &one).unwrap_err().contains("isolation"));
    // Who was taken off the bridge comes back as he was.
    run(&host.netns, "ip", &["link", "set", &host_end(&one), "nomaster"]);
    host.netns.run(|| network.repair()).unwrap();
    checked(&host, &network, &one).unwrap();
    reaches(&host, &one, Some(&other)).unwrap_err();
}

#[test]
fn a_pod_sends_with_its_own_hardware_address_alone() {
    let host = Host::new();
    let checks = network(&host, "pods", "10.77.0.0/24", &json!({"macspoofchk": true}));
    let free = network(&host, "free", "10.78.0.0/24", &json!({}));
    let (one, other) = (host.pod(&checks, "one"), host.pod(&checks, "other"));
    let trusted = host.pod(&free, "trusted");
    let own = one.result.interfaces[2].mac.clone();
    let become_other = |pod: &Pod, mac: &str| {
        run(&pod.netns, "ip", &["link", "set", "eth0", "address", mac]);
        // Whoever knows the old address would send there.
        run(&host.netns, "ip", &["neigh", "flush", "dev", "berth0"]);
    };
    for pod in [&one, &other] {
        reaches(&host, pod, None).unwrap();
        checked(&host, &checks, pod).unwrap();
    }
    become_other(&one, &other.result.interfaces[2].mac);
    reaches(&host, &one, None).unwrap_err();
    become_other(&one, "0e:00:00:00:00:07");
    reaches(&host, &one, None).unwrap_err();
    become_other(&trusted, "0e:00:00:00:00:07");
    reaches(&host, &trusted, None).unwrap();
    become_other(&one, &own);
    reaches(&host, &one, None).unwrap();

    // Flushed by somebody, or by parts.
    for harm in [&["flush", "ruleset"][..], &["flush", "set", "bridge", "berth-pods-sources", "checked"]] {
        nft(&host.netns, harm);
        assert!(checked(&host, &checks, &one).unwrap_err().contains("hardware addresses"), "{harm:?}");
        host.netns.run(|| checks.repair()).unwrap();
        checked(&host, &checks, &one).unwrap();
        checked(&host, &checks, &other).unwrap();
    }
    let named = |pod: &Pod| nft(&host.netns, &["list", "ruleset"]).contains(&host_end(pod));
    assert!(named(&one) && named(&other));
    host.del(&checks, &one.attachment).unwrap();
    assert!(!named(&one) && named(&other));
    host.netns.run(|| checks.gc(&[])).unwrap();
    assert!(!named(&other));
    host.netns.run(|| checks.remove()).unwrap();
    assert!(!nft(&host.netns, &["list", "tables"]).contains("berth-pods"));
}

#[test]
fn an_address_of_version_6_that_another_has_is_refused_if_that_is_asked() {
    let host = Host::new();
    let network = network_of_wishes(&host, &json!({"enabledad": true}));
    let one = pod_at(&host, &network, "one", "fd77::7/64").unwrap();
    let free = pod_at(&host, &network, "free", "fd77::8/64").unwrap();
    reaches(&host, &free, Some(&one)).unwrap();
    let error = pod_at(&host, &network, "other", "fd77::7/64").map(drop).unwrap_err();
    assert!(error.to_string().contains("fd77::7 of eth0 has another owner"), "{error}");
    assert_eq!(host.ports().len(), 2, "what was begun is taken back");
    // Else whoever gives addresses out is believed.
    let trusting = network_of_wishes(&host, &json!({}));
    pod_at(&host, &trusting, "believed", "fd77::7/64").unwrap();
}

#[test]
fn a_promiscuous_bridge_stays_so() {
    let host = Host::new();
    let network = network(&host, "pods", "10.77.0.0/24", &json!({"promiscMode": true}));
    let pod = host.pod(&network, "one");
    checked(&host, &network, &pod).unwrap();
    assert!(host.netns.route().link("berth0").unwrap().unwrap().promiscuous);
    run(&host.netns, "ip", &["link", "set", "berth0", "promisc", "off"]);
    assert!(checked(&host, &network, &pod).unwrap_err().contains("promiscuous"));
    host.netns.run(|| network.repair()).unwrap();
    checked(&host, &network, &pod).unwrap();
}

#[test]
fn other_addresses_of_the_bridge_make_room_if_that_is_asked() {
    let host = Host::new();
    let mut changes = Changes::new();
    changes.create_bridge(&berth_sys::netlink::link::NewBridge { name: "berth0", mac: None, mtu: None });
    host.netns.route().apply(changes).unwrap();
    let bridge = host.netns.route().link("berth0").unwrap().unwrap().index;
    let addresses = || {
        let all = host.netns.route().addresses(bridge).unwrap().into_iter();
        let mut all: Vec<String> = all.map(|one| one.to_string()).filter(|one| !one.starts_with("fe80")).collect();
        all.sort();
        all
    };
    for address in ["10.1.0.1/24", "fd77::9/48", "fd99::1/64"] {
        run(&host.netns, "ip", &["address", "add", address, "dev", "berth0"]);
    }
    let gentle = network(&host, "gentle", "10.77.0.0/24", &json!({}));
    host.pod(&gentle, "one");
    assert_eq!(addresses(), ["10.1.0.1/24", "10.77.0.1/24", "fd77::9/48", "fd99::1/64"]);
    let forces = network(&host, "forces", "10.78.0.0/24", &json!({"forceAddress": true}));
    host.pod(&forces, "two");
    assert_eq!(addresses(), ["10.78.0.1/24", "fd77::9/48", "fd99::1/64"]);
    let forces = network(&host, "forces6", "fd77::/64", &json!({"forceAddress": true}));
    host.pod(&forces, "three");
    assert_eq!(addresses(), ["10.78.0.1/24", "fd77::1/64", "fd99::1/64"]);
}

#[test]
fn networks_on_one_bridge_collect_only_their_own() {
    let host = Host::new();
    let one = network(&host, "pods", "10.77.0.0/24", &json!({}));
    let two = network(&host, "others", "10.78.0.0/24", &json!({}));
    let (kept, gone) = (host.pod(&two, "kept"), host.pod(&one, "gone"));
    // As if ADD had been killed before it wrote what it did.
    std::fs::remove_file(host.state.path().join("results/pods/gone:eth0.json")).unwrap();
    host.netns.run(|| one.gc(&[])).unwrap();
    assert_eq!(host.ports(), [host_end(&kept)]);
    checked(&host, &two, &kept).unwrap();
    drop(gone);
}

#[test]
fn the_result_names_each_interface_with_its_hardware_address() {
    let host = Host::new();
    let network = network(&host, "pods", "10.77.0.0/24", &json!({}));
    let pod = host.pod(&network, "one");
    let mac = |netns: &Netns, name: &str| netns.route().link(name).unwrap().unwrap().mac.unwrap().to_string();
    let found = [mac(&host.netns, "berth0"), mac(&host.netns, &host_end(&pod)), mac(&pod.netns, "eth0")];
    let told: Vec<_> = pod.result.interfaces.iter().map(|one| one.mac.clone()).collect();
    assert_eq!(told, found);
}

#[test]
fn a_runtime_tells_what_names_are_resolved_by() {
    let host = Host::new();
    let dns = json!({"dns": {"nameservers": ["10.0.0.1"]}, "capabilities": {"dns": true}});
    let network = network(&host, "pods", "10.77.0.0/24", &dns);
    let told = |id: &str, wished: Option<Value>| {
        let netns = Netns::new();
        let mut attachment = attachment(id, &netns.path());
        attachment.runtime_config.extend(wished.map(|wished| ("dns".to_owned(), wished)));
        host.add(&network, &attachment).map(|result| Value::Object(result.dns))
    };
    assert_eq!(told("one", None).unwrap(), json!({"nameservers": ["10.0.0.1"]}));
    let wished = json!({"servers": ["10.96.0.10"], "searches": ["pods.svc.cluster.local", "svc.cluster.local"]});
    let expected = json!({"nameservers": ["10.96.0.10"], "search": ["pods.svc.cluster.local", "svc.cluster.local"]});
    assert_eq!(told("two", Some(wished)).unwrap(), expected);
    let error = told("three", Some(json!({"servers": [7]}))).unwrap_err();
    assert!(error.code() == 7 && error.to_string().contains("runtimeConfig.dns.servers[0]"), "{error}");
}

#[test]
fn options_that_exclude_each_other_or_are_not_built_in_are_refused_by_name() {
    let host = Host::new();
    for (options, field) in [
        (json!({"promiscMode": true, "hairpinMode": true}), "promiscMode"),
        (json!({"vlan": 7}), "vlan"),
        (json!({"disableContainerInterface": true}), "disableContainerInterface"),
        (json!({"portIsolation": "yes"}), "portIsolation"),
        (json!({"macspoofchk": 1}), "macspoofchk"),
        (json!({"enabledad": "no"}), "enabledad"),
        (json!({"forceAddress": []}), "forceAddress"),
    ] {
        let mut bridge = json!({"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}});
        bridge.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [bridge]});
        let error = Network::parse(list.to_string().as_bytes(), host.dirs()).map(drop).unwrap_err();
        assert_eq!(error.code(), 7, "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
}
