//! config.md: the root file system.

use std::fs;

use berth_runtime_tests::Container;
use berth_runtime_tests::machine::Mounted;
use nix::mount::MsFlags;
use serde_json::json;

#[test]
fn the_root_is_the_bundle_s_and_nothing_of_the_machine_is_in_sight() {
    let container = Container::probe();
    fs::write(container.rootfs().join("mark"), "").unwrap();
    let seen = container.seen();
    let machine = container.folder().to_str().unwrap().to_owned();
    assert!(seen.mounts.iter().all(|mount| !mount.target.contains(&machine)), "{:#?}", seen.mounts);
    assert_eq!(seen.mounts.iter().filter(|mount| mount.target == "/").count(), 1, "{:#?}", seen.mounts);
    assert!(!seen.mounted("/").has(&["ro"]));
    let container = Container::new("ls -d /mark; ls /.. | grep -c usr");
    fs::write(container.rootfs().join("mark"), "").unwrap();
    assert_eq!(container.run().out, "/mark\n0\n");
}

#[test]
fn a_read_only_root_has_writable_mounts() {
    let mut container = Container::new(
        "for f in /x /etc/x /dev/x /dev/shm/x /data/x; do touch $f 2> /dev/null && echo $f; done; \
         awk '$5 == \"/\" { print $6 }' /proc/self/mountinfo",
    );
    container.spec["root"]["readonly"] = json!(true);
    container.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs" }));
    let output = container.output();
    let (writable, root) = output.rsplit_once('\n').unwrap();
    assert_eq!(writable, "/dev/x\n/dev/shm/x\n/data/x");
    assert!(root.starts_with("ro"), "{root}");
    fs::write(container.rootfs().join("x"), "").expect("the folder itself is no more read-only than before");
}

#[test]
fn a_read_only_root_does_not_need_a_writable_folder_of_the_machine() {
    let container = Container::new("touch /x 2> /dev/null || echo refused").with(|spec| {
        spec["root"]["readonly"] = json!(true);
    });
    let mounted = Mounted::bind(&container.rootfs(), &container.rootfs());
    mounted.change(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY);
    assert_eq!(container.output(), "refused");
}

#[test]
fn the_root_s_path_is_relative_to_the_bundle_or_absolute() {
    for absolute in [true, false] {
        let container = Container::new("cat /mark");
        let elsewhere = container.bundle().join("deep/er");
        fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
        fs::rename(container.rootfs(), &elsewhere).unwrap();
        fs::write(elsewhere.join("mark"), "found").unwrap();
        let path = if absolute { elsewhere.to_str().unwrap() } else { "deep/er" };
        let container = container.with(|spec| spec["root"]["path"] = json!(path));
        assert_eq!(container.output(), "found");
    }
}

#[test]
fn a_root_on_a_shared_mount_gives_nothing_back() {
    let container = Container::sleeper();
    let outer = Mounted::tmpfs(&container.folder().join("outer"));
    outer.change(MsFlags::MS_SHARED);
    let root = outer.path.join("root");
    let copied = std::process::Command::new("cp").arg("-a").arg(container.rootfs()).arg(&root).status().unwrap();
    assert!(copied.success());
    let container = container.with(|spec| spec["root"]["path"] = json!(root)).running();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "{mounts}");
    assert_eq!(container.exec("ls /").code, 0);
    container.delete();
}

#[test]
fn without_pivot_the_root_is_changed_all_the_same() {
    let container = Container::new("ls /mark");
    fs::write(container.rootfs().join("mark"), "").unwrap();
    container.create_by(container.create_call(&["--no-pivot"])).ok();
    container.start();
    assert_eq!((container.wait(), container.out().as_str()), (0, "/mark\n"));
}
