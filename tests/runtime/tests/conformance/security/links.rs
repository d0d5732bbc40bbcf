//! An image's links, which lead out of it.

use std::fs;
use std::os::unix::fs::symlink;

use berth_runtime_tests::{Container, lacks};
use serde_json::{Value, json};

use super::{Outside, attempt};

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
                let broken = outside.is_touched();
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
        let broken = outside.is_touched();
        assert!(!broken || lacks("runc < 1.4 | crun < 1.29", "CVE-2026-41579, CVE-2026-47766"));
    }
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
    for up in ["..", "/..", "/x/.."] {
        let outside = Outside::new();
        let path = format!("{up}/../../..{}/group", outside.path().display());
        let container = Container::new("true").with(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        attempt(&container);
        let broken = outside.is_touched();
        let _ = container.call(&["delete", "--force", &container.id]).finish();
        // Where it is, if the path was taken from the hierarchies' roots: the parents are nobody's.
        for root in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let inside = root.path().join(outside.path().strip_prefix("/").unwrap());
            inside
                .ancestors()
                .take_while(|folder| *folder != root.path())
                .for_each(|folder| drop(fs::remove_dir(folder)));
        }
        assert!(!broken || lacks("crun < 1.28", "makes a folder outside of the hierarchies"), "{path}");
    }
}
