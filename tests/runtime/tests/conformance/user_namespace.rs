//! config-linux.md: user namespaces with their mappings, and mounts that are mapped.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use berth_runtime_tests::machine::misses;
use berth_runtime_tests::{Container, lacks};
use serde_json::{Value, json};

const FIRST: u32 = 200_000;

/// A container in a user namespace, whose root folder is its root's.
fn mapped(container: Container) -> Container {
    container.chown(FIRST);
    container.with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let mapping = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
        spec["linux"]["uidMappings"] = mapping.clone();
        spec["linux"]["gidMappings"] = mapping;
    })
}

#[test]
fn root_is_root_inside_and_nobody_special_outside() {
    let container = mapped(Container::probe());
    let seen = container.seen();
    assert_eq!((seen.uids.as_slice(), seen.gids.as_slice()), (&[0; 4][..], &[0; 4][..]));
    let map: Vec<_> = seen.file("/proc/self/uid_map").split_whitespace().map(str::to_owned).collect();
    assert_eq!(map, ["0", "200000", "65536"]);
    assert_eq!(seen.file("/proc/self/gid_map").split_whitespace().collect::<Vec<_>>(), map);
    assert_ne!(seen.namespaces["user"], berth_runtime_tests::report::Report::take().namespaces["user"]);
    let running = mapped(Container::new("echo > /data/made; exec sleep 1000")).running();
    berth_runtime_tests::until("it is made", || running.rootfs().join("data/made").exists());
    let process = fs::metadata(format!("/proc/{}", running.pid())).unwrap();
    let file = fs::metadata(running.rootfs().join("data/made")).unwrap();
    assert_eq!([process.uid(), process.gid(), file.uid(), file.gid()], [FIRST; 4]);
}

#[test]
fn another_user_is_mapped_as_well() {
    let container = mapped(Container::probe()).with(|spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [7, 8] });
    });
    let seen = container.seen();
    assert_eq!((seen.uids, seen.gids, seen.groups), (vec![1000; 4], vec![1000; 4], vec![7, 8]));
}

#[test]
fn a_mapping_may_have_many_parts() {
    let container = mapped(Container::probe()).with(|spec| {
        let mappings: Vec<_> =
            (0..50).map(|it| json!({ "containerID": it * 10, "hostID": FIRST + it * 10, "size": 10 })).collect();
        spec["linux"]["uidMappings"] = json!(mappings);
        spec["linux"]["gidMappings"] = json!(mappings);
    });
    assert_eq!(container.seen().file("/proc/self/uid_map").lines().count(), 50);
}

#[test]
fn the_usual_mounts_and_devices_are_there_and_the_container_s_root_owns_its_namespaces() {
    let container = mapped(Container::new(
        "echo > /dev/null; stat -c '%t:%T' /dev/null /dev/zero; touch /dev/shm/x /dev/mqueue/x; hostname; \
         ls /sys/class/net; ls -d /dev/pts/ptmx; chown 5:6 /dev/shm/x && stat -c %u:%g /dev/shm/x",
    ));
    assert_eq!(container.output(), "1:3\n1:5\nbox\nlo\n/dev/pts/ptmx\n5:6");
}

#[test]
fn capabilities_hold_inside_alone() {
    let mut container = mapped(Container::new(
        "hostname other && hostname; ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu; \
         mknod /tmp/x c 1 3 || echo no node; \
         chown 5 /data/machine || echo no change",
    ));
    fs::write(container.rootfs().join("data/machine"), "").unwrap();
    container.grant(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    assert_eq!(container.output(), "other\n1400\nno node\nno change");
}

#[test]
fn sysctls_of_its_own_namespaces_can_be_set() {
    let container = mapped(Container::new("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"));
    let container = container.with(|spec| {
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "81", "kernel.msgmax": "4321" });
    });
    assert_eq!(container.output(), "81\n4321");
}

#[test]
fn clocks_of_its_own_time_namespace_can_be_set() {
    if misses(!std::path::Path::new("/proc/self/timens_offsets").exists(), "time namespaces")
        || lacks("runc < 1.2 | crun < 1.9", "no time namespaces")
    {
        return;
    }
    let container = mapped(Container::probe()).with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
        spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 5_000_000 } });
    });
    let seen = container.seen();
    assert!(seen.file("/proc/uptime").split('.').next().unwrap().parse::<u64>().unwrap() >= 5_000_000);
}

#[test]
fn limits_and_score_and_masks_hold_as_ever() {
    let container = mapped(Container::probe()).with(|spec| spec["process"]["oomScoreAdj"] = json!(700));
    let seen = container.seen();
    assert_eq!((seen.limits["Max open files"].0.as_str(), seen.oom_score_adj), ("1024", 700));
    let container = mapped(Container::new("cat /proc/kcore /proc/keys; echo x > /proc/sys/kernel/shmmni"));
    let outcome = container.run();
    assert!(outcome.out.is_empty() && outcome.err.contains("Read-only file system"), "{outcome:?}");
}

#[test]
fn processes_that_join_are_in_the_namespace() {
    let container = mapped(Container::sleeper()).running();
    let seen = berth_runtime_tests::container::report(&container.exec_with(&[], &["/bin/probe"]).ok());
    assert_eq!(seen.uids, [0; 4]);
    assert_eq!(
        seen.namespaces["user"],
        fs::read_link(format!("/proc/{}/ns/user", container.pid())).unwrap().to_str().unwrap()
    );
    assert_eq!(container.exec_with(&["--user", "1000:1000"], &["/bin/id", "-u"]).ok(), "1000\n");
}

#[test]
fn another_container_s_user_namespace_can_be_joined() {
    let first = mapped(Container::sleeper()).running();
    let mut second = mapped(Container::probe());
    let path = |name: &str| format!("/proc/{}/ns/{name}", first.pid());
    second.namespace("user", Some(&path("user")));
    second.namespace("network", Some(&path("net")));
    second.namespace("ipc", Some(&path("ipc")));
    second.spec["linux"].as_object_mut().unwrap().remove("uidMappings");
    second.spec["linux"].as_object_mut().unwrap().remove("gidMappings");
    if lacks("runc < 1.2", "mappings are asked for beside the path") {
        let mapping = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
        second.spec["linux"]["uidMappings"] = mapping.clone();
        second.spec["linux"]["gidMappings"] = mapping;
        return;
    }
    let seen = second.seen();
    for name in ["user", "net", "ipc"] {
        assert_eq!(seen.namespaces[name], fs::read_link(path(name)).unwrap().to_str().unwrap(), "{name}");
    }
    assert_eq!(seen.uids, [0; 4]);
}

#[test]
fn mappings_without_a_namespace_or_a_namespace_without_mappings_are_refused() {
    let container = mapped(Container::new("true")).with(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("uidMappings");
        spec["linux"].as_object_mut().unwrap().remove("gidMappings");
    });
    if !lacks("crun", "makes mappings up") {
        container.try_create().refused();
        container.assert_gone();
    }
    let mut container = mapped(Container::new("true"));
    container.namespace("user", None);
    if !lacks("runc < 1.2 | crun", "ignores mappings") {
        container.try_create().refused();
        container.assert_gone();
    }
}

#[test]
fn a_user_who_is_not_mapped_is_refused() {
    let container =
        mapped(Container::new("true")).with(|spec| spec["process"]["user"] = json!({ "uid": 70_000, "gid": 0 }));
    let refused = container.try_create().code != 0 || container.verb("start").code != 0;
    assert!(refused);
}

/// What a container in a user namespace sees of a volume of the machine's own users.
fn volume(container: Container, options: Value, mappings: Option<Value>) -> Container {
    let mut container = container;
    let volume = container.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    for (name, id) in [("of-root", 0), ("of-worker", 1000)] {
        fs::write(volume.join(name), "").unwrap();
        chown(volume.join(name), Some(id), Some(id)).unwrap();
    }
    let mut mount = json!({ "destination": "/data", "source": volume, "type": "bind", "options": options });
    if let Some(mappings) = mappings {
        mount["uidMappings"] = mappings.clone();
        mount["gidMappings"] = mappings;
    }
    container.mount(mount);
    container
}

const SHOW: &str = "cd /data; stat -c '%n %u:%g' of-root of-worker; touch made";

#[test]
fn a_volume_that_is_not_mapped_belongs_to_nobody() {
    let container = volume(mapped(Container::new(SHOW)), json!(["rbind"]), None);
    let outcome = container.run();
    assert_eq!(outcome.out, "of-root 65534:65534\nof-worker 65534:65534\n");
    assert!(outcome.err.contains("ermission denied"), "{outcome:?}");
}

#[test]
fn a_volume_that_is_mapped_belongs_to_the_container_s_users() {
    if lacks("runc < 1.2", "no mapped mounts") {
        return;
    }
    let own = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
    let check = |options: Value, mappings: Option<Value>| {
        let container = volume(mapped(Container::new(SHOW)), options, mappings);
        assert_eq!(container.output(), "of-root 0:0\nof-worker 1000:1000");
        let made = fs::metadata(container.folder().join("volume/made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (0, 0));
    };
    check(json!(["rbind"]), Some(own.clone()));
    if !lacks("crun < 1.9", "the option needs mappings of its own") {
        check(json!(["rbind", "idmap"]), None);
        check(json!(["rbind", "ridmap"]), None);
        check(json!(["bind", "idmap"]), Some(own));
    }
}

#[test]
fn a_mapped_volume_can_be_had_without_a_user_namespace_and_shifts_users() {
    if lacks("runc < 1.2 | crun < 1.9", "no mapped mounts, or in user namespaces alone") {
        return;
    }
    let mappings = json!([{ "containerID": 0, "hostID": 5000, "size": 2000 }]);
    let container = volume(Container::new(SHOW), json!(["bind", "idmap"]), Some(mappings));
    let output = container.run().out;
    assert_eq!(output, "of-root 5000:5000\nof-worker 6000:6000\n");
}

#[test]
fn mappings_of_a_mount_that_make_no_sense_are_refused() {
    if lacks("runc < 1.2 | crun < 1.9", "no mapped mounts") {
        return;
    }
    let container = volume(Container::new(SHOW), json!(["bind", "idmap"]), None);
    container.try_create().refused();
    let mut container = volume(
        mapped(Container::new("true")),
        json!(["bind"]),
        Some(json!([{ "containerID": 0, "hostID": 5, "size": 10 }])),
    );
    container.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap().as_object_mut().unwrap().remove("gidMappings");
    container.try_create().refused();
    container.assert_gone();
}
