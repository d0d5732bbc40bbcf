//! What a program gets with its life, and must not.

use std::fs;
use std::os::unix::fs::MetadataExt;

use berth_runtime_tests::container::{is_alive, report};
use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::json;

use super::attempt;

/// CVE-2019-5736.
#[test]
fn the_runtime_s_own_program_cannot_be_overwritten_by_way_of_proc() {
    let runtime = fs::canonicalize(&berth_runtime_tests::runtime::runtime().path).unwrap();
    let before = fs::metadata(&runtime).unwrap();
    // Root with all that it takes to open the file, whichever process it finds it by: the container's program is the
    // runtime's own, called again, and meanwhile another process tries every process's program.
    let mut container = Container::new(
        "while :; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in /bin/*) ;; *) \
         (: >> $p/exe) 2> /dev/null && echo $p $(readlink $p/exe) >> /data/opened;; esac; done; done",
    );
    container.grant(&["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    let container = container.running();
    for _ in 0..10 {
        let _ = container.exec_with(&[], &["/proc/self/exe", "--version"]);
        let _ = container.exec("true");
    }
    container.delete();
    let opened = fs::read_to_string(container.rootfs().join("data/opened")).unwrap_or_default();
    assert_eq!(opened, "", "opened for writing");
    let after = fs::metadata(&runtime).unwrap();
    assert_eq!((before.len(), before.mtime_nsec(), before.ino()), (after.len(), after.mtime_nsec(), after.ino()));
}

/// CVE-2016-9962.
#[test]
fn a_process_that_joins_cannot_be_traced_or_robbed_before_it_runs_the_program() {
    let mut container = Container::new(
        "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; [ $p = /proc/$$ ] && continue; \
         case $(readlink $p/exe) in /bin/*|'') ;; *) ls -l $p/fd 2> /dev/null | grep -- '->' >> /data/seen;; esac; done; done",
    );
    container.grant(&["CAP_SYS_PTRACE"]);
    let container = container.running();
    (0..10).for_each(|_| drop(container.exec("true").ok()));
    container.delete();
    let seen = fs::read_to_string(container.rootfs().join("data/seen")).unwrap_or_default();
    let state = container.folder().join("state");
    let state = state.to_str().unwrap();
    assert!(!seen.lines().any(|line| line.contains(state) || line.contains("-> /sys/fs/cgroup")), "{seen}");
}

/// CVE-2021-43784.
#[test]
fn a_configuration_too_long_for_a_counter_changes_no_namespace() {
    // More bytes of mappings and of other text than sixteen bits can count, with what might be a namespace's path in it.
    let own = Report::take();
    let padding = "/proc/self/ns/../".repeat(4800);
    let with = |count: u32| {
        let container = Container::probe().with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            let mappings: Vec<_> =
                (0..count).map(|it| json!({ "containerID": it, "hostID": 100_000 + it, "size": 1 })).collect();
            spec["linux"]["uidMappings"] = json!(mappings);
            spec["linux"]["gidMappings"] = json!(mappings);
            spec["annotations"] = json!({ "padding": padding });
            spec["process"]["env"] = json!(["PATH=/bin", format!("PADDING={padding}")]);
        });
        container.chown(100_000);
        container
    };
    // The kernel takes 340 mappings, not more.
    let seen = with(300).seen();
    for name in ["net", "pid", "mnt", "user"] {
        assert_ne!(seen.namespaces[name], own.namespaces[name], "{name}");
    }
    let container = with(6000);
    container.try_create().refused();
    container.assert_gone();
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2022-24769.
#[test]
fn nothing_is_inheritable_unless_asked_for_in_create_and_exec() {
    let container = Container::sleeper().running();
    let init = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    assert!(init.contains("CapInh:\t0000000000000000"), "{init}");
    for options in [&[][..], &["--cap", "CAP_NET_ADMIN"]] {
        let seen = report(&container.exec_with(options, &["/bin/probe"]).ok());
        if options.is_empty() || !lacks("runc < 1.2 | crun < 1.9", "what exec adds is inheritable") {
            assert_eq!(seen.set("inheritable"), [""; 0], "{options:?}");
        }
    }
}

/// CVE-2023-25809.
#[test]
fn the_machine_s_control_groups_cannot_be_written_from_a_user_namespace() {
    let mut container = Container::new(
        "for f in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $f/escape 2> /dev/null && rmdir $f/escape && \
         grep \" $f .* - cgroup\" /proc/self/mountinfo; done; true",
    );
    container.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    container.namespace("cgroup", None);
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    container.spec["linux"]["uidMappings"] = mapping.clone();
    container.spec["linux"]["gidMappings"] = mapping;
    container.chown(100_000);
    assert_eq!(container.output(), "");
}

/// CVE-2024-21626.
#[test]
fn no_descriptor_of_the_runtime_or_its_caller_is_open_in_a_program() {
    let expected = |report: &Report| {
        assert_eq!(report.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{:?}", report.descriptors);
    };
    let container = Container::probe();
    // A caller that is as careless as can be.
    let call = container.create_call(&[]).after("exec 3< / 5< /sys/fs/cgroup 9< /etc");
    container.create_by(call).ok();
    container.start();
    assert_eq!(container.wait(), 0);
    expected(&report(&container.out()));
    let container = Container::sleeper().running();
    let call = container.exec_call(&[], &["/bin/probe"]).after("exec 3< / 5< /sys/fs/cgroup 9< /etc");
    expected(&report(&call.finish().ok()));
}

/// CVE-2024-21626.
#[test]
fn a_working_folder_by_way_of_a_descriptor_is_refused() {
    let running = Container::sleeper().running();
    let leads_out = |output: &str| output.contains("usr");
    for number in 3..12 {
        for path in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")] {
            let container = Container::new("ls ../../../../..").with(|spec| spec["process"]["cwd"] = json!(path));
            assert!(!leads_out(&attempt(&container)) || lacks("runc < 1.1.12", "CVE-2024-21626"), "{path}");
            let outcome = running.exec_with(&["--cwd", &path], &["/bin/ls", "../../../../.."]);
            assert!(!leads_out(&outcome.out) || lacks("runc < 1.1.12", "CVE-2024-21626"), "{path}");
        }
    }
}

/// CVE-2026-30892.
#[test]
fn a_user_that_is_misspelt_is_refused_and_not_taken_for_another() {
    let container = Container::sleeper().running();
    for user in ["", ":", "1000x", "1000:", "1000:x", "0x10", "-1", "1:2:3", "4294967296", "1e3", " 1", "1 "] {
        let outcome = container.exec_with(&["--user", user], &["/bin/id", "-u"]);
        if user.is_empty() && outcome.code == 0 {
            // As if not given.
            continue;
        }
        let wrong = outcome.code == 0;
        assert!(
            !wrong || lacks("runc | crun < 1.27", "a user that is misspelt is taken for another"),
            "{user:?}: {}",
            outcome.text()
        );
    }
    assert_eq!(container.exec_with(&["--user", "1000:5"], &["/bin/sh", "-c", "id -u; id -g"]).ok(), "1000\n5\n");
}

#[test]
fn a_process_of_the_container_cannot_see_the_machine_s_root_in_any_process() {
    let mut container = Container::new(
        "while [ ! -e /data/stop ]; do for p in /proc/[0-9]*; do ls $p/root/usr/share/doc $p/cwd/usr/share/doc; done; \
         done 2> /dev/null",
    );
    container.grant(&["CAP_SYS_PTRACE"]);
    let container = container.running();
    (0..5).for_each(|_| drop(container.exec("true")));
    fs::write(container.rootfs().join("data/stop"), "").unwrap();
    until("it has looked", || !is_alive(container.pid()));
    assert_eq!(container.out(), "");
}
