//! Cgroups of the real kernel, both versions. Run as root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use berth_sys::cgroup::device::{Access, Kind, Policy, Rule};
use berth_sys::cgroup::{Cgroup, DOOR_KEY, Hierarchies, Limits, Version};
use berth_sys::process::{Birth, Child, exit_now, spawn, wait, wait_for_end};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A cgroup that is gone when the test is.
struct Temporary(Cgroup);

impl Temporary {
    fn new(hierarchies: &Hierarchies, below: &str, limits: &Limits) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/berth-sys-test-{}-{number}{below}", std::process::id()));
        let cgroup = Cgroup::new(hierarchies, &path, &limits.controllers()).unwrap();
        let this = Self(cgroup);
        this.0.make().unwrap();
        this.0.set(limits).unwrap();
        this
    }

    /// A child inside, whatever the version.
    fn spawn(&self, work: impl FnOnce() -> i32) -> Child {
        let (wait_to_go, go) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (is_inside, inside) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let folder = self.0.open_unified().unwrap();
        let birth = Birth { cgroup: folder.as_ref().map(|folder| folder.as_fd()), ..Birth::default() };
        let doors = self.0.open_doors().unwrap();
        let child = spawn(&birth, || {
            let through = |(_, door): &(_, _)| nix::unistd::write(door, DOOR_KEY).is_ok();
            if !doors.iter().all(through) {
                exit_now(99);
            }
            let _ = nix::unistd::write(&inside, b"i");
            let _ = nix::unistd::read(&wait_to_go, &mut [0]);
            exit_now(work())
        })
        .unwrap();
        assert_eq!(nix::unistd::read(&is_inside, &mut [0]).unwrap(), 1);
        nix::unistd::write(&go, b"g").unwrap();
        child
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        for (root, folder, _) in self.0.folders() {
            for folder in folder.ancestors().take_while(|above| *above != root) {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

fn sleep_for_ever() -> i32 {
    loop {
        nix::unistd::pause();
    }
}

/// Runs a test on a thread that sees a machine with the unified hierarchy alone.
fn on_a_unified_machine(test: impl FnOnce(&Hierarchies) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).unwrap();
            mount(Some("none"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).unwrap();
            test(&Hierarchies::detect().unwrap());
        });
        if let Err(payload) = thread.join() {
            std::panic::resume_unwind(payload);
        }
    });
}

#[test]
fn folders_are_made_in_a_chain_limited_and_removed() {
    let hierarchies = Hierarchies::of_machine().unwrap();
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        pids: Some(7),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".into()),
        ..Limits::default()
    };
    let cgroup = Temporary::new(hierarchies, "/pod/container", &limits);
    let (folder, version) = cgroup.0.folder("pids").unwrap();
    assert_eq!(fs::read_to_string(folder.join("pids.max")).unwrap().trim(), "7");
    if version == Version::V1 {
        let (cpu, _) = cgroup.0.folder("cpu").unwrap();
        assert_eq!(fs::read_to_string(cpu.join("cpu.shares")).unwrap().trim(), "512");
    }
    cgroup.0.make().unwrap();
    cgroup.0.remove().unwrap();
    cgroup.0.remove().unwrap();
    assert!(!cgroup.0.exists());
}

#[test]
fn everything_inside_is_killed_even_below_and_then_removed() {
    let cgroup = Temporary::new(Hierarchies::of_machine().unwrap(), "", &Limits::default());
    let child = cgroup.spawn(sleep_for_ever);
    let inner: Vec<PathBuf> = cgroup.0.folders().map(|(_, folder, _)| folder.join("inner")).collect();
    inner.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    cgroup.0.kill().unwrap();
    assert!(wait_for_end(&child.pidfd, 5000).unwrap());
    assert_eq!(wait(&child.pidfd).unwrap().code(), 137);
    cgroup.0.remove().unwrap();
    assert!(!cgroup.0.exists());
}

#[test]
fn the_freezer_way_of_killing_works_where_there_is_no_unified_hierarchy() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).unwrap();
            let hierarchies = Hierarchies::detect().unwrap();
            assert!(!hierarchies.has_unified());
            let cgroup = Temporary::new(&hierarchies, "", &Limits::default());
            let child = cgroup.spawn(sleep_for_ever);
            let (freezer, _) = cgroup.0.folder("freezer").unwrap();
            fs::write(freezer.join("freezer.state"), "FROZEN").unwrap();
            cgroup.0.kill().unwrap();
            assert_eq!(wait(&child.pidfd).unwrap().code(), 137);
        });
    });
}

fn only_null() -> Policy {
    Policy::new([
        Rule { allow: false, kind: None, major: None, minor: None, access: Access::ALL },
        Rule {
            allow: true,
            kind: Some(Kind::Char),
            major: Some(1),
            minor: Some(3),
            access: Access::parse("r").unwrap(),
        },
    ])
    .unwrap()
}

/// Which of reading null, writing null and reading zero is allowed, as bits.
fn what_can_be_opened() -> i32 {
    let read = |path| File::open(path).is_ok();
    i32::from(read("/dev/null"))
        | i32::from(File::options().write(true).open("/dev/null").is_ok()) << 1
        | i32::from(read("/dev/zero")) << 2
}

#[test]
fn device_rules_hold_on_either_version() {
    let check = |hierarchies: &Hierarchies| {
        let cgroup = Temporary::new(hierarchies, "", &Limits::default());
        cgroup.0.set_devices(&only_null()).unwrap();
        let child = cgroup.spawn(what_can_be_opened);
        assert_eq!(wait(&child.pidfd).unwrap().code(), 1);
        let all = Rule { allow: true, kind: None, major: None, minor: None, access: Access::ALL };
        let cgroup = Temporary::new(hierarchies, "", &Limits::default());
        cgroup.0.set_devices(&Policy::new([all]).unwrap()).unwrap();
        let child = cgroup.spawn(what_can_be_opened);
        assert_eq!(wait(&child.pidfd).unwrap().code(), 7);
    };
    check(Hierarchies::of_machine().unwrap());
    on_a_unified_machine(check);
}

#[test]
fn the_last_device_rules_hold_and_no_others() {
    let check = |hierarchies: &Hierarchies| {
        let cgroup = Temporary::new(hierarchies, "", &Limits::default());
        let all = Rule { allow: true, kind: None, major: None, minor: None, access: Access::ALL };
        let all = Policy::new([all]).unwrap();
        for (policy, bits) in [(&all, 7), (&only_null(), 1), (&all, 7), (&only_null(), 1)] {
            cgroup.0.set_devices(policy).unwrap();
            let child = cgroup.spawn(what_can_be_opened);
            assert_eq!(wait(&child.pidfd).unwrap().code(), bits);
        }
    };
    check(Hierarchies::of_machine().unwrap());
    on_a_unified_machine(check);
}

#[test]
fn what_is_allowed_before_and_after_is_so_all_the_time() {
    let check = |hierarchies: &Hierarchies| {
        let cgroup = Temporary::new(hierarchies, "", &Limits::default());
        let zero = Rule { allow: true, kind: Some(Kind::Char), major: Some(1), minor: Some(5), access: Access::ALL };
        let read = Access::parse("r").unwrap();
        let null = Rule { access: read, minor: Some(3), ..zero };
        let policies = [Policy::new([null]).unwrap(), Policy::new([null, zero]).unwrap()];
        cgroup.0.set_devices(&policies[0]).unwrap();
        let (tell, told) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let child = cgroup.spawn(|| {
            let _ = nix::unistd::write(&told, b"o");
            // Until it is killed, or denied.
            while File::open("/dev/null").is_ok() {}
            1
        });
        nix::unistd::read(&tell, &mut [0]).unwrap();
        for policy in policies.iter().cycle().take(200) {
            cgroup.0.set_devices(policy).unwrap();
        }
        cgroup.0.kill().unwrap();
        assert_eq!(wait(&child.pidfd).unwrap().code(), 137, "it was denied meanwhile");
    };
    check(Hierarchies::of_machine().unwrap());
    on_a_unified_machine(check);
}

#[test]
fn controllers_of_the_unified_hierarchy_are_enabled_down_the_chain() {
    on_a_unified_machine(|hierarchies| {
        assert_eq!(hierarchies.version("memory"), None, "this machine's memory controller is on v1");
        let cgroup = Temporary::new(hierarchies, "/pod/container", &Limits::default());
        assert!(Path::new("/sys/fs/cgroup").join(cgroup.0.path().strip_prefix("/").unwrap()).exists());
        assert!(cgroup.0.set(&Limits { memory_bytes: Some(1 << 20), ..Limits::default() }).is_err());
    });
}
