//! Attacks that worked on some runtime once. Each test tries one, and shows that the machine is as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::{Value, json};

/// A folder of the machine that nothing may be made in.
struct Outside(tempfile::TempDir);

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "untouched").unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read_to_string(self.path().join("file")).unwrap(), "untouched");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path().to_str().unwrap()), "something is mounted on the machine");
    }
}

/// Runs what may be refused, and gives what it wrote if it is not.
fn attempt(container: &Container) -> String {
    if container.try_create().code != 0 || container.verb("start").code != 0 {
        return String::new();
    }
    container.wait();
    container.out() + &container.err()
}

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
    let state = container.folder().to_str().unwrap();
    assert!(!seen.lines().any(|line| line.contains(state) || line.contains("-> /sys/fs/cgroup")), "{seen}");
}

/// CVE-2019-16884.
#[test]
fn proc_cannot_be_replaced_by_a_volume() {
    for (destination, kind, options) in [
        ("/proc", "tmpfs", json!([])),
        ("/proc", "bind", json!(["bind"])),
        ("/proc/self/attr", "bind", json!(["bind"])),
    ] {
        let mut container = Container::new("true");
        let volume = container.folder().join("volume");
        fs::create_dir_all(volume.join("self/attr")).unwrap();
        container.mount(json!({ "destination": destination, "type": kind, "source": volume, "options": options }));
        container.try_create().refused();
        container.assert_gone();
    }
}

/// CVE-2019-16884, the other way round: proc is there, on what an image's link made of it.
#[test]
fn nothing_is_mounted_in_proc_by_way_of_a_link() {
    for link in ["/proc/sys", "proc/self", "/proc"] {
        let mut container = Container::new("true");
        symlink(link, container.rootfs().join("volume")).unwrap();
        container.mount(json!({ "destination": "/volume", "type": "tmpfs", "source": "tmpfs" }));
        let outcome = container.try_create();
        assert!(outcome.code != 0 || lacks("runc | crun", "mounts in proc by way of a link"), "{link}");
        container.delete();
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-62596.
#[test]
fn proc_and_sys_are_not_mounted_where_an_image_s_link_points() {
    for name in ["proc", "sys"] {
        for target in ["/tmp", "tmp", "/data/../tmp"] {
            let container = Container::new("ls /tmp");
            fs::remove_dir(container.rootfs().join(name)).unwrap();
            symlink(target, container.rootfs().join(name)).unwrap();
            container.try_create().refused();
            container.assert_gone();
        }
    }
}

/// CVE-2019-18837, CVE-2021-30465, CVE-2024-45310.
#[test]
fn a_destination_that_is_a_link_out_of_the_root_makes_nothing_outside() {
    let check = |mount: &dyn Fn(&Container) -> Value| {
        let outside = Outside::new();
        let mut container = Container::new("true");
        symlink(outside.path(), container.rootfs().join("out")).unwrap();
        symlink(outside.path().join("new"), container.rootfs().join("dangling")).unwrap();
        symlink(format!("../../../../../../../..{}", outside.path().display()), container.rootfs().join("up")).unwrap();
        let mount = mount(&container);
        container.mount(mount);
        attempt(&container);
        outside.assert_untouched();
        container.delete();
        outside.assert_untouched();
    };
    for destination in ["/out", "/out/x", "/out/x/y", "/out/file", "/dangling", "/dangling/x", "/up/x", "/out/../out/x"]
    {
        check(&|_| json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
        check(&|it| json!({ "destination": destination, "source": it.folder(), "options": ["bind"] }));
        check(&|_| json!({ "destination": destination, "source": "/etc/hostname", "options": ["bind"] }));
    }
}

/// CVE-2021-30465 and CVE-2024-45310: the link comes while the mounts are made.
#[test]
fn a_destination_that_becomes_a_link_meanwhile_makes_nothing_outside() {
    let outside = Outside::new();
    let mut container = Container::new("true");
    let shared = container.folder().join("shared");
    fs::create_dir_all(shared.join("swing/deep")).unwrap();
    symlink(format!("/..{}", outside.path().display()), shared.join("link")).unwrap();
    container.mount(json!({ "destination": "/data", "source": shared, "options": ["bind"] }));
    for number in 0..20 {
        container
            .mount(json!({ "destination": format!("/data/swing/deep/{number}"), "type": "tmpfs", "source": "tmpfs" }));
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A neighbour in the pod, with the same volume, exchanges a folder and a link.
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (one, other) = (shared.join("swing"), shared.join("link"));
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                let _ = nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &one, nix::fcntl::AT_FDCWD, &other, flags);
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..20 {
                let _ = container.try_create();
                let _ = container.call(&["delete", "--force", &container.id]).finish();
                let broken = std::panic::catch_unwind(|| outside.assert_untouched()).is_err();
                if broken && lacks("runc < 1.1.14 | crun < 1.17", "CVE-2024-45310") {
                    break;
                }
                assert!(!broken);
            }
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        result.unwrap();
    });
}

/// CVE-2021-43784.
#[test]
fn a_configuration_too_long_for_a_counter_changes_no_namespace() {
    // More bytes of mounts' and mappings' text than fit sixteen bits, with what a namespace's path might be in it.
    let own = Report::take();
    let padding = "/proc/self/ns/../".repeat(240);
    let container = Container::probe().with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let mappings: Vec<_> =
            (0..300).map(|it| json!({ "containerID": it, "hostID": 100_000 + it, "size": 1 })).collect();
        spec["linux"]["uidMappings"] = json!(mappings);
        spec["linux"]["gidMappings"] = json!(mappings);
        spec["annotations"] = json!({ "padding": padding.repeat(20) });
        spec["process"]["env"] = json!(["PATH=/bin", format!("PADDING={}", padding.repeat(20))]);
    });
    chown_to(&container, 100_000);
    if let Some(output) = Some(attempt(&container)).filter(|output| !output.is_empty()) {
        let seen = berth_runtime_tests::container::report(&output);
        for name in ["net", "pid", "mnt", "user"] {
            assert_ne!(seen.namespaces[name], own.namespaces[name], "{name}");
        }
    }
}

fn chown_to(container: &Container, id: u32) {
    let owner = format!("{id}:{id}");
    assert!(
        std::process::Command::new("chown").args(["-R", &owner]).arg(container.rootfs()).status().unwrap().success()
    );
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2022-24769.
#[test]
fn nothing_is_inheritable_unless_asked_for_in_create_and_exec() {
    let container = Container::sleeper().running();
    let init = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    assert!(init.contains("CapInh:\t0000000000000000"), "{init}");
    for options in [&[][..], &["--cap", "CAP_NET_ADMIN"]] {
        let seen = berth_runtime_tests::container::report(&container.exec_with(options, &["/bin/probe"]).ok());
        if options.is_empty() || !lacks("runc < 1.2 | crun < 1.9", "what exec adds is inheritable") {
            assert_eq!(seen.set("inheritable"), [""; 0], "{options:?}");
        }
    }
}

/// CVE-2023-25809.
#[test]
fn the_machine_s_control_groups_cannot_be_written_from_a_user_namespace() {
    let mut container = Container::new(
        "for f in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $f/escape 2> /dev/null && rmdir $f/escape && awk -v f=$f '$5 == f { print f, $NF }' /proc/self/mountinfo; done | grep cgroup2; true",
    );
    container.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    container.namespace("cgroup", None);
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    container.spec["linux"]["uidMappings"] = mapping.clone();
    container.spec["linux"]["gidMappings"] = mapping;
    chown_to(&container, 100_000);
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
    expected(&berth_runtime_tests::container::report(&container.out()));
    let container = Container::sleeper().running();
    let call = container.exec_call(&[], &["/bin/probe"]).after("exec 3< / 5< /sys/fs/cgroup 9< /etc");
    expected(&berth_runtime_tests::container::report(&call.finish().ok()));
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

/// CVE-2025-31133, CVE-2025-62161.
#[test]
fn a_null_device_that_is_a_link_does_not_unmask_what_it_points_at() {
    for by_bind in [true, false] {
        let outside = Outside::new();
        let mut container = Container::new("echo changed > /proc/timer_list; cat /proc/timer_list; true");
        // What masks is what the image has at /dev/null.
        container.spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let devices = if by_bind { container.folder().join("devices") } else { container.rootfs().join("dev") };
        fs::create_dir_all(&devices).unwrap();
        let target = if by_bind { "/proc/sys/kernel/domainname" } else { "/etc/passwd" };
        symlink(target, devices.join("null")).unwrap();
        if by_bind {
            container.mount(json!({ "destination": "/dev", "source": devices, "options": ["bind"] }));
        }
        let output = attempt(&container);
        outside.assert_untouched();
        let passwd = fs::read_to_string(container.rootfs().join("etc/passwd")).unwrap();
        let escaped =
            passwd.contains("changed") || output.lines().any(|line| line == "changed" || line.contains("root:x"));
        assert!(!escaped || lacks("runc < 1.2.8 | crun < 1.25", "CVE-2025-31133"), "{output}");
    }
}

/// CVE-2025-52565.
#[test]
fn a_console_that_is_a_link_in_the_image_is_not_followed() {
    let outside = Outside::new();
    let mut container = Container::new("true");
    container.spec["process"]["terminal"] = json!(true);
    container.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    for (name, target) in [
        ("console", outside.path().join("file")),
        ("pts", outside.path().to_owned()),
        ("ptmx", outside.path().join("file")),
    ] {
        let _ = fs::remove_dir(container.rootfs().join("dev").join(name));
        symlink(target, container.rootfs().join("dev").join(name)).unwrap();
    }
    let socket = berth_runtime_tests::socket::Socket::listen(container.folder(), "console");
    let _ = container.create_by(container.create_call(&["--console-socket", socket.name()]));
    outside.assert_untouched();
    container.delete();
    outside.assert_untouched();
}

/// CVE-2025-52881.
#[test]
fn a_parameter_is_not_written_where_a_volume_in_proc_leads() {
    let check = |mount: &dyn Fn(&Path) -> Value| {
        let outside = Outside::new();
        let mut container = Container::new("true");
        container.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        let mount = mount(outside.path());
        container.mount(mount);
        attempt(&container);
        outside.assert_untouched();
    };
    check(
        &|outside| json!({ "destination": "/proc/sys/net/ipv4/ip_forward", "source": outside.join("file"), "options": ["bind"] }),
    );
    check(&|outside| json!({ "destination": "/proc/sys/net/ipv4", "source": outside, "options": ["bind"] }));
    check(&|_| json!({ "destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs" }));
}

/// CVE-2026-41579, CVE-2026-47766.
#[test]
fn a_folder_of_devices_that_is_a_link_makes_no_device_outside() {
    for deep in [false, true] {
        let outside = Outside::new();
        let mut container = Container::new("true");
        container.spec["linux"]["devices"] =
            json!([{ "path": "/dev/deep/device", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
        container.spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| deep || !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let link = container.rootfs().join("dev");
        fs::remove_dir(&link).unwrap();
        symlink(format!("../../../../../../..{}", outside.path().display()), &link).unwrap();
        attempt(&container);
        let broken = std::panic::catch_unwind(|| outside.assert_untouched()).is_err();
        assert!(
            !broken || lacks("runc < 1.4 | crun < 1.29", "CVE-2026-41579, CVE-2026-47766"),
            "{:?}",
            fs::read_dir(outside.path()).unwrap().count()
        );
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

/// CVE-2025-24965.
#[test]
fn nothing_is_written_into_the_root_through_an_image_s_links() {
    let outside = Outside::new();
    let container = Container::new("true");
    for name in [".krun_config.json", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "run/.containerenv"] {
        symlink(outside.path().join("new"), container.rootfs().join(name)).unwrap();
    }
    attempt(&container);
    outside.assert_untouched();
}

/// What crun 1.28 closed.
#[test]
fn a_path_of_a_control_group_cannot_leave_its_hierarchy() {
    for path in ["../../../../tmp/escape", "/../../../../tmp/escape", "/x/../../../escape"] {
        let container = Container::new("true").with(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        attempt(&container);
        assert!(!Path::new("/tmp/escape").exists() && !Path::new("/sys/fs/escape").exists());
        let _ = container.call(&["delete", "--force", &container.id]).finish();
        for root in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for name in ["tmp/escape", "tmp", "escape", "x"] {
                let _ = fs::remove_dir(root.path().join(name));
            }
        }
    }
}

#[test]
fn the_keys_of_the_session_are_the_container_s_own() {
    // /proc/keys shows what its reader possesses: the runtime's caller's session would be among it.
    let mut container = Container::new("grep -c keyring /proc/keys; grep -o '_ses[^:]*' /proc/keys | sort -u; true");
    container.spec["linux"]["maskedPaths"] = json!([]);
    let first = container.output();
    assert!(first.contains("_ses"), "no session of its own: {first}");
}

#[test]
fn a_process_of_the_container_cannot_see_the_machine_s_root_in_any_process() {
    let mut container = Container::new(
        "for p in /proc/[0-9]*; do ls $p/root/usr/share/doc $p/cwd/usr/share/doc; done 2> /dev/null; true",
    );
    container.grant(&["CAP_SYS_PTRACE"]);
    let container = container.running();
    (0..5).for_each(|_| drop(container.exec("true")));
    until("it has looked", || !berth_runtime_tests::container::is_alive(container.pid()));
    assert_eq!(container.out(), "");
}
