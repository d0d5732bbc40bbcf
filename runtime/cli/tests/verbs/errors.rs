//! What is told when something is wrong, and with what code.

use std::fs;

use serde_json::Value;

use crate::bundle::{Bundle, WAIT};

#[test]
fn a_container_that_is_not_there() {
    let bundle = Bundle::of("true");
    for words in [
        &["state", "b"][..],
        &["start", "b"],
        &["kill", "b"],
        &["delete", "b"],
        &["ps", "b"],
        &["pause", "b"],
        &["resume", "b"],
        &["update", "--memory", "64M", "b"],
        &["events", "--stats", "b"],
    ] {
        bundle.runtime(words).failed(1, "container does not exist");
    }
    bundle.runtime(&["exec", "b", "ls"]).failed(255, "exec failed: container does not exist");
}

#[test]
fn a_container_that_has_ended() {
    let bundle = Bundle::running(WAIT);
    bundle.runtime(&["start", "a"]).failed(1, "cannot start an already running container");
    bundle.create(&["a"]).failed(1, "create failed: container with given ID already exists");
    bundle.runtime(&["kill", "a", "KILL"]).ok();
    bundle.await_status("stopped");
    bundle.runtime(&["kill", "a", "KILL"]).failed(1, "container not running");
    bundle.runtime(&["kill", "--all", "a", "KILL"]).ok();
    bundle.runtime(&["start", "a"]).failed(1, "cannot start a container that has stopped");
    bundle.runtime(&["exec", "a", "ls"]).failed(255, "cannot exec in a stopped container");
    bundle.runtime(&["pause", "a"]).failed(1, "container not running");
}

#[test]
fn words_that_make_no_sense() {
    let bundle = Bundle::running(WAIT);
    for (words, code, message) in [
        (&["nosuch"][..], 3, "No help topic for 'nosuch'"),
        (&["create"], 1, "requires exactly 1 argument(s)"),
        (&["delete", "a", "b"], 1, "requires exactly 1 argument(s)"),
        (&["exec"], 1, "requires a minimum of 1 argument(s)"),
        (&["exec", "a"], 255, "exec failed: process args cannot be empty"),
        (&["exec", "--nosuch", "a", "ls"], 1, "flag provided but not defined: -nosuch"),
        (&["kill", "a", "NOSIG"], 1, "unknown signal"),
        (&["update", "--memory", "x", "a"], 1, "invalid value for memory: invalid size: 'x'"),
    ] {
        bundle.runtime(words).failed(code, message);
    }
    assert_ne!(bundle.runtime(&["kill", "a", "65"]).code, 0);
    for user in ["0x", "0:0x", "root", "x", "1:2x"] {
        assert_ne!(bundle.runtime(&["exec", "--user", user, "a", "true"]).code, 0, "{user:?}");
    }
}

#[test]
fn programs_that_are_not_there() {
    let mut bundle = Bundle::running(WAIT);
    let exec = |words: &[&str]| bundle.runtime(&[&["exec", "a"], words].concat());
    exec(&["nosuch"]).failed(255, "executable file not found in $PATH");
    exec(&["/nosuch"]).failed(255, "no such file or directory");
    exec(&["/proc/version"]).failed(255, "permission denied");
    exec(&["/bin"]).failed(255, "permission denied");
    bundle.config["process"]["args"] = serde_json::json!(["nosuch"]);
    bundle.config["linux"]["cgroupsPath"] = serde_json::json!("/berth-verbs-unused");
    bundle.save();
    bundle.create(&["b"]).failed(1, "executable file not found in $PATH");
    bundle.runtime(&["run", "b"]).failed(1, "executable file not found in $PATH");
    bundle.runtime(&["state", "b"]).failed(1, "container does not exist");
}

#[test]
fn the_log_is_what_clients_read() {
    let bundle = Bundle::of("true");
    let ended = bundle.runtime(&["--log", "log", "--log-format", "json", "start", "b"]);
    assert_eq!((ended.code, ended.err.as_str()), (1, "container does not exist\n"));
    let line: Value = serde_json::from_str(&fs::read_to_string(bundle.path("log")).unwrap()).unwrap();
    assert_eq!((&line["level"], &line["msg"]), (&"error".into(), &"container does not exist".into()));
    assert!(line["time"].as_str().unwrap().contains('T'));
    bundle.runtime(&["--log=text", "start", "b"]).failed(1, "");
    let text = fs::read_to_string(bundle.path("text")).unwrap();
    assert!(text.starts_with("time=\"") && text.ends_with("level=error msg=\"container does not exist\"\n"), "{text}");
    bundle.runtime(&["start", "b"]).failed(1, "level=error msg=\"container does not exist\"");
}
