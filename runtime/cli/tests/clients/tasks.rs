//! containerd 1.6 with `containerd-shim-runc-v2`: tasks.

use std::fs;

use crate::containerd::Containerd;
use crate::eventually::eventually;

const WAIT: &str = "trap 'exit 7' TERM; while :; do sleep 0.1; done";

#[test]
fn a_command_runs_and_its_code_comes_back() {
    let containerd = Containerd::start();
    let mut round = 0;
    // When a task ends, ctr sometimes cuts off what it has not read yet.
    eventually("all output has arrived", || {
        round += 1;
        let program = "echo hello; echo wrong >&2; exit 5";
        let ended = containerd.run(&["--rm"], &format!("a{round}"), &["sh", "-c", program]).failed_with(5);
        if ended.out == "hello\n" && ended.err.contains("wrong") { Ok(()) } else { Err(format!("{ended:?}")) }
    });
    let missing = containerd.run(&["--rm"], "b", &["nosuch"]).failed_with(1);
    assert!(missing.err.contains("executable file not found in $PATH"), "{}", missing.err);
    assert_eq!(containerd.status("b"), None);
}

#[test]
fn a_task_lives_in_the_background() {
    let containerd = Containerd::start();
    let log = containerd.file("output");
    let uri = format!("--log-uri=file://{}", log.display());
    let program = format!("echo logged; {WAIT}");
    containerd.run(&["--detach", "--memory-limit=67108864", &uri], "a", &["sh", "-c", &program]).ok();
    assert_eq!(containerd.status("a").as_deref(), Some("RUNNING"));
    eventually("its output is in the log", || match fs::read_to_string(&log).unwrap_or_default() {
        text if text == "logged\n" => Ok(()),
        text => Err(text),
    });
    containerd.ctr(&["task", "exec", "--exec-id=e", "a", "sh", "-c", "echo inside > /file; exit 3"]).failed_with(3);
    assert_eq!(containerd.ctr(&["task", "exec", "--exec-id=g", "a", "grep", "-q", "inside", "/file"]).code, 0);
    let missing = containerd.ctr(&["task", "exec", "--exec-id=f", "a", "nosuch"]).failed_with(1);
    assert!(missing.err.contains("executable file not found in $PATH"), "{}", missing.err);
    let shown = containerd.ctr(&["task", "ps", "a"]).ok();
    assert!(shown.lines().count() >= 2, "{shown}");
    let figures = containerd.ctr(&["task", "metrics", "a"]).ok();
    let limit = figures.lines().find(|line| line.starts_with("memory.limit_in_bytes")).unwrap();
    assert!(limit.contains("67108864"), "{figures}");
    containerd.ctr(&["task", "kill", "--signal=TERM", "a"]).ok();
    containerd.await_status("a", "STOPPED");
    assert!(containerd.ctr(&["task", "rm", "a"]).ok().is_empty());
    containerd.ctr(&["container", "rm", "a"]).ok();
}

#[test]
fn a_task_is_frozen_and_thawed() {
    let containerd = Containerd::start();
    containerd.run(&["--detach"], "a", &["sh", "-c", WAIT]).ok();
    containerd.ctr(&["task", "pause", "a"]).ok();
    containerd.await_status("a", "PAUSED");
    containerd.ctr(&["task", "resume", "a"]).ok();
    containerd.await_status("a", "RUNNING");
    containerd.ctr(&["task", "kill", "--signal=KILL", "--all", "a"]).ok();
    containerd.await_status("a", "STOPPED");
    let removed = containerd.ctr(&["task", "rm", "a"]);
    assert!(removed.err.contains("137"), "{removed:?}");
}

#[test]
fn what_has_ended_cannot_be_killed() {
    let containerd = Containerd::start();
    containerd.run(&["--detach"], "a", &["true"]).ok();
    containerd.await_status("a", "STOPPED");
    let killed = containerd.ctr(&["task", "kill", "a"]);
    assert!(killed.code == 0 || killed.err.contains("not found"), "{killed:?}");
    containerd.ctr(&["task", "rm", "a"]).ok();
}

#[test]
fn a_task_is_removed_while_it_runs() {
    let containerd = Containerd::start();
    containerd.run(&["--detach"], "a", &["sh", "-c", WAIT]).ok();
    containerd.ctr(&["task", "rm", "--force", "a"]);
    assert_eq!(containerd.status("a"), None);
    containerd.run(&["--detach"], "b", &["sh", "-c", WAIT]).ok();
    assert_eq!(containerd.status("b").as_deref(), Some("RUNNING"));
}

#[test]
fn a_task_has_what_it_was_given() {
    let containerd = Containerd::start();
    let shared = containerd.file("shared");
    fs::create_dir(&shared).unwrap();
    let mount = format!("--mount=type=bind,src={},dst=/shared,options=rbind:rw", shared.display());
    let program = "echo $A > /shared/file; grep ^Seccomp: /proc/self/status; touch /x";
    let ended = containerd.run(&["--rm", "--read-only", "--seccomp", "--env=A=b", &mount], "a", &["sh", "-c", program]);
    assert_eq!(ended.failed_with(1).out, "Seccomp:\t2\n");
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "b\n");
    let privileged = containerd.run(&["--rm", "--net-host"], "b", &["readlink", "/proc/self/ns/net"]).ok();
    assert_eq!(privileged.trim(), fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
}
