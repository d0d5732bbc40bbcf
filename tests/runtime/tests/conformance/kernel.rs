//! config-linux.md: what else of the kernel a container can be given: personality, memory policy, network devices.

use std::path::Path;
use std::process::Command;

use berth_runtime_tests::machine::{NetDevice, misses};
use berth_runtime_tests::{Container, lacks};
use serde_json::json;

#[test]
fn the_personality_is_set() {
    if lacks("runc < 1.2", "no personality") {
        return;
    }
    let check = |domain: &str, expected: &str| {
        let container = Container::probe().with(|spec| spec["linux"]["personality"] = json!({ "domain": domain }));
        assert_eq!(container.seen().personality, expected, "{domain}");
    };
    check("LINUX", "00000000");
    check("LINUX32", "00000008");
    let container =
        Container::new("uname -m").with(|spec| spec["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    let machine = container.output();
    assert!(!machine.ends_with("64"), "{machine}");
    let container = Container::new("true").with(|spec| spec["linux"]["personality"] = json!({ "domain": "NONSENSE" }));
    container.try_create().refused();
}

#[test]
fn the_memory_policy_is_set() {
    if misses(!Path::new("/proc/self/numa_maps").exists(), "memory policies")
        || lacks("runc < 1.4 | crun < 1.24", "no memory policies")
    {
        return;
    }
    let check = |mode: &str, flags: &[&str], expected: &str| {
        let container = Container::probe().with(|spec| {
            spec["linux"]["memoryPolicy"] = json!({ "mode": mode, "nodes": "0", "flags": flags });
        });
        let seen = container.seen();
        let line = seen.file("/proc/self/numa_maps").lines().next().unwrap_or_default().to_owned();
        assert!(line.contains(expected), "{mode} {flags:?}: {line}");
    };
    check("MPOL_BIND", &[], " bind:0");
    check("MPOL_INTERLEAVE", &[], " interleave:0");
    check("MPOL_PREFERRED", &[], " prefer:0");
    check("MPOL_PREFERRED_MANY", &[], " prefer (many):0");
    check("MPOL_BIND", &["MPOL_F_STATIC_NODES"], " bind=static:0");
    for policy in
        [json!({ "mode": "MPOL_NONSENSE", "nodes": "0" }), json!({ "mode": "MPOL_BIND", "nodes": "nonsense" })]
    {
        let container = Container::new("true").with(|spec| spec["linux"]["memoryPolicy"] = policy.clone());
        container.try_create().refused();
    }
}

#[test]
fn a_network_device_is_moved_into_the_container_with_its_addresses() {
    if lacks("runc < 1.4 | crun < 1.22", "no network devices") {
        return;
    }
    let Some(device) = NetDevice::new() else { return };
    assert!(Command::new("ip").args(["addr", "add", "192.0.2.7/24", "dev", &device.name]).status().unwrap().success());
    let container = Container::new("ip -o addr show dev inner; exec sleep 1000").with(|spec| {
        spec["linux"]["netDevices"] = json!({ &device.name: { "name": "inner" } });
    });
    let container = container.running();
    berth_runtime_tests::until("it has looked", || container.out().contains("192.0.2.7/24"));
    assert!(!Path::new("/sys/class/net").join(&device.name).exists());
    container.delete();
}

#[test]
fn a_network_device_that_is_missing_or_has_nowhere_to_go_is_refused() {
    if lacks("runc < 1.4 | crun < 1.22", "no network devices") {
        return;
    }
    let devices = |name: &str| json!({ name: { "name": "inner" } });
    let container = Container::new("true").with(|spec| spec["linux"]["netDevices"] = devices("nosuchdevice"));
    container.try_create().refused();
    container.assert_gone();
    let Some(device) = NetDevice::new() else { return };
    let mut container = Container::new("true").with(|spec| spec["linux"]["netDevices"] = devices(&device.name));
    container.namespace("network", None);
    container.try_create().refused();
    assert!(Path::new("/sys/class/net").join(&device.name).exists());
}

#[test]
fn classes_of_cache_and_bandwidth_are_set_or_refused() {
    let resctrl = Path::new("/sys/fs/resctrl/schemata").exists();
    let container = Container::new("true").with(|spec| spec["linux"]["intelRdt"] = json!({ "closID": "suite-class" }));
    if misses(!resctrl, "resctrl, so that classes can only be refused") {
        if !lacks("runc < 1.2 | crun", "no resctrl is no error") {
            container.try_create().refused();
            container.assert_gone();
        }
        return;
    }
    assert_eq!(container.run().code, 0);
    assert!(Path::new("/sys/fs/resctrl/suite-class").exists());
    container.delete();
    assert!(!Path::new("/sys/fs/resctrl/suite-class").exists());
}

#[test]
fn labels_are_set_or_refused_where_there_are_none() {
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    if misses(!selinux, "SELinux") {
        return;
    }
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let container = Container::probe().with(|spec| spec["linux"]["mountLabel"] = json!(label));
    let seen = container.seen();
    assert!(seen.mounted("/dev").super_options.iter().any(|option| option.contains("context=")), "{seen:?}");
}
