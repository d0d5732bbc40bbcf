//! Staying with a process.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, WAIT, ended};

/// Sends a signal to the runtime that timeout(1) runs for us.
fn signal(child: &Child, signal: &str) {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let runtime = fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-s", signal, runtime.trim()]).status().unwrap().success());
}

#[test]
fn signals_are_passed_on() {
    let bundle =
        Bundle::of("trap 'echo usr1 > /heard' USR1; trap 'exit 9' TERM; echo x > /there; while :; do sleep 0.05; done");
    let mut child = bundle.command(&["run", "a"]).stdout(Stdio::null()).spawn().unwrap();
    bundle.await_file("there");
    signal(&child, "USR1");
    assert_eq!(bundle.await_file("heard"), "usr1\n");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(bundle.runtime(&["list", "-q"]).ok(), "");
}

#[test]
fn signals_are_passed_on_to_what_is_executed() {
    let bundle = Bundle::running(WAIT);
    let script = "trap 'exit 9' INT; echo x > /begun; while :; do sleep 0.05; done";
    let mut child = bundle.command(&["exec", "a", "sh", "-c", script]).stdout(Stdio::null()).spawn().unwrap();
    bundle.await_file("begun");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn whoever_kills_a_program_is_told_as_shells_do() {
    let bundle = Bundle::of(WAIT);
    let mut child = bundle.command(&["run", "a"]).stdout(Stdio::null()).spawn().unwrap();
    bundle.await_file("there");
    bundle.runtime(&["kill", "a", "KILL"]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn a_caller_may_ignore_the_ends_of_its_children() {
    let bundle = Bundle::of("grep SigIgn: /proc/self/status; exit 5");
    let line = bundle.line("run a").replace("&& ", "&& exec env --ignore-signal=CHLD ");
    let ended = ended(Command::new("timeout").args(["--kill-after=5", "60", "sh", "-c", &line]).stdin(Stdio::null()));
    assert_eq!((ended.code, ended.out.as_str()), (5, "SigIgn:\t0000000000000000\n"), "{}", ended.err);
}
