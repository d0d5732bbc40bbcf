//! The root file system, mounts, devices; masked and read-only paths; images that lie in wait.

use std::fs;
use std::os::unix::fs::symlink;

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use crate::support::{Container, describe};

#[test]
fn the_standard_mounts_are_there_with_their_options() {
    let container = Container::new("cat /proc/self/mounts");
    let output = container.output();
    let mounts: Vec<Vec<&str>> = output.lines().map(|line| line.split(' ').collect()).collect();
    let options = |target: &str| {
        let mount = mounts.iter().find(|mount| mount[1] == target).unwrap_or_else(|| panic!("{target}: {output}"));
        (mount[2], mount[3])
    };
    assert_eq!(options("/proc").0, "proc");
    assert!(options("/sys").1.starts_with("ro,nosuid,nodev,noexec"));
    assert!(options("/dev").1.contains("size=65536k,mode=755"));
    assert!(options("/dev/pts").1.contains("gid=5,mode=620"));
    assert_eq!(options("/dev/shm").0, "tmpfs");
    assert_eq!(options("/dev/mqueue").0, "mqueue");
    assert!(options("/sys/fs/cgroup").1.starts_with("ro,nosuid"));
    assert!(options("/sys/fs/cgroup/memory").1.starts_with("ro,"));
    assert!(!output.contains("/tmp/"), "nothing of the machine is in sight: {output}");
}

#[test]
fn the_container_sees_its_own_cgroup_and_nothing_above() {
    let container = Container::new("cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs");
    let output = container.output();
    assert!(output.lines().any(|line| line.ends_with(":pids:/")), "{output}");
    assert!(output.lines().any(|line| line == "1"), "{output}");
    assert!(!output.contains("berth-test"), "{output}");
}

#[test]
fn a_source_that_is_relative_is_the_bundle_s_whatever_is_read_of_it() {
    let mut container = Container::new("echo $HOME; grep -c . /etc/passwd");
    fs::write(container.bundle().join("users"), "root:x:0:0::/home/of-bundle:/bin/sh\n").unwrap();
    container.mount(json!({ "destination": "/etc/passwd", "source": "users", "options": ["bind"] }));
    assert_eq!(container.output(), "/home/of-bundle\n1");
}

#[test]
fn devices_and_links_are_those_of_the_spec() {
    let mut container = Container::new(
        "for d in null zero full random urandom tty fuse; do stat -c '%n %t:%T %a %u' /dev/$d; done; \
         readlink /dev/fd; readlink /dev/ptmx; echo x > /dev/null; head -c 3 /dev/zero | wc -c 2>/dev/null; \
         head -c 1 /dev/fuse 2>&1",
    );
    container.spec["linux"]["devices"] =
        json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7 }]);
    let (_, output) = container.run();
    for line in ["/dev/null 1:3 666 0", "/dev/tty 5:0 666 0", "/dev/fuse a:e5 640 7", "/proc/self/fd", "pts/ptmx"] {
        assert!(output.lines().any(|it| it == line), "{line}: {output}");
    }
    assert!(output.contains("Operation not permitted"), "no rule allows this device: {output}");
}

#[test]
fn a_device_rule_lets_a_device_be_used() {
    let mut container =
        Container::new("mknod /tmp/fuse c 10 229; head -c 0 /tmp/fuse && echo opened; head -c 0 /dev/fuse > /dev/fuse");
    container.spec["process"]["capabilities"]["bounding"] = json!(["CAP_MKNOD"]);
    container.spec["process"]["capabilities"]["effective"] = json!(["CAP_MKNOD"]);
    container.spec["process"]["capabilities"]["permitted"] = json!(["CAP_MKNOD"]);
    container.spec["linux"]["resources"] = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" },
    ]});
    container.spec["linux"]["devices"] = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }]);
    let (code, output) = container.run();
    assert_ne!(code, 0, "the rule allows reading alone");
    assert!(output.starts_with("opened\n") && output.contains("Operation not permitted"), "{output}");
}

#[test]
fn masked_paths_are_empty_and_read_only_ones_cannot_be_written() {
    let mut container = Container::new(
        "cat /proc/keys /etc/secret; ls -A /etc/hidden; echo x > /proc/sys/kernel/shmmni; echo x > /etc/fixed/file; true",
    );
    fs::write(container.rootfs().join("etc/secret"), "secret").unwrap();
    for folder in ["hidden", "hidden2", "fixed"] {
        fs::create_dir(container.rootfs().join("etc").join(folder)).unwrap();
        fs::write(container.rootfs().join("etc").join(folder).join("file"), "secret").unwrap();
    }
    let masked = container.spec["linux"]["maskedPaths"].as_array_mut().unwrap();
    masked.extend(["/etc/secret", "/etc/hidden", "/etc/hidden2"].map(|path| json!(path)));
    container.spec["linux"]["readonlyPaths"].as_array_mut().unwrap().push(json!("/etc/fixed"));
    let (code, output) = container.run();
    assert_eq!(code, 0);
    assert!(!output.contains("secret") && !output.contains("file\n"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert_eq!(fs::read_to_string(container.rootfs().join("etc/fixed/file")).unwrap(), "secret");
}

#[test]
fn a_read_only_root_has_writable_mounts() {
    let mut container = Container::new("touch /x; touch /dev/shm/y && touch /dev/z; touch /data/w && ls /data");
    container.spec["root"]["readonly"] = json!(true);
    container.spec["mounts"][1]["options"].as_array_mut().unwrap().push(json!("ro"));
    let data = tempfile::tempdir().unwrap();
    container.mount(json!({ "destination": "/data", "source": data.path(), "options": ["rbind", "nosuid"] }));
    let (_, output) = container.run();
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert!(output.ends_with("w\n") && data.path().join("w").exists());
}

#[test]
fn binds_of_files_and_folders_have_their_options() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("file"), "content").unwrap();
    let mut container = Container::new("cat /new/path/file; touch /ro/x; /etc/sh -c true");
    container
        .mount(json!({ "destination": "/new/path/file", "source": data.path().join("file"), "options": ["bind"] }));
    container.mount(json!({ "destination": "/ro", "source": data.path(), "options": ["rbind", "ro"] }));
    container.mount(json!({ "destination": "/etc/sh", "source": "/bin/busybox", "options": ["bind", "noexec"] }));
    let (_, output) = container.run();
    assert!(output.starts_with("content"), "{output}");
    assert!(output.contains("Read-only file system") && output.contains("Permission denied"), "{output}");
}

#[test]
fn mounts_do_not_come_back_to_the_machine_unless_shared() {
    let data = tempfile::tempdir().unwrap();
    let mut container = Container::new("mount -t tmpfs none /data && touch /data/inside");
    let capabilities = json!(["CAP_SYS_ADMIN"]);
    container.spec["process"]["capabilities"] =
        json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    container.mount(json!({ "destination": "/data", "source": data.path(), "options": ["rbind"] }));
    assert_eq!(container.run().0, 0);
    assert!(!data.path().join("inside").exists());
}

#[test]
fn an_image_cannot_choose_where_the_kernel_s_files_appear() {
    let check = |name: &str, change: &dyn Fn(&Container)| {
        let container = Container::new("true");
        change(&container);
        let error = container.create().unwrap_err();
        assert!(describe(&error).contains(name), "{}", describe(&error));
        container.assert_gone();
    };
    for name in ["proc", "sys"] {
        check(&format!("on /{name}: "), &|container| {
            fs::remove_dir(container.rootfs().join(name)).unwrap();
            symlink("/tmp", container.rootfs().join(name)).unwrap();
        });
    }
}

#[test]
fn links_in_an_image_do_not_lead_out_of_it() {
    let outside = tempfile::tempdir().unwrap();
    let mut container = Container::new("test -e /dev/null && cat /tmp/target/file");
    // A mount target and /dev behind links that point at the machine.
    fs::create_dir_all(container.rootfs().join(outside.path().strip_prefix("/").unwrap())).unwrap();
    symlink(outside.path(), container.rootfs().join("link")).unwrap();
    symlink(outside.path(), container.rootfs().join("tmp/target")).unwrap();
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("file"), "bound").unwrap();
    container.mount(json!({ "destination": "/link", "source": data.path(), "options": ["bind"] }));
    assert_eq!(container.output(), "bound");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn what_a_link_to_nowhere_names_is_made_below_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let mut container = Container::new("stat -c %F /made/deep /etc/file /tmp/last");
    symlink(outside.path().join("new"), container.rootfs().join("link")).unwrap();
    symlink("../../../made", container.rootfs().join("relative")).unwrap();
    symlink("/etc/file", container.rootfs().join("to-file")).unwrap();
    symlink("other", container.rootfs().join("tmp/chain")).unwrap();
    symlink("/tmp/last", container.rootfs().join("tmp/other")).unwrap();
    let data = tempfile::NamedTempFile::new().unwrap();
    for destination in ["/link/deep", "/relative/deep", "/tmp/chain"] {
        container.mount(json!({ "destination": destination, "type": "tmpfs" }));
    }
    container.mount(json!({ "destination": "/to-file", "source": data.path(), "options": ["bind"] }));
    assert_eq!(container.output(), "directory\nregular empty file\ndirectory");
    assert!(!outside.path().join("new").exists());
    assert!(container.rootfs().join(outside.path().strip_prefix("/").unwrap()).join("new/deep").exists());
}

#[test]
fn a_link_to_itself_is_no_target() {
    let mut container = Container::new("true");
    symlink("loop", container.rootfs().join("loop")).unwrap();
    container.mount(json!({ "destination": "/loop/deep", "type": "tmpfs" }));
    assert!(container.create().is_err());
    container.assert_gone();
}

#[test]
fn the_kernel_s_proc_cannot_be_replaced() {
    for mount in [
        json!({ "destination": "/proc", "type": "tmpfs" }),
        json!({ "destination": "/proc/self", "source": "/tmp", "options": ["bind"] }),
        json!({ "destination": "/proc", "source": "/tmp", "options": ["bind"] }),
    ] {
        let mut container = Container::new("true");
        container.mount(mount);
        assert!(container.create().is_err());
        container.assert_gone();
    }
}

#[test]
fn nothing_is_mounted_in_the_kernel_s_proc_by_way_of_a_link() {
    for (link, kind) in [("/proc/sys", "tmpfs"), ("proc/self", "tmpfs"), ("/proc", "bind")] {
        let mut container = Container::new("true");
        symlink(link, container.rootfs().join("volume")).unwrap();
        let options = if kind == "bind" { json!(["bind"]) } else { json!([]) };
        container.mount(json!({ "destination": "/volume", "type": kind, "source": "/tmp", "options": options }));
        assert!(container.create().is_err(), "{link}");
        container.assert_gone();
    }
    let mut container = Container::new("cat /host/proc/version; ls /host/proc/self");
    fs::create_dir_all(container.rootfs().join("host")).unwrap();
    container.mount(json!({ "destination": "/host/proc", "source": "/proc", "options": ["rbind"] }));
    container.mount(json!({ "destination": "/host/proc/tty", "type": "tmpfs" }));
    assert!(container.output().starts_with("Linux"), "another /proc is a folder as any");
}

#[test]
fn nothing_of_the_maker_is_open_in_the_program() {
    // A descriptor that programs inherit, as a careless library in the same process would leave it.
    std::mem::forget(nix::unistd::dup(fs::File::open("/").unwrap()).unwrap());
    let container = Container::new("ls /proc/self/fd");
    // The fourth is the listing's own.
    assert_eq!(container.output(), "0\n1\n2\n3");
    let mut container = Container::new("true");
    container.spec["process"]["cwd"] = json!("/proc/self/fd/5/../..");
    assert!(container.create().is_err());
}

#[test]
fn a_container_that_waits_for_its_start_holds_nothing_of_its_maker_open() {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let container = Container::new("true");
    container.create().unwrap();
    drop(write);
    let mut closed = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut closed, PollTimeout::from(10_000_u16)).unwrap(), 1, "somebody else holds the other end");
}
