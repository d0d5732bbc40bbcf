//! Plugins that are programs: how they are called, and what their failure does. Needs root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_cni::{Dirs, Network};
use harness::{Host, Netns, attachment, eventually, join, pod_with_ports, talk};
use serde_json::{Value, json};

/// A host with a folder of plugins, and a list that has the built-in bridge and then the plugin `other`.
struct Rig {
    host: Host,
    bin: tempfile::TempDir,
    network: Network,
}

impl Rig {
    fn new(script: &str) -> Self {
        let (host, bin) = (Host::new(), tempfile::tempdir().unwrap());
        write(&bin.path().join("other"), script);
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": "berth0", "isGateway": true,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}},
            {"type": "other", "capabilities": {"bandwidth": true}, "vendor": {"a": 1}},
        ]});
        let dirs = Dirs { state: host.state.path().to_owned(), bin: vec![bin.path().to_owned()] };
        let network = Network::parse(list.to_string().as_bytes(), dirs).unwrap();
        Self { host, bin, network }
    }

    /// What the plugin was given for a verb.
    fn given(&self, verb: &str) -> (Value, String) {
        let read = |name: String| fs::read_to_string(self.bin.path().join(name)).unwrap();
        (serde_json::from_str(&read(format!("{verb}.stdin"))).unwrap(), read(format!("{verb}.env")))
    }
}

fn write(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\ncd \"$CNI_PATH\"\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_plugin_gets_what_the_specification_says() {
    let rig = Rig::new(
        r#"cat > $CNI_COMMAND.stdin; env | grep CNI_ | sort > $CNI_COMMAND.env
        [ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.2/24", "interface": 2}], "vendor": 1}'
        exit 0"#,
    );
    let netns = Netns::new();
    let mut attachment = attachment("one", &netns.path());
    attachment.args = vec![("K8S_POD_NAME".into(), "web".into()), ("K".into(), "v".into())];
    attachment.runtime_config.insert("bandwidth".into(), json!({"ingressRate": 1}));
    attachment.runtime_config.insert("mac".into(), json!("not for this plugin"));
    let result = rig.host.add(&rig.network, &attachment).unwrap();
    assert_eq!(result.other["vendor"], 1);

    let (config, environment) = rig.given("ADD");
    assert_eq!(config["name"], "pods");
    assert_eq!(config["cniVersion"], "1.1.0");
    assert_eq!(config["vendor"], json!({"a": 1}));
    assert_eq!(config["runtimeConfig"], json!({"bandwidth": {"ingressRate": 1}}));
    assert_eq!(config["prevResult"]["ips"][0]["address"], "10.77.0.2/24");
    assert_eq!(config["prevResult"]["interfaces"][2]["name"], "eth0");
    let (path, bin) = (netns.path(), rig.bin.path().display().to_string());
    let expected = format!(
        "CNI_ARGS=K8S_POD_NAME=web;K=v\nCNI_COMMAND=ADD\nCNI_CONTAINERID=one\nCNI_IFNAME=eth0\nCNI_NETNS={}\nCNI_PATH={bin}\n",
        path.display()
    );
    assert_eq!(environment, expected);

    rig.host.netns.run(|| rig.network.status()).unwrap();
    rig.host.netns.run(|| rig.network.gc(&[("one".into(), "eth0".into())])).unwrap();
    let valid = json!([{"containerID": "one", "ifname": "eth0"}]);
    assert_eq!(rig.given("GC").0["cni.dev/valid-attachments"], valid);
    rig.host.del(&rig.network, &attachment).unwrap();
    assert_eq!(rig.given("DEL").0["prevResult"]["vendor"], 1);
}

#[test]
fn a_failure_is_told_whole_and_taken_back() {
    let rig = Rig::new(
        r#"[ $CNI_COMMAND = ADD ] || { touch undone; exit 0; }
        echo 'the cable is out' >&2; echo '{"cniVersion": "1.1.0", "code": 123, "msg": "no link", "details": "port 7"}'; exit 1"#,
    );
    let netns = Netns::new();
    let error = rig.host.add(&rig.network, &attachment("one", &netns.path())).unwrap_err();
    assert_eq!(error.code(), 123);
    assert_eq!(error.to_string(), "plugin other: no link; port 7; the cable is out");
    assert!(rig.bin.path().join("undone").exists());
    assert_eq!((rig.host.reserved(), rig.host.results(), rig.host.ports()), (vec![], vec![], vec![]));
    assert_eq!(netns.route().link("eth0").unwrap(), None);

    write(&rig.bin.path().join("other"), "echo nonsense; exit 3");
    let error = rig.host.add(&rig.network, &attachment("one", &netns.path())).unwrap_err();
    assert_eq!(error.to_string(), "plugin other: ADD failed with exit status: 3; nonsense");
    write(&rig.bin.path().join("other"), "echo nonsense");
    let error = rig.host.add(&rig.network, &attachment("one", &netns.path())).unwrap_err();
    assert_eq!(error.to_string(), "cannot decode the result of plugin other");
}

#[test]
fn a_plugin_that_nobody_has_is_named_with_the_folders() {
    let rig = Rig::new("exit 0");
    fs::remove_file(rig.bin.path().join("other")).unwrap();
    let netns = Netns::new();
    for error in [
        rig.host.add(&rig.network, &attachment("one", &netns.path())).unwrap_err(),
        rig.host.netns.run(|| rig.network.status()).unwrap_err(),
    ] {
        assert_eq!(error.code(), 7);
        let folder = rig.bin.path().display();
        let expected =
            format!("network configuration: plugins: no plugin of type \"other\" is built in, nor found in {folder}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_bridge_takes_addresses_of_a_foreign_ipam() {
    let (host, bin) = (Host::new(), tempfile::tempdir().unwrap());
    write(
        &bin.path().join("leases"),
        r#"[ $CNI_COMMAND = DEL ] && touch released
        [ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.88.0.7/24", "gateway": "10.88.0.1"}]}'
        exit 0"#,
    );
    let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "berth0", "isDefaultGateway": true, "ipMasq": true, "ipam": {"type": "leases"}},
    ]});
    let dirs = Dirs { state: host.state.path().to_owned(), bin: vec![bin.path().to_owned()] };
    let network = Network::parse(list.to_string().as_bytes(), dirs).unwrap();
    let pod = host.pod(&network, "one");
    assert_eq!(pod.ip(0).to_string(), "10.88.0.7");
    host.netns.run(|| network.check(&pod.attachment)).unwrap();
    host.del(&network, &pod.attachment).unwrap();
    assert!(bin.path().join("released").exists());
    drop(pod);
    eventually(|| if host.ports().is_empty() { Ok(()) } else { Err("a port is left".to_owned()) });
    host.netns.run(|| network.remove()).unwrap();
}

#[test]
fn pods_of_each_subnet_that_a_foreign_ipam_gives_are_masqueraded() {
    let (host, bin) = (Host::new(), tempfile::tempdir().unwrap());
    write(
        &bin.path().join("leases"),
        r#"subnet=10.88.${CNI_CONTAINERID#pod}
        [ $CNI_COMMAND = ADD ] && echo "{\"cniVersion\": \"1.1.0\", \"ips\": [{\"address\": \"$subnet.7/24\", \"gateway\": \"$subnet.1\"}]}"
        exit 0"#,
    );
    let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "berth0", "isDefaultGateway": true, "ipMasq": true,
            "hairpinMode": true, "ipam": {"type": "leases"}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    let dirs = Dirs { state: host.state.path().to_owned(), bin: vec![bin.path().to_owned()] };
    let network = Network::parse(list.to_string().as_bytes(), dirs).unwrap();
    let outside = Netns::new();
    join(&host.netns, "up0", &["192.0.2.1/24"], &outside, "up0", &["192.0.2.9/24"]);
    let pod = |number: u32| {
        pod_with_ports(
            &host,
            &network,
            &format!("pod{number}"),
            &format!(r#"[{{"hostPort": 808{number}, "containerPort": 80, "protocol": "tcp"}}]"#),
        )
    };
    let (one, two) = (pod(1), pod(2));
    let at = |ip: &str, port| std::net::SocketAddr::new(ip.parse().unwrap(), port);
    for pod in [&one, &two] {
        let seen = talk(&pod.netns, at("192.0.2.9", 80), &outside, at("0.0.0.0", 80)).unwrap();
        assert_eq!(seen.to_string(), "192.0.2.1");
        host.netns.run(|| network.check(&pod.attachment)).unwrap();
    }
    talk(&outside, at("192.0.2.1", 8081), &one.netns, at("0.0.0.0", 80)).unwrap();
    // From itself through the host.
    talk(&one.netns, at("192.0.2.1", 8081), &one.netns, at("0.0.0.0", 80)).unwrap();
    host.del(&network, &two.attachment).unwrap();
    host.netns.run(|| network.check(&one.attachment)).unwrap();
    host.netns.run(|| network.repair()).unwrap();
    host.netns.run(|| network.check(&one.attachment)).unwrap();
}
