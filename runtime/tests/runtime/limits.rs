//! What the cgroup holds: memory, processor time, processes.

use std::fs;
use std::time::{Duration, Instant};

use berth_runtime::Stdio;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Process;
use serde_json::{Value, json};
use std::os::fd::AsFd;
use std::sync::Barrier;

use crate::support::{Container, finish};

#[test]
fn who_takes_more_memory_than_allowed_is_killed_and_it_is_told() {
    let mut container = Container::new("read line; x=a; while :; do x=$x$x; done");
    container.spec["linux"]["resources"] = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let spawned = container.create_with(Stdio { stdin: Some(read), ..Default::default() }).unwrap();
    let cgroup = container.runtime.cgroup(&container.id).unwrap();
    let watch = cgroup.watch_oom().unwrap();
    container.runtime.start(&container.id).unwrap();
    assert_eq!(cgroup.oom_kill_count().unwrap(), 0);
    nix::unistd::write(&write, b"go\n").unwrap();
    let mut ready = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, PollTimeout::from(20_000_u16)).unwrap(), 1, "nobody told of the OOM killer");
    watch.clear().unwrap();
    assert_eq!(finish(&spawned), 137);
    assert_eq!(cgroup.oom_kill_count().unwrap(), 1);
}

#[test]
fn who_spins_gets_the_quota_and_no_more() {
    let mut container = Container::new("while :; do :; done");
    container.spec["linux"]["resources"] = json!({ "cpu": { "quota": 20_000, "period": 100_000, "shares": 512 } });
    let spawned = container.running();
    let used = || {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", spawned.pid)).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    // Skip the first periods, in which the process still used the time it had before it was limited.
    crate::support::until("it spins", || used() > Duration::from_millis(40));
    let (begin, before) = (Instant::now(), used());
    crate::support::until("two seconds", || begin.elapsed() > Duration::from_secs(2));
    let share = (used() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    // Never more than the quota but for the edges; less only because the machine is busy with other tests.
    assert!(share < 0.23, "got {share:.3} of a processor instead of 0.2");
    assert!(share > 0.05, "got {share:.3} of a processor instead of 0.2");
    container.runtime.kill(&container.id, 9, false).unwrap();
    finish(&spawned);
}

#[test]
fn there_are_no_more_processes_than_allowed() {
    let mut container = Container::new("for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; true");
    container.spec["linux"]["resources"] = json!({ "pids": { "limit": 4 } });
    let (_, output) = container.run();
    assert!(output.contains("can't fork") || output.contains("temporarily unavailable"), "{output}");
}

#[test]
fn processors_are_those_of_the_set() {
    let mut container = Container::new("nproc");
    container.spec["linux"]["resources"] = json!({ "cpu": { "cpus": "0", "mems": "0" } });
    assert_eq!(container.output(), "1");
    assert!(container.cgroup_folders().iter().any(|folder| folder.starts_with("/sys/fs/cgroup/cpuset")));
    container.runtime.delete(&container.id).unwrap();
    container.assert_gone();
}

#[test]
fn of_two_who_change_a_container_at_once_neither_is_lost() {
    for _ in 0..20 {
        let container = Container::new("sleep 100");
        container.running();
        let mut curious: Process = serde_json::from_value(container.spec["process"].clone()).unwrap();
        let capabilities = json!({ "bounding": ["CAP_SYS_PTRACE"] });
        curious.set_args(Some(vec!["true".into()])).set_capabilities(serde_json::from_value(capabilities).unwrap());
        // Both write to the record: that there is a controller more, and that processes may look into others.
        let pages = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] });
        let pages = serde_json::from_value(pages).unwrap();
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                container.runtime.update(&container.id, &pages).unwrap();
            });
            both.wait();
            finish(&container.runtime.exec(&container.id, &curious, Stdio::default()).unwrap());
        });
        let record = fs::read(container.folder().join("state").join(&container.id).join("state.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        assert_eq!((&record["curious"], &record["controllers"]), (&json!(true), &json!(["hugetlb"])));
    }
}

#[test]
fn limits_are_changed_while_it_runs() {
    let container = Container::new("sleep 100");
    container.running();
    let resources = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 11 }, "cpu": { "shares": 256, "quota": 30_000, "period": 100_000 } });
    container.runtime.update(&container.id, &serde_json::from_value(resources).unwrap()).unwrap();
    let cgroup = container.runtime.cgroup(&container.id).unwrap();
    let value = |controller: &str, v1: &str, v2: &str| {
        let (folder, version) = cgroup.folder(controller).unwrap();
        let file = if version == berth_sys::cgroup::Version::V1 { v1 } else { v2 };
        fs::read_to_string(folder.join(file)).unwrap().trim().to_owned()
    };
    assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value("pids", "pids.max", "pids.max"), "11");
    assert_eq!(value("cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("30000"));
}
