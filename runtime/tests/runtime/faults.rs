//! Whatever fails, it is told what, and nothing is left.

use std::fs;

use berth_runtime::{Error, Runtime, Settings, Stdio};
use berth_sys::process::{Birth, exit_now, spawn, wait};
use serde_json::{Value, json};

use crate::support::{Container, describe};

/// What the error says, and the change of the spec that leads to it.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Container));

#[test]
fn each_step_that_fails_is_named_and_nothing_is_left() {
    let cases: &[Case] = &[
        ("open the mount source /nowhere", &|it| {
            it.mount(json!({ "destination": "/data", "source": "/nowhere", "options": ["bind"] }));
        }),
        ("mount nosuchfs on /data", &|it| it.mount(json!({ "destination": "/data", "type": "nosuchfs" }))),
        ("mount tmpfs on /data", &|it| {
            it.mount(json!({ "destination": "/data", "type": "tmpfs", "options": ["nosuchoption=1"] }));
        }),
        ("mount bind on /etc/file/below", &|it| {
            fs::write(it.rootfs().join("etc/file"), "").unwrap();
            it.mount(json!({ "destination": "/etc/file/below", "source": "/tmp", "options": ["bind"] }));
        }),
        ("write \"no number\" to /proc/sys/kernel/shmmni", &|it| {
            it.spec["linux"]["sysctl"] = json!({ "kernel.shmmni": "no number" });
        }),
        ("enter the net namespace /proc/self/ns/uts", &|it| it.namespace("network", Some("/proc/self/ns/uts"))),
        ("open the namespace /nowhere", &|it| it.namespace("network", Some("/nowhere"))),
        ("cannot make a process", &|it| it.namespace("pid", Some("/proc/self/ns/uts"))),
        ("working directory /bin/sh", &|it| it.spec["process"]["cwd"] = json!("/bin/sh")),
        ("memory.limit_in_bytes", &|it| {
            it.spec["linux"]["resources"] = json!({ "memory": { "limit": -5 } });
        }),
        ("cpuset.cpus", &|it| it.spec["linux"]["resources"] = json!({ "cpu": { "cpus": "4000" } })),
        ("make the device /dev/pts", &|it| {
            it.spec["linux"]["devices"] = json!([{ "path": "/dev/pts", "type": "c", "major": 1, "minor": 3 }]);
        }),
        ("find the root file system", &|it| it.spec["root"]["path"] = json!("nowhere")),
    ];
    for (expected, change) in cases {
        let mut container = Container::new("true");
        change(&mut container);
        let error = container.create().expect_err(expected);
        assert!(describe(&error).contains(expected), "{expected}: {}", describe(&error));
        container.assert_gone();
    }
}

#[test]
fn a_config_that_makes_no_sense_is_told_by_field() {
    let check = |path: &[&str], value: Value, expected: &str| {
        let mut container = Container::new("true");
        let mut at = &mut container.spec;
        for part in path {
            at = &mut at[part];
        }
        *at = value;
        let error = container.create().expect_err(expected);
        assert!(matches!(error, Error::Spec { .. } | Error::Unsupported { .. } | Error::Cgroup(_)), "{error:?}");
        assert!(describe(&error).contains(expected), "{expected}: {}", describe(&error));
        container.assert_gone();
    };
    check(&["process", "args"], json!([]), "process.args");
    check(&["process", "args"], json!(["a\0b"]), "process.args");
    check(&["process", "cwd"], json!("relative"), "process.cwd");
    check(&["linux", "cgroupsPath"], json!("/a/../b"), "linux.cgroupsPath");
    check(&["linux", "rootfsPropagation"], json!("sideways"), "linux.rootfsPropagation");
    check(&["linux", "maskedPaths"], json!(["../x"]), "linux.maskedPaths");
    check(
        &["linux", "resources"],
        json!({ "devices": [{ "allow": true, "access": "x" }] }),
        "linux.resources.devices[0]",
    );
    check(&["mounts"], json!([{ "destination": "/", "type": "tmpfs" }]), "mounts[0].destination");
    check(&["mounts"], json!([{ "destination": "/a/..", "type": "tmpfs" }]), "mounts[0].destination");
    check(&["mounts"], json!([{ "destination": "/a", "options": ["bind"] }]), "mounts[0].source");
    check(&["mounts"], json!([{ "destination": "/a", "type": "proc", "options": ["tmpcopyup"] }]), "mounts[0].options");
    check(&["hooks"], json!({ "prestart": [{ "path": "bin/true" }] }), "hooks.prestart[0].path");
    check(&["hooks"], json!({ "poststop": [{ "path": "/bin/true", "timeout": 0 }] }), "hooks.poststop[0].timeout");
    check(&["ociVersion"], json!("2.0.0"), "ociVersion");
    check(&["linux", "intelRdt"], json!({ "closID": "a" }), "linux.intelRdt");
    check(&["linux", "uidMappings"], json!([{ "containerID": 0, "hostID": 1, "size": 1 }]), "linux.uidMappings");
    check(&["linux", "timeOffsets"], json!({ "boottime": { "secs": 1 } }), "linux.timeOffsets");
    check(&["linux", "netDevices"], json!({ "a/b": {} }), "linux.netDevices.a/b");
    check(&["linux", "memoryPolicy"], json!({ "mode": "MPOL_BIND", "nodes": "x" }), "linux.memoryPolicy.nodes");
    check(&["process", "ioPriority"], json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }), "process.ioPriority");
    check(&["process", "scheduler"], json!({ "policy": "SCHED_ISO" }), "process.scheduler.policy");
    check(&["mounts"], json!("x"), "mounts: invalid type");
    check(&["linux", "seccomp"], json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "SCMP_ACT_NOTIFY");
}

#[test]
fn a_hook_that_fails_tells_which_how_and_why() {
    let shell = |script: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] });
    let check = |kind: &str, hook: Value, expected: &[&str]| {
        let mut container = Container::new("sleep 100");
        container.spec["hooks"][kind] = json!([shell("cat > /dev/null"), hook]);
        let done = container.create().and_then(|_| container.runtime.start(&container.id));
        let (error, warnings) = (done.err(), container.runtime.delete(&container.id).unwrap());
        let told = error.map_or_else(|| warnings.join("\n"), |error| describe(&error));
        for part in [kind, "[1]"].iter().chain(expected) {
            assert!(told.contains(part), "{kind}: {part} is not in {told}");
        }
        assert!(told.len() < 2500, "{}", told.len());
        container.assert_gone();
    };
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        check(kind, shell("echo alas >&2; exit 3"), &["/bin/sh", "exited with code 3: alas"]);
    }
    let mut slow = shell("echo wait >&2; exec sleep 1000");
    slow["timeout"] = json!(1);
    for kind in ["createRuntime", "createContainer"] {
        check(kind, shell("kill -9 $$"), &["was ended by signal 9"]);
        check(
            kind,
            json!({ "path": "/nowhere" }),
            &["/nowhere", "exited with code 127: cannot be executed: No such file"],
        );
        check(kind, slow.clone(), &["was killed after 1 s: wait"]);
        // Far more than a pipe holds: of so much the end is kept.
        let much = "for i in 1 2 3 4; do head -c 50000 /dev/zero >&2; done; echo the end >&2; exit 1";
        check(kind, shell(much), &["exited with code 1: ", "the end"]);
    }
}

#[test]
fn what_a_hook_leaves_behind_is_not_waited_for() {
    let mut container = Container::new("true");
    // It holds the hook's standard error for as long as the test waits for anything, and more.
    let script = format!("sleep 1000 & echo $! > {}", container.folder().join("pid").display());
    container.spec["hooks"]["createRuntime"] =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 10 }]);
    let (code, _) = container.run();
    let pid: i32 = fs::read_to_string(container.folder().join("pid")).unwrap().trim().parse().unwrap();
    let sleeper = berth_sys::process::pidfd_open(pid).unwrap();
    berth_sys::process::pidfd_send_signal(&sleeper, 9).unwrap();
    assert_eq!(code, 0);
}

#[test]
fn without_systemd_its_scope_is_missed_and_nothing_is_left() {
    if std::path::Path::new("/run/systemd/system").exists() {
        return eprintln!("SKIPPED: this machine has systemd");
    }
    let mut container = Container::new("true");
    container.spec["linux"]["cgroupsPath"] = json!(format!("system.slice:berth:{}", container.id));
    container.runtime = Runtime::with(container.folder().join("state"), Settings { systemd_cgroup: true });
    let error = describe(&container.create().unwrap_err());
    let scope = format!("ask systemd for the scope berth-{}.scope", container.id);
    assert!(error.contains(&scope), "{error}");
    container.assert_gone();
}

#[test]
fn a_cgroup_that_is_in_use_is_refused_and_left_alone() {
    let first = Container::new("sleep 100");
    let _spawned = first.running();
    let mut second = Container::new("true");
    second.spec["linux"]["cgroupsPath"] = first.spec["linux"]["cgroupsPath"].clone();
    assert!(matches!(second.create(), Err(Error::CgroupInUse { .. })));
    assert_eq!(first.runtime.state(&first.id).unwrap().status, berth_runtime::Status::Running);
}

#[test]
fn a_container_whose_maker_is_killed_half_way_does_not_live_on() {
    for delay_us in [0, 500, 1000, 2000, 4000, 8000] {
        let container = Container::new("sleep 100");
        fs::write(container.bundle().join("config.json"), container.spec.to_string()).unwrap();
        let birth = Birth::default();
        // The maker is a process of its own, which stops for good once the container is created.
        let maker = spawn(&birth, || {
            let created = container.runtime.create(&container.id, &container.bundle(), Stdio::default());
            loop {
                if created.is_err() {
                    exit_now(1);
                }
                nix::unistd::pause();
            }
        })
        .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        berth_sys::process::pidfd_send_signal(&maker.pidfd, 9).unwrap();
        wait(&maker.pidfd).unwrap();
        let status = container.runtime.state(&container.id).map(|state| state.status);
        // Whatever it got to, deleting cleans up, and without a record no process is left.
        container.runtime.delete(&container.id).unwrap();
        container.assert_gone();
        assert!(!matches!(status, Ok(berth_runtime::Status::Running)));
    }
}
