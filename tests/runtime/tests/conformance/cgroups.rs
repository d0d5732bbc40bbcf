//! config-linux.md: the control group's path, and resources as they arrive in its files.

use std::fs;

use berth_runtime_tests::machine::{Layout, layout, misses};
use berth_runtime_tests::{Container, lacks, until};
use serde_json::{Value, json};

/// A running container with these resources.
fn with(resources: Value) -> Container {
    let container = Container::sleeper().with(|spec| {
        let own = spec["linux"]["resources"].as_object_mut().unwrap();
        own.extend(resources.as_object().unwrap().clone());
    });
    container.running()
}

#[test]
fn all_hierarchies_have_the_group_with_the_process_in_it() {
    let container = with(json!({}));
    let folders = container.cgroup().folders();
    let controllers = ["memory", "pids", "cpu", "devices", "freezer", "cpuset"];
    assert!(
        controllers.iter().all(|controller| folders.contains(&container.cgroup().folder(controller))),
        "{folders:?}"
    );
    for folder in folders.iter().filter(|folder| !folder.starts_with("/sys/fs/cgroup/unified")) {
        let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        assert!(inside.lines().any(|line| line == container.pid().to_string()), "{}", folder.display());
    }
    container.delete();
}

#[test]
fn a_group_may_be_deep_and_its_parents_are_left() {
    let mut container = Container::sleeper();
    let top = berth_runtime_tests::cgroup::Cgroup::new(&format!("/{}-top", container.id));
    container.spec["linux"]["cgroupsPath"] = json!(format!("/{}-top/middle/{}", container.id, container.id));
    let container = container.running();
    assert!(container.cgroup().processes().contains(&container.pid()));
    container.delete();
    let folders = top.folders();
    assert!(!folders.is_empty(), "the parents are not the container's");
    for folder in folders {
        fs::remove_dir(folder.join("middle")).and_then(|()| fs::remove_dir(folder)).unwrap();
    }
}

#[test]
fn a_group_that_somebody_else_uses_is_not_removed_with_its_processes() {
    let container = with(json!({}));
    let folder = container.cgroup().folder("memory");
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let neighbour = folder.with_file_name(format!("{}-neighbour", container.id));
    fs::create_dir(&neighbour).unwrap();
    fs::write(neighbour.join("cgroup.procs"), other.id().to_string()).unwrap();
    container.delete();
    assert!(other.try_wait().unwrap().is_none(), "another's process was ended");
    other.kill().unwrap();
    other.wait().unwrap();
    until("the neighbour's group is empty", || fs::remove_dir(&neighbour).is_ok());
}

#[test]
fn a_container_without_a_path_has_a_group_all_the_same() {
    let container = Container::probe().with(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    let mut container = container;
    container.namespace("cgroup", None);
    let seen = container.seen();
    let line = seen.file("/proc/self/cgroup").lines().find(|line| line.contains(":pids:") || line.starts_with("0::/"));
    assert!(line.is_some_and(|line| line.contains(&container.id)), "{line:?}");
    container.verb("delete").ok();
}

#[test]
fn the_container_s_group_is_its_root_of_the_mounted_hierarchies() {
    let container = Container::new(
        "cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2> /dev/null; \
         ls -d /sys/fs/cgroup/*/suite-*; mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x",
    );
    let outcome = container.run();
    assert!(outcome.out.lines().any(|line| line == "1"), "{}", outcome.text());
    assert!(!outcome.out.contains("suite-"), "other groups are in sight: {}", outcome.text());
    assert!(outcome.err.contains("Read-only file system"), "{}", outcome.err);
}

#[test]
fn hierarchies_are_shown_without_a_namespace_too_and_cannot_be_changed() {
    let mut container = Container::new(
        "cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2> /dev/null; \
         mkdir /sys/fs/cgroup/pids/x; mkdir /sys/fs/cgroup/x",
    );
    container.namespace("cgroup", None);
    let outcome = container.run();
    assert!(outcome.out.lines().any(|line| line == "1"), "{}", outcome.text());
    assert!(outcome.err.contains("Read-only file system"), "{}", outcome.err);
}

/// A resource, the controller and its file in either version, and what must stand there.
fn check(resources: Value, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
    let container = with(resources.clone());
    let cgroup = container.cgroup();
    if misses(!cgroup.has(controller, v1.0, v2.0), &format!("the control group's file {} or {}", v1.0, v2.0)) {
        return;
    }
    let expected = if layout() == Layout::Unified { v2.1 } else { v1.1 };
    let found = cgroup.read(controller, v1.0, v2.0);
    assert!(found == expected || found.lines().any(|line| line == expected), "{resources}: {found} is not {expected}");
}

#[test]
fn memory_is_limited() {
    let limit = json!({ "memory": { "limit": 64 << 20 } });
    check(limit, "memory", ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864"));
    let swap = json!({ "memory": { "limit": 64 << 20, "swap": 96 << 20 } });
    check(swap, "memory", ("memory.memsw.limit_in_bytes", "100663296"), ("memory.swap.max", "33554432"));
    let reservation = json!({ "memory": { "reservation": 32 << 20 } });
    check(reservation, "memory", ("memory.soft_limit_in_bytes", "33554432"), ("memory.low", "33554432"));
    let unlimited = json!({ "memory": { "limit": -1 } });
    check(unlimited, "memory", ("memory.limit_in_bytes", "9223372036854771712"), ("memory.max", "max"));
    if layout() != Layout::Unified {
        check(json!({ "memory": { "swappiness": 11 } }), "memory", ("memory.swappiness", "11"), ("", ""));
        let oom = json!({ "memory": { "disableOOMKiller": true } });
        check(oom, "memory", ("memory.oom_control", "oom_kill_disable 1"), ("", ""));
    }
}

#[test]
fn processors_are_limited() {
    let quota = json!({ "cpu": { "quota": 25_000, "period": 50_000 } });
    check(quota.clone(), "cpu", ("cpu.cfs_quota_us", "25000"), ("cpu.max", "25000 50000"));
    check(quota, "cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "25000 50000"));
    check(json!({ "cpu": { "shares": 512 } }), "cpu", ("cpu.shares", "512"), ("cpu.weight", "20"));
    if !lacks("crun < 1.9", "no way to say that there is no limit") {
        check(json!({ "cpu": { "quota": -1 } }), "cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000"));
    }
    check(json!({ "cpu": { "cpus": "0", "mems": "0" } }), "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0"));
    if !lacks("runc < 1.2 | crun < 1.9", "no burst, no idle") {
        let burst = json!({ "cpu": { "quota": 25_000, "period": 50_000, "burst": 10_000 } });
        check(burst, "cpu", ("cpu.cfs_burst_us", "10000"), ("cpu.max.burst", "10000"));
        check(json!({ "cpu": { "idle": 1 } }), "cpu", ("cpu.idle", "1"), ("cpu.idle", "1"));
    }
}

#[test]
fn processes_are_limited() {
    check(json!({ "pids": { "limit": 17 } }), "pids", ("pids.max", "17"), ("pids.max", "17"));
    if !lacks("crun < 1.9", "no way to say that there is no limit") {
        check(json!({ "pids": { "limit": -1 } }), "pids", ("pids.max", "max"), ("pids.max", "max"));
    }
}

#[test]
fn disks_are_limited() {
    if !lacks("crun", "fails where the kernel has no weights") {
        let weight = json!({ "blockIO": { "weight": 300 } });
        check(weight, "blkio", ("blkio.bfq.weight", "300"), ("io.bfq.weight", "300"));
    }
    let Some(disk) = disk() else {
        misses(true, "a disk");
        return;
    };
    let (major, minor) = disk.split_once(':').unwrap();
    let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
    for (name, v1, v2) in [
        ("throttleReadBpsDevice", "read_bps", "rbps"),
        ("throttleWriteBpsDevice", "write_bps", "wbps"),
        ("throttleReadIOPSDevice", "read_iops", "riops"),
        ("throttleWriteIOPSDevice", "write_iops", "wiops"),
    ] {
        let resources = json!({ "blockIO": { name: [{ "major": major, "minor": minor, "rate": 1_000_000 }] } });
        let file = format!("blkio.throttle.{v1}_device");
        let expected: String = ["rbps", "wbps", "riops", "wiops"]
            .map(|it| format!(" {it}={}", if it == v2 { "1000000" } else { "max" }))
            .concat();
        let v2 = format!("{disk}{expected}");
        check(resources, "blkio", (&file, &format!("{disk} 1000000")), ("io.max", &v2));
    }
}

/// The numbers of some disk of this machine, not a part of one.
fn disk() -> Option<String> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    disks.filter_map(|disk| Some(fs::read_to_string(disk.path().join("dev")).ok()?.trim().to_owned())).next()
}

#[test]
fn huge_pages_are_limited() {
    let huge = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] });
    if layout() != Layout::Unified
        && misses(!std::path::Path::new("/sys/fs/cgroup/hugetlb").exists(), "a hierarchy of huge pages")
    {
        return;
    }
    check(huge, "hugetlb", ("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.max", "4194304"));
}

#[test]
fn remote_memory_is_limited() {
    let mut devices = fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let device = devices.next().map(|device| device.file_name().to_string_lossy().into_owned());
    if misses(device.is_none(), "a device for remote memory") {
        return;
    }
    let device = device.unwrap();
    let limits = json!({ "rdma": { &device: { "hcaHandles": 3, "hcaObjects": 100 } } });
    let expected = format!("{device} hca_handle=3 hca_object=100");
    check(limits, "rdma", ("rdma.max", &expected), ("rdma.max", &expected));
}

#[test]
fn packets_have_their_class() {
    if misses(!std::path::Path::new("/sys/fs/cgroup/net_cls").exists(), "a hierarchy of classes of packets") {
        return;
    }
    check(json!({ "network": { "classID": 1_048_577 } }), "net_cls", ("net_cls.classid", "1048577"), ("", ""));
}

#[test]
fn files_of_the_second_version_are_written_by_name() {
    if misses(layout() != Layout::Unified, "control groups of version 2 alone") {
        return;
    }
    check(json!({ "unified": { "memory.high": "10000000" } }), "memory", ("", ""), ("memory.high", "9998336"));
    for unified in [json!({ "nonsense.max": "1" }), json!({ "memory.nonsense": "1" }), json!({ "../x": "1" })] {
        let container = Container::new("true").with(|spec| spec["linux"]["resources"]["unified"] = unified);
        container.try_create().refused();
        container.assert_gone();
    }
}

#[test]
fn who_takes_more_memory_than_allowed_is_killed() {
    let mut container = Container::new("x=a; while :; do x=$x$x; done");
    container.spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    assert_eq!(container.run().code, 137);
}

#[test]
fn there_are_no_more_processes_than_allowed() {
    // runc's own threads are counted while it makes the container: no smaller limit than that.
    let container = Container::new("i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done").with(|spec| {
        spec["linux"]["resources"]["pids"] = json!({ "limit": 20 });
    });
    let outcome = container.run();
    assert!(outcome.err.contains("fork"), "{}", outcome.text());
}

#[test]
fn a_limit_that_the_kernel_refuses_is_an_error_and_nothing_is_left() {
    for resources in [
        json!({ "cpu": { "cpus": "9999" } }),
        json!({ "cpu": { "quota": 5, "period": 50_000 } }),
        json!({ "memory": { "limit": 64 << 20, "swap": 32 << 20 } }),
    ] {
        let container = Container::new("true").with(|spec| {
            spec["linux"]["resources"].as_object_mut().unwrap().extend(resources.as_object().unwrap().clone());
        });
        container.try_create().refused();
        if !lacks("crun", "leaves the control group behind") {
            container.assert_gone();
        }
    }
}
