//! Any input at all: an error that names the field, never a panic, and never more work than the input is worth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_runtime::{Error, Runtime, Settings, check_config, read_process};
use proptest::prelude::*;
use serde_json::{Value, json};

/// More than a machine under load takes for the largest `config.json`, and far less than anything quadratic.
const TIME_MAX: Duration = Duration::from_secs(20);

/// More than any error has to say.
const ERROR_BYTES_MAX: usize = 4096;

/// Configurations as engines write them: the fuzzer begins with the same.
fn seeds() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/runtime_config");
    let files = fs::read_dir(folder).unwrap().flatten().map(|file| file.path());
    let read = |path: &Path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

fn settings_of(name: &str) -> Settings {
    Settings { systemd_cgroup: name == "podman" }
}

/// The error, if there is one, names a field; of JSON that is none, the document.
fn check(outcome: Result<(), Error>) -> Result<(), TestCaseError> {
    let Err(error) = outcome else { return Ok(()) };
    let told = error.to_string();
    let (Error::Spec { field, .. } | Error::Unsupported { field }) = error else {
        return Err(TestCaseError::fail(format!("names no field: {error:?}")));
    };
    prop_assert!(!field.is_empty() && told.starts_with(&field) && told.len() < ERROR_BYTES_MAX, "{}", told);
    prop_assert!(field != "config.json" || told.contains(" at line ") || told.contains('`'), "{}", told);
    Ok(())
}

#[test]
fn what_engines_write_makes_sense() {
    let seeds = seeds();
    assert!(seeds.len() > 4);
    for (name, config) in seeds {
        check_config(config.to_string().as_bytes(), settings_of(&name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The pointers of all fields of a document (RFC 6901).
fn pointers(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            pointers(value, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), all);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| pointers(value, &format!("{here}/{at}"), all));
        }
        _ => {}
    }
}

/// Values of any shape: strange ones first.
fn value() -> impl Strategy<Value = Value> {
    let words = ["", "/", "..", "/proc/x", "a\0b", "/a/../b", "-1", "0-", "rwm", "SCMP_ACT_NOTIFY", "a:b:c", "-.slice"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        (0..5000_usize).prop_map(|length| "x".repeat(length).into()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(any::<String>(), inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_a_configuration_panic(bytes in any::<Vec<u8>>()) {
        check(check_config(&bytes, Settings::default()))?;
        check(read_process(&bytes).map(drop))?;
    }

    #[test]
    fn one_field_that_is_anything_is_named(
        seed in proptest::sample::select(seeds()),
        at in any::<proptest::sample::Index>(),
        put in value(),
        doubled in any::<bool>(),
    ) {
        let (name, mut config) = seed;
        let mut all = Vec::new();
        pointers(&config, "", &mut all);
        // The first is the document itself.
        let place = config.pointer_mut(&all[1 + at.index(all.len() - 1)]).unwrap();
        match place {
            // One more of the same is another kind of nonsense.
            Value::Array(items) if doubled => items.extend(items.clone()),
            _ => *place = put,
        }
        check(check_config(config.to_string().as_bytes(), settings_of(&name)))?;
        if let Some(process) = config.get("process") {
            check(read_process(process.to_string().as_bytes()).map(drop))?;
        }
    }

    #[test]
    fn no_bytes_make_a_state_panic(
        bytes in prop_oneof![
            any::<Vec<u8>>(),
            (any::<proptest::sample::Index>(), value()).prop_map(|(at, put)| {
                let mut state = state();
                let mut all = Vec::new();
                pointers(&state, "", &mut all);
                *state.pointer_mut(&all[at.index(all.len())]).unwrap() = put;
                state.to_string().into_bytes()
            }),
        ],
    ) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        let file = root.path().join("c/state.json");
        fs::write(&file, bytes).unwrap();
        let runtime = Runtime::new(root.path().to_owned());
        let (one, all) = (runtime.state("c"), runtime.list());
        // One that cannot be read does not hide the others.
        prop_assert_eq!(usize::from(one.is_ok()), all.unwrap().len());
        match one {
            Ok(_) | Err(Error::Cgroup(_)) => {}
            Err(Error::File { path, source, .. }) => {
                prop_assert_eq!(path, file);
                prop_assert!(source.to_string().contains(": "), "{}", source);
            }
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}

/// A container's `state.json`.
fn state() -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/runtime_state");
    serde_json::from_slice(&fs::read(folder.join("stopped")).unwrap()).unwrap()
}

/// A small configuration with one field that is as large as it can be.
fn large(pointer: &str, value: Value) -> (String, Vec<u8>) {
    let mut config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": []},
        "mounts": [],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}, {"type": "uts"}]},
    });
    let (above, name) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(above).unwrap()[name] = value;
    let text = config.to_string().into_bytes();
    assert!(text.len() < 4 << 20, "{pointer} is refused for its size");
    (pointer.to_owned(), text)
}

#[test]
fn what_is_large_takes_no_longer_than_it_is() {
    const HALF: usize = 2 << 20;
    let condition = json!({"index": 0, "value": 0, "op": "SCMP_CMP_EQ"});
    let rules = |names: usize, conditions: usize| {
        let rule =
            json!({"names": vec!["mkdir"; names], "action": "SCMP_ACT_ALLOW", "args": vec![&condition; conditions]});
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})
    };
    let slice =
        |settings| (settings, large("/linux/cgroupsPath", format!("{}.slice:a:b", "a-".repeat(HALF / 2)).into()));
    let plain = |one| (Settings::default(), one);
    let deep = format!("/{}", "a/".repeat(490));
    let mounts: Vec<Value> =
        (0..3500).map(|_| json!({"destination": deep, "type": "tmpfs", "source": "tmpfs"})).collect();
    for (settings, (name, config)) in [
        slice(Settings { systemd_cgroup: true }),
        slice(Settings::default()),
        plain(large("/linux/seccomp", rules(HALF / 10, HALF / 50))),
        plain(large("/linux/seccomp", rules(1, HALF / 50))),
        plain(large("/linux/seccomp", rules(HALF / 10, 1))),
        plain(large("/process/args", json!(["x".repeat(HALF)]))),
        plain(large("/process/env", json!([format!("PATH={}", ":".repeat(HALF))]))),
        plain(large("/process/execCPUAffinity", json!({"initial": "0-1023,".repeat(HALF / 7)}))),
        plain(large("/mounts", mounts.into())),
        plain(large("/hostname", "x".repeat(HALF).into())),
        plain(large("/linux/sysctl", (0..HALF / 20).map(|at| (format!("net.{at}"), Value::from("1"))).collect())),
        plain(large("/linux/netDevices", (0..HALF / 20).map(|at| (format!("e{at}"), json!({}))).collect())),
    ] {
        let began = Instant::now();
        let outcome = check_config(&config, settings);
        assert!(began.elapsed() < TIME_MAX, "{name} took {:?}", began.elapsed());
        check(outcome).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let too_large = check_config(&vec![b' '; (4 << 20) + 1], Settings::default()).unwrap_err();
    assert!(too_large.to_string().starts_with("config.json: is larger"), "{too_large}");
}
