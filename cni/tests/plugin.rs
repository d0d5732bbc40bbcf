//! Configurations that make no sense, as each plugin's program is given them: the specification's code, and the field.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use berth_cni::plugin::check;
use serde_json::{Value, json};

/// A plugin's configuration with these fields beside those that each must have.
fn config(extra: &Value) -> Value {
    let mut config = json!({"cniVersion": "1.1.0", "name": "pods"});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

fn told(plugin: &str, config: &[u8]) -> (u32, String) {
    match check(Some(plugin), config) {
        Ok(()) => (0, String::new()),
        Err(error) => (error.code(), error.to_string()),
    }
}

const INVALID: u32 = 7;
const UNDECODABLE: u32 = 6;
const INCOMPATIBLE: u32 = 1;

#[test]
fn each_field_that_makes_no_sense_is_named() {
    let local = |ipam: Value| {
        let mut ipam = ipam;
        ipam["type"] = "host-local".into();
        json!({"ipam": ipam})
    };
    let range = |range: Value| local(json!({"ranges": [[range]]}));
    let ports = |mapping: Value| json!({"runtimeConfig": {"portMappings": [mapping]}});
    let subnet = json!({"type": "host-local", "subnet": "10.0.0.0/24"});
    let bridge = |field: &str, value: Value| json!({"ipam": subnet, field: value});
    let mut wrong = Vec::new();
    for (plugin, extra, field) in [
        ("bridge", json!({"ipam": "host-local"}), "ipam"),
        ("bridge", json!({"ipam": {}}), "ipam.type"),
        ("bridge", json!({"ipam": {"type": ["host-local"]}}), "ipam.type"),
        ("bridge", bridge("bridge", json!(7)), "bridge"),
        ("bridge", bridge("bridge", json!("a/b")), "bridge"),
        ("bridge", bridge("bridge", json!("sixteen-letters-")), "bridge"),
        ("bridge", bridge("isGateway", json!("true")), "isGateway"),
        ("bridge", bridge("isDefaultGateway", json!(1)), "isDefaultGateway"),
        ("bridge", bridge("ipMasq", json!("yes")), "ipMasq"),
        ("bridge", bridge("ipMasqBackend", json!("pf")), "ipMasqBackend"),
        ("bridge", bridge("hairpinMode", json!([])), "hairpinMode"),
        ("bridge", bridge("mtu", json!("1500")), "mtu"),
        ("bridge", bridge("mtu", json!(-1)), "mtu"),
        ("bridge", bridge("mtu", json!(67)), "mtu"),
        ("bridge", bridge("mtu", json!(70_000)), "mtu"),
        ("bridge", bridge("vlan", json!(100)), "vlan"),
        ("bridge", bridge("nonMasqueradeCIDRs", json!(["10.0.0.0/40"])), "nonMasqueradeCIDRs[0]"),
        ("bridge", bridge("dns", json!([])), "dns"),
        ("bridge", bridge("runtimeConfig", json!([])), "runtimeConfig"),
        ("bridge", bridge("runtimeConfig", json!({"mac": "zz"})), "mac"),
        ("bridge", bridge("runtimeConfig", json!({"ips": ["10.0.0.0.0/24"]})), "ips"),
        ("bridge", bridge("args", json!(7)), "args"),
        ("host-local", json!({}), "ipam"),
        ("host-local", local(json!({})), "ipam.ranges"),
        ("host-local", local(json!({"subnet": "10.0.0.0"})), "ipam.subnet"),
        ("host-local", local(json!({"subnet": "10.0.0.1/24"})), "ipam.subnet"),
        ("host-local", local(json!({"ranges": [[]]})), "ipam.ranges[0]"),
        ("host-local", local(json!({"ranges": {}})), "ipam.ranges"),
        ("host-local", range(json!({})), "ipam.ranges[0][0].subnet"),
        ("host-local", range(json!({"subnet": "10.0.0.0/32"})), "ipam.ranges[0][0].subnet"),
        (
            "host-local",
            range(json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"})),
            "ipam.ranges[0][0].rangeStart",
        ),
        ("host-local", range(json!({"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"})), "ipam.ranges[0][0].rangeEnd"),
        ("host-local", range(json!({"subnet": "10.0.0.0/24", "gateway": "x"})), "ipam.ranges[0][0].gateway"),
        ("host-local", local(json!({"subnet": "10.0.0.0/24", "routes": [{"dst": "0/0"}]})), "ipam.routes[0].dst"),
        ("host-local", local(json!({"subnet": "10.0.0.0/24", "routes": [{}]})), "ipam.routes[0].dst"),
        ("host-local", local(json!({"subnet": "10.0.0.0/24", "dataDir": 7})), "ipam.dataDir"),
        ("static", json!({"ipam": {"addresses": [{"address": "10.0.0.1"}]}}), "ipam.addresses[0].address"),
        (
            "static",
            json!({"ipam": {"addresses": [{"address": "10.0.0.1/24", "gateway": 7}]}}),
            "ipam.addresses[0].gateway",
        ),
        ("static", json!({"ipam": {"addresses": [{}]}}), "ipam.addresses[0].address"),
        ("portmap", json!({"snat": "no"}), "snat"),
        ("portmap", json!({"conditionsV4": ["-i", "lo"]}), "conditionsV4"),
        ("portmap", json!({"runtimeConfig": {"portMappings": {}}}), "portMappings"),
        ("portmap", ports(json!({"hostPort": 80})), "portMappings[0].containerPort"),
        ("portmap", ports(json!({"hostPort": 70_000, "containerPort": 80})), "portMappings[0].hostPort"),
        (
            "portmap",
            ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
            "portMappings[0].protocol",
        ),
        ("portmap", ports(json!({"hostPort": 80, "containerPort": 80, "hostIP": "::x"})), "portMappings[0].hostIP"),
        ("bandwidth", json!({"ingressRate": "1M"}), "ingressRate"),
        ("bandwidth", json!({"egressRate": 8_000}), "egressBurst"),
        ("bandwidth", json!({"runtimeConfig": {"bandwidth": {"ingressBurst": 1}}}), "bandwidth.ingressRate"),
        ("firewall", json!({"backend": "pf"}), "backend"),
        ("firewall", json!({"ingressPolicy": "some"}), "ingressPolicy"),
        ("loopback", json!({"name": "-pods"}), "name"),
        ("loopback", json!({"name": 7}), "name"),
        ("loopback", json!({"cniVersion": 1}), "cniVersion"),
        ("loopback", json!({"cniVersion": null}), "cniVersion"),
        ("loopback", json!({"cniVersions": {}}), "cniVersions"),
        (
            "loopback",
            json!({"cni.dev/valid-attachments": [{"ifname": "eth0"}]}),
            "cni.dev/valid-attachments[0].containerID",
        ),
    ] {
        let (code, message) = told(plugin, config(&extra).to_string().as_bytes());
        if code != INVALID || !message.contains(field) {
            wrong.push(format!("{plugin} {extra}: {code} {message}, not {field}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_cannot_be_read_or_is_too_new_has_its_own_code() {
    for plugin in berth_cni::plugin::NAMES {
        for text in ["", "{", "[]", "\"bridge\"", "\u{1}"] {
            assert_eq!(told(plugin, text.as_bytes()).0, UNDECODABLE, "{plugin} {text:?}");
        }
        let ipam = json!({"type": "host-local", "subnet": "10.0.0.0/24", "addresses": [{"address": "10.0.0.2/24"}]});
        let (code, message) =
            told(plugin, config(&json!({"cniVersion": "9.0.0", "ipam": ipam})).to_string().as_bytes());
        assert!(code == INCOMPATIBLE && message.contains("9.0.0"), "{plugin}: {code} {message}");
        let previous = config(&json!({"ipam": ipam, "prevResult": {"ips": 7}}));
        let (code, message) = told(plugin, previous.to_string().as_bytes());
        assert!(code == UNDECODABLE && message.contains("prevResult"), "{plugin}: {code} {message}");
    }
    let (code, message) = told("dhcp", config(&json!({})).to_string().as_bytes());
    assert!(code == INVALID && message.contains("dhcp") && message.contains("bridge"), "{message}");
}
