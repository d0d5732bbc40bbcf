//! config.md: hooks: when each runs, where, with what, and what its failure means.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_runtime_tests::machine::{Layout, layout};
use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::{Value, json};

/// In the order of the specification.
const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs a shell script, on the machine or in the container, wherever it finds a shell. The state is its
/// input.
fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"] })
}

/// A hook that wants nothing of the state, and reads it all the same: there are runtimes that die of it if not.
fn indifferent(script: &str) -> Value {
    hook(&format!("cat > /dev/null; {script}"))
}

/// The log that hooks of the machine and of the container can both write, under the same path.
fn shared(container: &mut Container) -> std::path::PathBuf {
    let log = container.folder().join("log");
    fs::create_dir(&log).unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o777)).unwrap();
    container.mount(json!({ "destination": log, "source": log, "options": ["bind"] }));
    log
}

fn read(log: &Path, name: &str) -> String {
    fs::read_to_string(log.join(name)).unwrap_or_default()
}

#[test]
fn all_hooks_run_once_in_order_and_at_their_time() {
    let mut container = Container::sleeper();
    let log = shared(&mut container);
    let order = log.join("order");
    for kind in KINDS {
        let twice = [1, 2].map(|number| indifferent(&format!("echo {kind}{number} >> {}", order.display())));
        container.spec["hooks"][kind] = json!(twice);
    }
    let at = |from: usize, to: usize| {
        KINDS[from..to].iter().flat_map(|kind| [format!("{kind}1\n"), format!("{kind}2\n")]).collect::<String>()
    };
    container.create();
    let early = lacks("runc < 1.5 | crun", "poststart hooks run before the container's own");
    assert!(early || read(&log, "order") == at(0, 3), "by create: {}", read(&log, "order"));
    container.start();
    if early {
        // The container's own hook is not waited for.
        until("all have run", || read(&log, "order").lines().count() == 10);
    } else {
        assert_eq!(read(&log, "order"), at(0, 5), "by start");
    }
    let before = read(&log, "order");
    container.kill("KILL").ok();
    container.wait();
    assert_eq!(read(&log, "order"), before, "by the program's end");
    container.verb("delete").ok();
    assert_eq!(read(&log, "order"), before + &at(5, 6), "by delete");
}

#[test]
fn hooks_read_the_container_s_state() {
    let mut container = Container::sleeper().with(|spec| spec["annotations"] = json!({ "org.example.colour": "blue" }));
    let log = shared(&mut container);
    for kind in KINDS {
        container.spec["hooks"][kind] = json!([hook(&format!("cat > {}/{kind}", log.display()))]);
    }
    container.create();
    let pid = container.pid();
    container.start();
    container.kill("KILL").ok();
    container.wait();
    container.verb("delete").ok();
    for kind in KINDS {
        let text = read(&log, kind);
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}: {text}"));
        if kind == "startContainer" && lacks("crun", "tells of another bundle, and no process") {
            continue;
        }
        assert_eq!(state["id"], container.id, "{kind}: {state}");
        assert_eq!(state["bundle"], container.bundle().to_str().unwrap(), "{kind}: {state}");
        assert_eq!(state["annotations"]["org.example.colour"], "blue", "{kind}: {state}");
        assert!(state["ociVersion"].is_string(), "{kind}: {state}");
        let status: &[&str] = match kind {
            "prestart" | "createRuntime" | "createContainer" => &["creating", "created"],
            "startContainer" => &["created", "creating"],
            "poststart" => &["running"],
            _ => &["stopped"],
        };
        let unsure = match kind {
            "startContainer" => lacks("runc < 1.2", "the state is `running` before the program runs"),
            "poststart" => lacks("runc < 1.5", "poststart hooks run when the container is created"),
            "poststop" => lacks("crun", "the state is not `stopped`"),
            _ => false,
        };
        assert!(unsure || status.contains(&state["status"].as_str().unwrap()), "{kind}: {state}");
        if ["prestart", "createRuntime", "poststart"].contains(&kind) {
            assert_eq!(state["pid"], pid, "{kind}: {state}");
        }
    }
}

#[test]
fn hooks_run_in_the_namespaces_of_their_kind() {
    let mut container = Container::sleeper();
    let log = shared(&mut container);
    for kind in KINDS {
        let script =
            format!("for n in mnt net uts ipc pid; do readlink /proc/self/ns/$n; done > {}/{kind}", log.display());
        container.spec["hooks"][kind] = json!([indifferent(&script)]);
    }
    container.create();
    let inside: Vec<_> = ["mnt", "net", "uts", "ipc", "pid"]
        .map(|name| fs::read_link(format!("/proc/{}/ns/{name}", container.pid())).unwrap().display().to_string())
        .into();
    container.start();
    container.delete();
    let own = Report::take();
    for kind in KINDS {
        let text = read(&log, kind);
        let seen: Vec<_> = text.lines().collect();
        assert_eq!(seen.len(), 5, "{kind}: {text}");
        match kind {
            // In the container's, for what the hook needs of it.
            "createContainer" | "startContainer" => assert_eq!(seen[..4], inside[..4], "{kind}"),
            _ => {
                let names = ["net", "uts", "ipc", "pid"];
                assert_eq!(seen[1..], names.map(|name| own.namespaces[name].as_str()), "{kind}");
            }
        }
    }
}

#[test]
fn hooks_of_create_container_see_the_machine_s_files_and_of_start_container_the_container_s() {
    let mut container = Container::new("true");
    let log = shared(&mut container);
    let outside = container.folder().join("outside");
    fs::write(&outside, "").unwrap();
    for kind in KINDS {
        let script = format!(
            "(test -e {} && echo outside; test -e /bin/probe && echo inside; true) > {}/{kind}",
            outside.display(),
            log.display()
        );
        container.spec["hooks"][kind] = json!([indifferent(&script)]);
    }
    assert_eq!(container.run().code, 0);
    container.verb("delete").ok();
    for kind in KINDS {
        let expected = if kind == "startContainer" { "inside\n" } else { "outside\n" };
        assert_eq!(read(&log, kind), expected, "{kind}");
    }
}

#[test]
fn the_root_is_mounted_but_not_yet_the_root_when_create_container_runs() {
    let mut container = Container::new("true");
    let log = shared(&mut container);
    let rootfs = container.rootfs();
    let script = format!(
        "(test -e {0}/proc/version && echo proc; test -c {0}/dev/null && echo null) > {1}/seen",
        rootfs.display(),
        log.display()
    );
    container.spec["hooks"]["createContainer"] = json!([indifferent(&script)]);
    assert_eq!(container.run().code, 0);
    assert_eq!(read(&log, "seen"), "proc\nnull\n");
}

#[test]
fn a_hook_has_its_arguments_and_its_environment_and_no_other() {
    let mut container = Container::new("true");
    let log = shared(&mut container);
    let script = format!(
        "(echo \"$0\" \"$@\"; env | sort | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=) > {}/seen",
        log.display()
    );
    container.spec["hooks"]["createRuntime"] = json!([{
        "path": "/bin/sh", "args": ["any", "-c", script, "zero", "one two"], "env": ["COLOUR=blue"],
    }]);
    container.create_by(container.create_call(&[]).variable("SECRET", "x")).ok();
    assert_eq!(read(&log, "seen"), "zero one two\nCOLOUR=blue\n");
}

#[test]
fn a_hook_need_not_read_the_state() {
    if lacks("crun", "dies of a pipe that nobody reads") {
        return;
    }
    // More than fits a pipe.
    let container = Container::new("echo runs").with(|spec| {
        spec["annotations"] = json!({ "long": "x".repeat(100_000) });
        KINDS.iter().for_each(|kind| spec["hooks"][kind] = json!([hook("exec < /dev/null; true")]));
    });
    assert_eq!(container.output(), "runs");
    container.verb("delete").ok();
}

#[test]
fn a_hook_that_fails_before_the_program_runs_stops_the_container() {
    for kind in &KINDS[..4] {
        let container = Container::new("touch /data/ran").with(|spec| {
            spec["hooks"][kind] = json!([indifferent("echo complaint of the hook >&2; exit 7")]);
        });
        let created = container.try_create();
        let complaint = if *kind == "startContainer" {
            created.ok();
            let started = container.verb("start");
            container.wait();
            if started.code == 0 {
                assert!(lacks("runc | crun", "start does not wait for the container's own hooks"));
            }
            format!("{}{}", started.err, container.err())
        } else {
            let refused = created.refused();
            container.assert_gone();
            refused
        };
        assert!(
            complaint.contains("complaint of the hook") || lacks("crun", "what a hook says is lost"),
            "{kind}: {complaint}"
        );
        assert!(!container.rootfs().join("data/ran").exists(), "{kind}");
        container.delete();
    }
}

#[test]
fn a_hook_that_fails_after_the_start_stops_the_container() {
    if lacks("crun", "lets the container run on, as the specification once had it") {
        return;
    }
    let container = Container::new("sleep 1000").with(|spec| {
        spec["hooks"]["poststart"] = json!([indifferent("exit 7")]);
    });
    assert!(container.try_create().code != 0 || container.verb("start").code != 0);
    until("the program is ended", || container.cgroup().processes().is_empty());
}

#[test]
fn a_hook_that_fails_after_the_end_stops_nothing() {
    let mut container = Container::new("sleep 1000");
    let log = shared(&mut container);
    container.spec["hooks"]["poststop"] =
        json!([indifferent("exit 7"), indifferent(&format!("echo ran > {}/seen", log.display()))]);
    let container = container.running();
    let _ = container.call(&["delete", "--force", &container.id]).finish();
    container.assert_gone();
    assert!(read(&log, "seen") == "ran\n" || lacks("runc", "the hooks that follow do not run"));
}

#[test]
fn after_a_failed_hook_the_ones_after_the_end_still_run() {
    if lacks("runc < 1.5 | crun", "no poststop hooks after a failure of create") {
        return;
    }
    let mut container = Container::new("true");
    let log = shared(&mut container);
    container.spec["hooks"]["createRuntime"] = json!([indifferent("exit 1")]);
    container.spec["hooks"]["poststop"] = json!([indifferent(&format!("echo ran > {}/seen", log.display()))]);
    container.try_create().refused();
    assert_eq!(read(&log, "seen"), "ran\n");
}

#[test]
fn a_hook_that_takes_too_long_is_ended_and_has_failed() {
    let mut container = Container::new("true");
    let log = shared(&mut container);
    let script = format!("echo $$ > {}/pid; exec sleep 1000", log.display());
    let mut slow = hook(&script);
    slow["timeout"] = json!(1);
    container.spec["hooks"]["createRuntime"] = json!([slow]);
    container.try_create().refused();
    container.assert_gone();
    let pid: i32 = read(&log, "pid").trim().parse().unwrap();
    until("the hook is dead", || !berth_runtime_tests::container::is_alive(pid));
}

#[test]
fn a_hook_that_is_missing_is_a_failure() {
    for kind in &KINDS[..3] {
        let container = Container::new("true").with(|spec| spec["hooks"][kind] = json!([{ "path": "/no/such/hook" }]));
        container.try_create().refused();
        container.assert_gone();
    }
}

#[test]
fn a_hook_can_work_on_the_container_s_network() {
    let container = Container::new("cat /sys/class/net/lo/mtu").with(|spec| {
        let script =
            "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); nsenter --net=/proc/$pid/ns/net ip link set lo mtu 1234";
        spec["hooks"]["createRuntime"] = json!([hook(script)]);
    });
    assert_eq!(container.output(), "1234");
}

#[test]
fn hooks_before_the_mounts_find_the_process_in_its_control_group() {
    let mut container = Container::sleeper();
    let log = shared(&mut container);
    for kind in &KINDS[..2] {
        let script = format!(
            "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); cat /proc/$pid/cgroup > {0}/{kind}; \
             grep -lx $pid $(find /sys/fs/cgroup -path '*/{1}/cgroup.procs') > {0}/{kind}-in",
            log.display(),
            container.id,
        );
        container.spec["hooks"][kind] = json!([hook(&script)]);
    }
    container.create();
    let own = format!("/{}", container.id);
    for kind in &KINDS[..2] {
        for controller in ["memory", "pids", "devices", "freezer"] {
            let text = read(&log, kind);
            let mut lines = text.lines().filter(|line| {
                line.split(':').nth(1).is_some_and(|list| {
                    list.split(',').any(|name| name == controller) || list.is_empty() && layout() == Layout::Unified
                })
            });
            assert!(lines.next().is_some_and(|line| line.ends_with(&own)), "{kind}: {controller}: {text}");
            let procs = container.cgroup().folder(controller).join("cgroup.procs");
            let lists = read(&log, &format!("{kind}-in"));
            assert!(lists.lines().any(|line| line == procs.to_str().unwrap()), "{kind}: {controller}: {lists}");
        }
    }
}

#[test]
fn hooks_begin_as_any_program_does() {
    if lacks("runc | crun", "hooks have the umask of the caller or of the container") {
        return;
    }
    let mut container = Container::new("true").with(|spec| spec["process"]["user"]["umask"] = json!(0o077));
    let log = shared(&mut container);
    for kind in KINDS {
        let report = format!("{{ umask; grep -E '^Sig(Blk|Ign):' /proc/self/status; }} > {}/{kind}", log.display());
        container.spec["hooks"][kind] = json!([indifferent(&report)]);
    }
    container.run().ok();
    container.delete();
    let none = "0".repeat(16);
    for kind in KINDS {
        assert_eq!(read(&log, kind), format!("0022\nSigBlk:\t{none}\nSigIgn:\t{none}\n"), "{kind}");
    }
}
