//! Environments and commands, from manifests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_engine::config::ContainerConfig;
use serde_json::{Value, json};

use super::*;
use crate::node::NodeFacts;
use crate::pod::desired::{Desired, Presence};
use crate::pod::plan::tests::a_start;

fn build(container: Value, fetched: &Fetched) -> Result<ContainerConfig, ConfigFault> {
    let pod = json!({ "metadata": { "name": "p", "uid": "u" }, "spec": { "containers": [container] } });
    let pod = Arc::new(serde_json::from_value(pod).unwrap());
    let desired = Desired::parse(pod, Presence::Wanted, Duration::from_secs(300)).unwrap();
    let node = NodeFacts { addresses: vec![], allocatable_cpu_millis: 2000, allocatable_memory_bytes: 1 << 30 };
    let config = crate::pod::a_config(Path::new("/nowhere"));
    container_config(&Inputs {
        container: desired.apps().next().unwrap(),
        start: &a_start("c"),
        fields: Fields { desired: &desired, pod_ips: &[], node: &node, node_name: "n" },
        fetched,
        places: &[],
        log_path: PathBuf::from("/log"),
        termination_log: Path::new("/words"),
        seccomp_dir: Path::new("/seccomp"),
        config: &config,
    })
}

fn fetched() -> Fetched {
    let map = json!({ "data": { "color": "blue", "bad=key": "x", "size": "3" } });
    let secret = json!({ "data": { "password": "aHVudGVyMg==" } });
    Fetched {
        config_maps: [
            ("conf".to_owned(), Some(Arc::new(serde_json::from_value(map).unwrap()))),
            ("gone".to_owned(), None),
        ]
        .into(),
        secrets: [("key".to_owned(), Some(Arc::new(serde_json::from_value(secret).unwrap())))].into(),
    }
}

fn check_env(container: Value, expected: &[(&str, &str)]) {
    let config = build(container, &fetched()).unwrap();
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(config.env, expected);
}

fn check_fault(container: Value, expected: &str) {
    let fault = build(container, &fetched()).unwrap_err();
    assert!(fault.message.contains(expected), "{} lacks {expected:?}", fault.message);
}

fn key_ref(kind: &str, name: &str, key: &str) -> Value {
    json!({ "name": "V", "valueFrom": { kind: { "name": name, "key": key } } })
}

#[test]
fn variables_come_from_everywhere_and_later_ones_win() {
    let env_from = json!([{ "prefix": "P_", "configMapRef": { "name": "conf" } }, { "secretRef": { "name": "key" } }]);
    let env = json!([
        { "name": "P_size", "value": "4" },
        { "name": "BOTH", "value": "$(P_color)-$(P_size)-$(LATER)-$$(P_size)" },
        { "name": "LATER", "value": "x" },
        { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
        { "name": "MAYBE", "valueFrom": { "secretKeyRef": { "name": "key", "key": "none", "optional": true } } },
    ]);
    let expected = [
        ("P_color", "blue"),
        ("password", "hunter2"),
        ("P_size", "4"),
        ("BOTH", "blue-4-$(LATER)-$(P_size)"),
        ("LATER", "x"),
        ("POD", "p"),
        ("CPUS", "2"),
    ];
    check_env(json!({ "name": "c", "envFrom": env_from, "env": env }), &expected);
}

#[test]
fn what_is_missing_is_named() {
    let with = |var: Value| json!({ "name": "c", "env": [var] });
    check_fault(with(key_ref("configMapKeyRef", "conf", "none")), "env V: couldn't find key none in configmap conf");
    check_fault(with(key_ref("configMapKeyRef", "gone", "a")), "configmap \"gone\" not found");
    check_fault(with(key_ref("secretKeyRef", "never-fetched", "a")), "secret \"never-fetched\" not found");
    check_fault(json!({ "name": "c", "envFrom": [{ "configMapRef": { "name": "gone" } }] }), "configmap \"gone\"");
    check_fault(with(json!({ "name": "A=B", "value": "" })), "cannot be the name");
    check_fault(with(json!({ "name": "A", "value": "a\u{0}b" })), "zero byte");
}

#[test]
fn commands_are_expanded_by_the_environment() {
    let container = json!({
        "name": "c", "command": ["sh", "-c"], "args": ["echo $(A) $(B)"],
        "env": [{ "name": "A", "value": "1" }],
    });
    let config = build(container, &Fetched::default()).unwrap();
    assert_eq!(config.command, ["sh", "-c"]);
    assert_eq!(config.args, ["echo 1 $(B)"]);
}

#[test]
fn references_are_listed_once() {
    let container = json!({
        "name": "c",
        "envFrom": [{ "configMapRef": { "name": "conf" } }],
        "env": [key_ref("configMapKeyRef", "conf", "color"), key_ref("secretKeyRef", "key", "password")],
    });
    let container = serde_json::from_value(container).unwrap();
    let names: Vec<_> = references(&container).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["conf", "key"]);
}
