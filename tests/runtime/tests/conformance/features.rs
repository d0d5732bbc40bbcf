//! features.md: what a runtime says that it can do, which has to be true.

use berth_runtime_tests::{Container, lacks};
use serde_json::Value;

fn features() -> Option<Value> {
    if lacks("crun < 1.9", "no features command") {
        return None;
    }
    Some(Container::new("").call(&["features"]).finish().json())
}

#[track_caller]
fn has(list: &Value, names: &[&str]) {
    let list: Vec<_> =
        list.as_array().unwrap_or_else(|| panic!("no list: {list}")).iter().map(|it| it.as_str().unwrap()).collect();
    for name in names {
        assert!(list.contains(name), "{name} is not in {list:?}");
    }
}

#[test]
fn the_versions_are_told() {
    let Some(features) = features() else { return };
    for name in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[name].as_str().is_some_and(|version| version.starts_with("1.")), "{features}");
    }
}

#[test]
fn all_hooks_namespaces_and_usual_options_are_named() {
    let Some(features) = features() else { return };
    has(
        &features["hooks"],
        &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    );
    has(
        &features["mountOptions"],
        &[
            "bind",
            "rbind",
            "ro",
            "rw",
            "rro",
            "nosuid",
            "noexec",
            "nodev",
            "rprivate",
            "rslave",
            "rshared",
            "tmpcopyup",
        ],
    );
    has(&features["linux"]["namespaces"], &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]);
    if !lacks("runc < 1.2", "no time namespaces") {
        has(&features["linux"]["namespaces"], &["time"]);
    }
}

#[test]
fn capabilities_are_those_of_the_kernel() {
    let Some(features) = features() else { return };
    has(&features["linux"]["capabilities"], &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"]);
}

#[test]
fn control_groups_and_security_are_told() {
    let Some(features) = features() else { return };
    let linux = &features["linux"];
    assert_eq!((linux["cgroup"]["v1"].as_bool(), linux["cgroup"]["v2"].as_bool()), (Some(true), Some(true)));
    assert_eq!(linux["seccomp"]["enabled"], true);
    has(
        &linux["seccomp"]["actions"],
        &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_NOTIFY", "SCMP_ACT_LOG"],
    );
    has(
        &linux["seccomp"]["operators"],
        &[
            "SCMP_CMP_EQ",
            "SCMP_CMP_NE",
            "SCMP_CMP_LT",
            "SCMP_CMP_LE",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_MASKED_EQ",
        ],
    );
    if cfg!(target_arch = "x86_64") {
        has(&linux["seccomp"]["archs"], &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    }
    assert!(linux["apparmor"]["enabled"].is_boolean() && linux["selinux"]["enabled"].is_boolean(), "{linux}");
}

#[test]
fn newer_parts_of_the_specification_are_told() {
    if lacks("runc < 1.2 | crun < 1.9", "knows nothing of them") {
        return;
    }
    let Some(features) = features() else { return };
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    has(&features["linux"]["seccomp"]["knownFlags"], &["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    has(&features["linux"]["seccomp"]["supportedFlags"], &["SECCOMP_FILTER_FLAG_LOG"]);
    assert!(features["linux"]["intelRdt"]["enabled"].is_boolean(), "{features}");
    if lacks("runc < 1.4 | crun < 1.24", "knows nothing of version 1.3") {
        return;
    }
    assert_eq!(features["linux"]["netDevices"]["enabled"], true);
    has(&features["linux"]["memoryPolicy"]["modes"], &["MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY"]);
    has(&features["linux"]["memoryPolicy"]["flags"], &["MPOL_F_STATIC_NODES"]);
}
