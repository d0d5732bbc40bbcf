//! The command that changes the limits of a running container, and the ones that stop it for a while.

use std::fs;

use berth_runtime_tests::machine::{Layout, layout};
use berth_runtime_tests::{Container, lacks, until};
use serde_json::json;

#[test]
fn each_option_changes_one_limit_and_leaves_the_others() {
    let container = Container::sleeper().with(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "swap": 128 << 20 });
        spec["linux"]["resources"]["pids"] = json!({ "limit": 50 });
        spec["linux"]["resources"]["cpu"] = json!({ "shares": 1024, "quota": 50_000, "period": 100_000 });
    });
    let container = container.running();
    let cgroup = container.cgroup();
    let check = |options: &[&str], controller: &str, v1: (&str, &str), v2: (&str, &str)| {
        let mut arguments = vec!["update"];
        arguments.extend(options);
        arguments.push(&container.id);
        container.call(&arguments).finish().ok();
        let expected = if layout() == Layout::Unified { v2.1 } else { v1.1 };
        assert_eq!(cgroup.read(controller, v1.0, v2.0), expected, "{options:?}");
    };
    let memory = |limit: &'static str| (("memory.limit_in_bytes", limit), ("memory.max", limit));
    let pids = |limit: &'static str| (("pids.max", limit), ("pids.max", limit));
    let (v1, v2) = memory("33554432");
    check(&["--memory", "33554432"], "memory", v1, v2);
    let (v1, v2) = memory("50331648");
    check(&["--memory", "50331648", "--memory-swap", "67108864"], "memory", v1, v2);
    check(
        &["--memory-reservation", "16777216"],
        "memory",
        ("memory.soft_limit_in_bytes", "16777216"),
        ("memory.low", "16777216"),
    );
    check(&["--cpu-share", "256"], "cpu", ("cpu.shares", "256"), ("cpu.weight", "10"));
    check(&["--cpu-quota", "20000"], "cpu", ("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 100000"));
    check(&["--cpu-period", "50000"], "cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "20000 50000"));
    check(&["--cpuset-cpus", "0"], "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0"));
    check(&["--cpuset-mems", "0"], "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0"));
    if !lacks("runc < 1.2 | crun < 1.9", "no burst, no idle") {
        check(&["--cpu-burst", "5000"], "cpu", ("cpu.cfs_burst_us", "5000"), ("cpu.max.burst", "5000"));
        check(&["--cpu-idle", "1"], "cpu", ("cpu.idle", "1"), ("cpu.idle", "1"));
        check(&["--cpu-idle", "0"], "cpu", ("cpu.idle", "0"), ("cpu.idle", "0"));
    }
    let (v1, v2) = pids("17");
    check(&["--pids-limit", "17"], "pids", v1, v2);
    assert_eq!(cgroup.read("memory", memory("").0.0, memory("").1.0), "50331648", "still the one of before");
    let (v1, v2) = memory("67108864");
    check(&["--memory", "67108864", "--memory-swap", "67108864"], "memory", v1, v2);
    if !lacks("crun", "sizes are numbers alone") {
        let (v1, v2) = memory("41943040");
        check(&["--memory", "40M"], "memory", v1, v2);
    }
}

#[test]
fn resources_are_read_from_a_file_and_from_the_input() {
    let resources = json!({
        "memory": { "limit": 33_554_432, "swap": 33_554_432 }, "cpu": { "shares": 300 }, "pids": { "limit": 30 },
    });
    for from_input in [true, false] {
        let container = Container::sleeper().running();
        let file = container.folder().join("resources.json");
        fs::write(&file, resources.to_string()).unwrap();
        let name = if from_input { "-" } else { file.to_str().unwrap() };
        let call = container.call(&["update", "--resources", name, &container.id]).input(&resources.to_string());
        call.finish().ok();
        let cgroup = container.cgroup();
        assert_eq!(cgroup.read("memory", "memory.limit_in_bytes", "memory.max"), "33554432");
        assert_eq!(cgroup.read("pids", "pids.max", "pids.max"), "30");
        assert_eq!(
            cgroup.read("cpu", "cpu.shares", "cpu.weight"),
            if layout() == Layout::Unified { "12" } else { "300" }
        );
    }
}

#[test]
fn an_update_changes_no_device_rule() {
    let container = Container::sleeper().with(|spec| {
        spec["linux"]["devices"] =
            json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 }]);
    });
    let container = container.running();
    container.call(&["update", "--pids-limit", "30", &container.id]).finish().ok();
    assert!(container.exec("cat < /dev/fuse").err.contains("Operation not permitted"));
    assert_eq!(container.exec("echo > /dev/null").code, 0);
}

#[test]
fn what_the_kernel_refuses_is_an_error_and_the_container_runs_on() {
    let container = Container::sleeper().running();
    for options in [["--cpuset-cpus", "9999"], ["--cpu-quota", "5"], ["--memory", "nonsense"], ["--pids-limit", "x"]] {
        container.call(&["update", options[0], options[1], &container.id]).finish().refused();
        assert_eq!(container.status(), "running");
    }
    let call = container.call(&["update", "--resources", "-", &container.id]).input("{");
    call.finish().refused();
}

#[test]
fn a_limit_below_what_is_used_is_refused_if_asked_and_nobody_is_killed() {
    let container = Container::new("dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2> /dev/null; echo; exec sleep 1000");
    let container = container.with(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 128 << 20, "swap": 128 << 20 });
    });
    let container = container.running();
    until("it uses memory", || !container.out().is_empty());
    let resources = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20, "checkBeforeUpdate": true } });
    let call = container.call(&["update", "--resources", "-", &container.id]).input(&resources.to_string());
    call.finish().refused();
    assert_eq!(container.status(), "running");
    assert_eq!(container.cgroup().read("memory", "memory.limit_in_bytes", "memory.max"), "134217728");
}

#[test]
fn a_created_container_can_be_updated() {
    let container = Container::sleeper();
    container.create();
    container.call(&["update", "--pids-limit", "33", &container.id]).finish().ok();
    assert_eq!(container.cgroup().read("pids", "pids.max", "pids.max"), "33");
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    let container = Container::new("i=0; while :; do i=$((i+1)); echo $i; done > /data/count").with(|spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=1g"] }));
    });
    let container = container.running();
    let pid = container.pid();
    let used = || fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap().split(' ').next().unwrap().to_owned();
    container.verb("pause").ok();
    assert_eq!(container.status(), "paused");
    let before = used();
    container.verb("state").ok();
    assert_eq!(used(), before, "it ran on");
    assert!(container.verb("pause").code != 0 || lacks("crun", "pausing twice is no error"));
    container.verb("resume").ok();
    assert_eq!(container.status(), "running");
    until("it runs again", || used() != before);
}

#[test]
fn a_paused_container_takes_no_new_process_unless_asked_to_wait() {
    let container = Container::sleeper().running();
    container.verb("pause").ok();
    if !lacks("crun < 1.9", "a new process of a paused container waits") {
        container.exec("true").refused();
        let waiting = container.exec_call(&["--ignore-paused"], &["true"]).begin();
        container.verb("resume").ok();
        assert_eq!(waiting.wait().code, 0);
    }
}

#[test]
fn a_paused_container_is_killed_and_deleted_with_force() {
    let container = Container::sleeper().running();
    container.verb("pause").ok();
    let pid = container.pid();
    container.delete();
    until("it is dead", || !berth_runtime_tests::container::is_alive(pid));
}

#[test]
fn a_paused_container_dies_of_kill() {
    let container = Container::sleeper().running();
    container.verb("pause").ok();
    container.kill("KILL").ok();
    if lacks("crun", "dies only when it is resumed") {
        container.verb("resume").ok();
    }
    assert_eq!(container.wait(), 137);
}

/// Freezes a group by the kernel's own file, as somebody might who is not the runtime.
fn freeze(folder: &std::path::Path) {
    let v1 = folder.join("freezer.state");
    if v1.exists() {
        fs::write(&v1, "FROZEN").unwrap();
        until("it is frozen", || fs::read_to_string(&v1).unwrap() == "FROZEN\n");
    } else {
        fs::write(folder.join("cgroup.freeze"), "1").unwrap();
        let events = folder.join("cgroup.events");
        until("it is frozen", || fs::read_to_string(&events).unwrap().contains("frozen 1"));
    }
}

#[test]
fn a_container_that_somebody_else_froze_is_paused_and_can_be_killed() {
    let container = Container::sleeper().running();
    freeze(&container.cgroup().folder("freezer"));
    if layout() == Layout::Hybrid {
        // Of two hierarchies that can, one froze it: the other does not know.
        let unified = fs::read_to_string(container.cgroup().folder("unified").join("cgroup.freeze")).unwrap();
        assert_eq!(unified, "0\n");
    }
    assert_eq!(container.status(), "paused");
    container.kill("KILL").ok();
    if lacks("crun", "dies only when it is resumed") {
        container.verb("resume").ok();
    }
    assert_eq!(container.wait(), 137);
    container.delete();
}

#[test]
fn a_group_that_a_container_froze_in_its_own_is_no_shelter() {
    if lacks("runc | crun", "what is frozen below outlives the container") {
        return;
    }
    let container = Container::new("sleep 1000 & echo $!; wait").running();
    until("it has a child", || container.cgroup().processes().len() == 2);
    let folder = container.cgroup().folder("freezer").join("below");
    fs::create_dir(&folder).unwrap();
    let child = *container.cgroup().processes().iter().find(|pid| **pid != container.pid()).unwrap();
    fs::write(folder.join("cgroup.procs"), child.to_string()).unwrap();
    freeze(&folder);
    container.delete();
    until("it is dead", || !berth_runtime_tests::container::is_alive(child));
}
