//! state, list, ps, events, update, features, spec, version, help.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::{Bundle, WAIT, is_runc};

#[test]
fn a_container_is_described_as_json() {
    let mut bundle = Bundle::of(WAIT);
    bundle.config["annotations"] = json!({"org.example.key": "value"});
    bundle.save();
    bundle.create(&["a"]).ok();
    let state = bundle.state("a");
    assert_eq!(state["annotations"], json!({"org.example.key": "value"}));
    assert_eq!(state["bundle"], bundle.path("").to_str().unwrap().trim_end_matches('/'));
    assert_eq!(state["rootfs"], bundle.path("rootfs").to_str().unwrap());
    let keys: Vec<_> = state.as_object().unwrap().keys().collect();
    let wanted = ["annotations", "bundle", "created", "id", "ociVersion", "owner", "pid", "rootfs", "status"];
    assert_eq!(keys, wanted);
    let list: Value = serde_json::from_str(&bundle.runtime(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(list[0]["owner"], "root");
    assert_eq!(list[0]["pid"], state["pid"]);
}

#[test]
fn containers_are_listed_as_a_table() {
    let bundle = Bundle::of(WAIT);
    assert_eq!(bundle.runtime(&["list"]).ok(), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    assert_eq!(bundle.runtime(&["list", "-f", "json"]).ok(), "null\n");
    bundle.create(&["a"]).ok();
    let table = bundle.runtime(&["list"]).ok();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[1][0], lines[1][2], lines[1][5]), ("a", "created", "root"), "{table}");
    let column = table.lines().next().unwrap().find("STATUS").unwrap();
    assert_eq!(table.lines().nth(1).unwrap().find("created"), Some(column), "{table}");
}

#[test]
fn processes_are_shown() {
    let bundle = Bundle::running("sleep 1000 & exec sleep 2000");
    let pids = || serde_json::from_str::<Vec<i64>>(&bundle.runtime(&["ps", "-f", "json", "a"]).ok()).unwrap();
    crate::bundle::eventually("two processes", || pids().len() == 2);
    assert!(pids().contains(&bundle.state("a")["pid"].as_i64().unwrap()));
    let table = bundle.runtime(&["ps", "a"]).ok();
    assert!(table.lines().count() == 3 && table.contains("sleep 2000"), "{table}");
    let table = bundle.runtime(&["ps", "a", "-o", "pid,comm"]).ok();
    assert!(table.lines().skip(1).all(|line| line.ends_with("sleep")), "{table}");
}

#[test]
fn figures_are_told_once_or_again_and_again() {
    let bundle = Bundle::running(WAIT);
    let event: Value = serde_json::from_str(&bundle.runtime(&["events", "--stats", "a"]).ok()).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&"stats".into(), &"a".into()));
    for path in ["/cpu/usage/total", "/memory/usage/usage", "/pids/current"] {
        let figure = event["data"].pointer(path).and_then(Value::as_u64);
        assert!(figure.is_some_and(|figure| figure > 0), "{path}: {event}");
    }
    let mut child = bundle.command(&["events", "--interval", "50ms", "a"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).take(2).all(|line| line.starts_with("{\"type\":\"stats\",\"id\":\"a\"")));
    bundle.runtime(&["kill", "a", "KILL"]).ok();
    child.wait().unwrap();
}

#[test]
fn running_out_of_memory_is_told() {
    let script = "while [ ! -e /go ]; do sleep 0.05; done; dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000";
    let mut bundle = Bundle::of(script);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432, "swap": 33_554_432});
    bundle.save();
    bundle.create(&["a"]).ok();
    bundle.runtime(&["start", "a"]).ok();
    let mut child = bundle.command(&["events", "--interval", "100ms", "a"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().unwrap().starts_with("{\"type\":\"stats\""));
    std::fs::write(bundle.path("rootfs/go"), "").unwrap();
    // dd alone is killed.
    let oom = lines.take(200).find(|line| line.starts_with("{\"type\":\"oom\",\"id\":\"a\""));
    assert!(oom.is_some());
    bundle.runtime(&["kill", "a", "KILL"]).ok();
    child.wait().unwrap();
}

#[test]
fn limits_are_changed() {
    let bundle = Bundle::running(WAIT);
    let stats = || -> Value { serde_json::from_str(&bundle.runtime(&["events", "--stats", "a"]).ok()).unwrap() };
    let limit = || stats()["data"]["memory"]["usage"]["limit"].as_u64().unwrap();
    bundle.runtime(&["update", "--memory", "64M", "--pids-limit", "77", "a"]).ok();
    assert_eq!((limit(), &stats()["data"]["pids"]["limit"]), (64 << 20, &json!(77)));
    std::fs::write(bundle.path("limits.json"), r#"{"memory":{"limit":50331648,"swap":0},"cpu":{"shares":0}}"#).unwrap();
    bundle.runtime(&["update", "--resources", "limits.json", "a"]).ok();
    assert_eq!(limit(), 48 << 20);
    let mut command = bundle.command(&["update", "-r", "-", "a"]);
    command.stdin(std::fs::File::open(bundle.path("limits.json")).unwrap());
    assert!(command.status().unwrap().success());
    bundle.runtime(&["update", "-r", "nosuch", "a"]).failed(1, "nosuch");
    bundle.runtime(&["update", "--cpu-share", "512", "--cpu-period", "50000", "--cpu-quota", "20000", "a"]).ok();
}

#[test]
fn a_specification_is_written_once() {
    let bundle = Bundle::of("true");
    bundle.runtime(&["spec"]).failed(1, "File config.json exists. Remove it first");
    std::fs::create_dir(bundle.path("other")).unwrap();
    bundle.runtime(&["spec", "--rootless", "-b", "other"]).ok();
    let text = std::fs::read(bundle.path("other/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
}

#[test]
fn features_version_and_help() {
    let bundle = Bundle::of("true");
    let features: Value = serde_json::from_str(&bundle.runtime(&["features"]).ok()).unwrap();
    assert!(features["ociVersionMax"].is_string() && features["linux"]["namespaces"].is_array());
    for flag in ["--version", "-v"] {
        assert!(bundle.runtime(&[flag]).ok().contains("\nspec: "));
    }
    for words in [&["--help"][..], &["help"], &["help", "exec"], &["exec", "--help"], &[]] {
        assert!(bundle.runtime(words).ok().contains("USAGE") || !is_runc() && words.len() < 2, "{words:?}");
    }
}
