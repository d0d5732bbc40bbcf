//! Namespaces made and joined; what is set inside of them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use berth_runtime::Error;
use berth_sys::namespace::{Kind, pin_new, unpin};
use serde_json::json;

use crate::support::{Container, describe, finish};

fn of(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

#[test]
fn every_listed_namespace_is_new_and_no_other() {
    let check = |absent: Option<&str>| {
        let mut container = Container::new("sleep 100");
        if let Some(absent) = absent {
            container.namespace(absent, None);
            container.spec.as_object_mut().unwrap().remove("hostname");
        }
        let spawned = container.running();
        for (kind, file) in
            [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("cgroup", "cgroup")]
        {
            let new = of(&spawned.pid.to_string(), file) != of("self", file);
            assert_eq!(new, absent != Some(kind), "{kind} without {absent:?}");
        }
        container.runtime.kill(&container.id, 9, false).unwrap();
        finish(&spawned);
    };
    check(None);
    ["pid", "network", "ipc", "uts", "cgroup"].into_iter().for_each(|kind| check(Some(kind)));
}

#[test]
fn namespaces_are_joined_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [Kind::Net, Kind::Ipc, Kind::Uts];
    pin_new(&kinds, folder.path()).unwrap();
    let first = Container::new("while :; do sleep 1; done");
    let first_init = first.running();
    let mut second = Container::new(
        "hostname; ls /proc | grep -c '^[0-9]'; for n in net ipc uts pid; do readlink /proc/self/ns/$n; done",
    );
    for (name, kind) in [("network", Kind::Net), ("ipc", Kind::Ipc), ("uts", Kind::Uts)] {
        second.namespace(name, folder.path().join(kind.name()).to_str());
    }
    second.namespace("pid", Some(&format!("/proc/{}/ns/pid", first_init.pid)));
    let output = second.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "box");
    assert!(lines[1].parse::<u32>().unwrap() >= 3, "the other container's processes are in sight: {output}");
    for (line, kind) in lines[2..].iter().zip(["net", "ipc", "uts"]) {
        let pinned = fs::metadata(folder.path().join(kind)).unwrap().ino();
        assert_eq!(*line, format!("{kind}:[{pinned}]"));
    }
    assert_eq!(lines[5], of(&first_init.pid.to_string(), "pid"));
    kinds.iter().for_each(|kind| unpin(&folder.path().join(kind.name())).unwrap());
}

/// As CVE-2016-9962, among the containers of a pod.
#[test]
fn a_process_that_joins_is_not_robbed_by_a_neighbour_of_the_container() {
    let mut curious = Container::new(
        "while :; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in /bin/*|'') ;; \
         *) ls -l $p/fd 2> /dev/null | grep -- '-> /sys/fs/cgroup' >> /tmp/seen;; esac; done; done",
    );
    for set in ["bounding", "effective", "permitted"] {
        curious.spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
    }
    let init = curious.running();
    let mut neighbour = Container::new("while :; do sleep 1; done");
    neighbour.namespace("pid", Some(&format!("/proc/{}/ns/pid", init.pid)));
    let joined = neighbour.running();
    // What was seen while it was made is another matter.
    fs::write(curious.rootfs().join("tmp/seen"), "").unwrap();
    let codes: Vec<_> = (0..40).map(|_| neighbour.exec("true").0).collect();
    // A pid namespace ends with its last process.
    neighbour.runtime.kill(&neighbour.id, 9, false).unwrap();
    finish(&joined);
    let seen = fs::read_to_string(curious.rootfs().join("tmp/seen")).unwrap();
    assert_eq!((seen.as_str(), codes), ("", vec![0; 40]));
}

#[test]
fn parameters_are_set_in_the_container_s_namespaces_alone() {
    let machine = || fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let before = machine();
    let mut container = Container::new("cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_unprivileged_port_start");
    container.spec["linux"]["sysctl"] = json!({ "kernel.shmmni": "77", "net.ipv4.ip_unprivileged_port_start": "99" });
    assert_eq!(container.output(), "77\n99");
    assert_eq!(machine(), before);
}

#[test]
fn what_would_change_the_machine_is_refused() {
    let check = |change: &dyn Fn(&mut Container), expected: &str| {
        let mut container = Container::new("true");
        change(&mut container);
        let error = container.create().unwrap_err();
        assert!(matches!(error, Error::Spec { .. } | Error::Unsupported { .. }), "{error}");
        assert!(describe(&error).contains(expected), "{}", describe(&error));
        container.assert_gone();
    };
    check(&|it| it.spec["linux"]["sysctl"] = json!({ "kernel.panic": "1" }), "linux.sysctl.kernel.panic");
    check(&|it| it.spec["linux"]["sysctl"] = json!({ "net.core/../../kernel/panic": "1" }), "linux.sysctl");
    check(
        &|it| {
            it.namespace("network", None);
            it.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        },
        "needs a net namespace",
    );
    check(&|it| it.namespace("uts", None), "hostname");
    check(&|it| it.namespace("mount", None), "mount namespace");
}
