//! config.md: the host's and the domain's name, and sysctls.

use std::fs;

use berth_runtime_tests::{Container, lacks};
use serde_json::json;

#[test]
fn the_container_has_its_name_and_the_machine_keeps_its_own() {
    let name = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let before = name();
    let container = Container::probe().with(|spec| spec["hostname"] = json!("other.example"));
    assert_eq!(container.seen().file("/proc/sys/kernel/hostname"), "other.example");
    assert_eq!(name(), before);
}

#[test]
fn the_domain_has_its_name() {
    if lacks("runc < 1.2 | crun < 1.8.2", "no domain names") {
        return;
    }
    let container = Container::probe().with(|spec| spec["domainname"] = json!("domain.example"));
    assert_eq!(container.seen().file("/proc/sys/kernel/domainname"), "domain.example");
    let mut container = Container::new("true").with(|spec| {
        spec.as_object_mut().unwrap().remove("hostname");
        spec["domainname"] = json!("domain.example");
    });
    container.namespace("uts", None);
    container.try_create().refused();
}

#[test]
fn the_machine_s_name_cannot_be_changed_by_a_container_in_its_namespace() {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let mut container = Container::new("true");
    container.namespace("uts", None);
    container.try_create().refused();
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn a_kernel_s_parameter_is_the_container_s_own() {
    let check = |name: &str, value: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let before = fs::read_to_string(&path).unwrap();
        assert_ne!(before.trim(), value, "the test would show nothing");
        let container =
            Container::new(&format!("cat {path}")).with(|spec| spec["linux"]["sysctl"] = json!({ name: value }));
        assert_eq!(container.output(), value, "{name}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before, "{name}");
    };
    check(
        "net.ipv4.ip_forward",
        if fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim() == "1" { "0" } else { "1" },
    );
    check("net.ipv4.ping_group_range", "0\t2147483647");
    check("net.ipv4.ip_unprivileged_port_start", "81");
    check("kernel.msgmax", "4321");
    check("kernel.shm_rmid_forced", "1");
    check("fs.mqueue.msg_max", "33");
}

#[test]
fn a_parameter_s_name_may_have_slashes() {
    let container = Container::new("cat /proc/sys/net/ipv4/conf/lo/forwarding").with(|spec| {
        spec["linux"]["sysctl"] = json!({ "net/ipv4/conf/lo/forwarding": "1" });
    });
    assert_eq!(container.output(), "1");
}

#[test]
fn parameters_of_the_whole_machine_are_refused() {
    let check = |name: &str, value: &str, without: Option<&str>| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let before = fs::read_to_string(&path).ok();
        let mut container = Container::new("true").with(|spec| spec["linux"]["sysctl"] = json!({ name: value }));
        if let Some(kind) = without {
            container.namespace(kind, None);
        }
        let outcome = container.try_create();
        let after = fs::read_to_string(&path).ok();
        if let Some(before) = &before
            && after.as_ref() != Some(before)
        {
            let _ = fs::write(&path, before);
        }
        assert_eq!(after, before, "{name} of the machine was changed");
        outcome.refused();
        container.assert_gone();
    };
    check("vm.swappiness", "61", None);
    check("kernel.pid_max", "32000", None);
    check("kernel.nonsense", "1", None);
    check("net.ipv4.nonsense", "1", None);
    check("net.ipv4.ip_forward", "nonsense", None);
    check("net.ipv4.ip_default_ttl", "65", Some("network"));
    check("kernel.msgmax", "4321", Some("ipc"));
    check("net.ipv4/../../vm/swappiness", "61", None);
    check("net.ipv4.conf.../../../../vm/swappiness", "61", None);
}
