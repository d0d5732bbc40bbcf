//! config-linux.md: namespaces: new ones, others' and the machine's.

use std::fs;

use berth_runtime_tests::machine::{Mounted, misses};
use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, lacks};
use serde_json::json;

/// The kinds as the configuration and as `/proc` call them.
const KINDS: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("cgroup", "cgroup")];

#[test]
fn each_kind_is_new_if_it_is_named() {
    let (own, seen) = (Report::take(), Container::probe().seen());
    for (kind, name) in KINDS {
        assert_ne!(seen.namespaces[name], own.namespaces[name], "{kind}");
    }
    for (kind, name) in [("user", "user"), ("time", "time")] {
        assert_eq!(seen.namespaces[name], own.namespaces[name], "{kind}");
    }
}

#[test]
fn each_kind_is_the_machine_s_if_it_is_not_named() {
    let own = Report::take();
    for (kind, name) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        let mut container = Container::probe();
        container.namespace(kind, None);
        if *kind == "uts" {
            // The machine's name is not the container's to change.
            container.spec.as_object_mut().unwrap().remove("hostname");
        }
        if *kind == "network" {
            // A machine's sysfs can be bound, but not mounted anew from another user namespace; from this it can.
            container.spec["process"]["cwd"] = json!("/");
        }
        let seen = container.seen();
        assert_eq!(seen.namespaces[*name], own.namespaces[*name], "{kind}");
        for (other, name) in KINDS.iter().filter(|(other, _)| other != kind) {
            assert_ne!(seen.namespaces[*name], own.namespaces[*name], "{kind}, and {other} too");
        }
    }
}

#[test]
fn each_kind_is_another_container_s_if_it_has_a_path() {
    let first = Container::sleeper().running();
    for (kind, name) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        let path = format!("/proc/{}/ns/{name}", first.pid());
        let theirs = fs::read_link(&path).unwrap();
        let mut container = Container::probe();
        container.namespace(kind, Some(&path));
        if *kind == "uts" {
            container.spec.as_object_mut().unwrap().remove("hostname");
        }
        assert_eq!(container.seen().namespaces[*name], theirs.to_str().unwrap(), "{kind}");
    }
}

#[test]
fn a_pod_s_containers_share_three_and_have_their_own_others() {
    let sandbox = Container::sleeper().running();
    let mut container = Container::probe();
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        container.namespace(kind, Some(&format!("/proc/{}/ns/{name}", sandbox.pid())));
    }
    container.spec.as_object_mut().unwrap().remove("hostname");
    let seen = container.seen();
    for (name, shared) in [("net", true), ("ipc", true), ("uts", true), ("pid", false), ("mnt", false)] {
        let theirs = fs::read_link(format!("/proc/{}/ns/{name}", sandbox.pid())).unwrap();
        assert_eq!(seen.namespaces[name] == theirs.to_str().unwrap(), shared, "{name}");
    }
    assert_eq!(seen.file("/proc/sys/kernel/hostname"), "box");
}

#[test]
fn a_joined_namespace_of_processes_shows_them_and_is_not_ended_with_the_container() {
    let first = Container::sleeper().running();
    let mut second = Container::new("ps -o pid,args; ls -d /proc/1; echo $$; exec sleep 1000");
    second.namespace("pid", Some(&format!("/proc/{}/ns/pid", first.pid())));
    let second = second.running();
    berth_runtime_tests::until("it has told", || second.out().contains("/proc/1\n"));
    let out = second.out();
    assert!(out.contains("trap"), "the first's program is in sight: {out}");
    assert_ne!(out.lines().last(), Some("1"));
    second.delete();
    assert_eq!(first.status(), "running");
    assert_eq!(first.exec("true").code, 0);
}

#[test]
fn a_namespace_can_be_pinned_to_a_file() {
    let first = Container::sleeper().running();
    let pin = first.folder().join("pin");
    fs::write(&pin, "").unwrap();
    let theirs = fs::read_link(format!("/proc/{}/ns/net", first.pid())).unwrap();
    let source = format!("/proc/{}/ns/net", first.pid());
    nix::mount::mount(Some(source.as_str()), &pin, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
    let pinned = Mounted { path: pin.clone() };
    first.delete();
    let mut container = Container::probe();
    container.namespace("network", Some(pin.to_str().unwrap()));
    assert_eq!(container.seen().namespaces["net"], theirs.to_str().unwrap());
    drop(pinned);
}

#[test]
fn a_path_that_is_no_such_namespace_is_refused() {
    for path in ["/proc/self/ns/uts", "/nowhere", "/etc/passwd", "/proc/self/ns"] {
        let mut container = Container::new("true");
        container.namespace("network", Some(path));
        container.try_create().refused();
        container.assert_gone();
    }
}

#[test]
fn the_network_is_empty_but_for_the_loopback() {
    let container = Container::new("ls /sys/class/net; wc -l < /proc/net/route");
    assert_eq!(container.output(), "lo\n1");
    // The specification does not ask for it, but programs expect it: a loopback that is up.
    let container = Container::new("ip -o link show lo");
    assert!(container.output().contains("LOOPBACK,UP"), "{}", container.out());
}

#[test]
fn the_program_is_the_first_process_and_sees_no_other() {
    let container = Container::new("echo $$; ls /proc | grep -c '^[0-9]'");
    let output = container.output();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].parse::<u32>().unwrap() <= 3, "{output}");
}

#[test]
fn processes_that_lost_their_parent_are_the_first_process_s() {
    // By its path: a shell with a sleep of its own would not change its name.
    let script = "(/bin/sleep 1000 &); while ! ps -o ppid,args | grep -q '^ *1 .*[ /]sleep 1000$'; do :; done";
    assert_eq!(Container::new(script).run().code, 0);
}

#[test]
fn messages_and_shared_memory_are_the_container_s_own() {
    let container = Container::new(
        "cat /proc/sys/kernel/msgmax > /dev/null; ipcs | grep -c 0x; touch /dev/mqueue/x; ls /dev/mqueue",
    );
    assert_eq!(container.run().out, "0\nx\n");
    let other = Container::new("ls /dev/mqueue");
    assert_eq!(other.output(), "");
}

#[test]
fn the_cgroup_namespace_shows_the_container_s_group_as_the_root() {
    let mut container = Container::probe();
    let seen = container.seen();
    assert!(!seen.file("/proc/self/cgroup").contains(&container.id), "{}", seen.file("/proc/self/cgroup"));
    container.delete();
    container.namespace("cgroup", None);
    let seen = container.seen();
    assert!(seen.file("/proc/self/cgroup").contains(&container.id), "{}", seen.file("/proc/self/cgroup"));
}

#[test]
fn time_is_shifted_in_a_time_namespace() {
    if misses(!std::path::Path::new("/proc/self/timens_offsets").exists(), "time namespaces")
        || lacks("runc < 1.2 | crun < 1.9", "no time namespaces")
    {
        return;
    }
    let container = Container::probe().with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
        spec["linux"]["timeOffsets"] =
            json!({ "monotonic": { "secs": 1000, "nanosecs": 5 }, "boottime": { "secs": 5_000_000 } });
    });
    let seen = container.seen();
    let offsets: Vec<Vec<&str>> =
        seen.file("/proc/self/timens_offsets").lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(offsets, [["monotonic", "1000", "5"], ["boottime", "5000000", "0"]]);
    assert!(seen.file("/proc/uptime").split('.').next().unwrap().parse::<u64>().unwrap() >= 5_000_000);
    assert_ne!(seen.namespaces["time"], Report::take().namespaces["time"]);
    // Offsets without a namespace of one's own are the machine's.
    let container =
        Container::new("true").with(|spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } }));
    container.try_create().refused();
}
