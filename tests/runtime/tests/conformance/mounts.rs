//! config.md: mounts: what is mounted where, in which order, and what is made for it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use berth_runtime_tests::machine::Mounted;
use berth_runtime_tests::{Container, lacks};
use serde_json::{Value, json};

fn bind(source: &std::path::Path, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] })
}

#[test]
fn the_usual_file_systems_are_there_with_their_options() {
    let seen = Container::probe().seen();
    let check = |target: &str, kind: &str, options: &[&str], super_options: &[&str]| {
        let mount = seen.mounted(target);
        assert_eq!(mount.kind, kind, "{target}");
        assert!(mount.has(options), "{mount:?}");
        assert!(super_options.iter().all(|it| mount.super_options.iter().any(|own| own == it)), "{mount:?}");
    };
    check("/proc", "proc", &["nosuid", "nodev", "noexec"], &[]);
    check("/dev", "tmpfs", &["nosuid"], &["mode=755", "size=65536k"]);
    check("/dev/pts", "devpts", &["nosuid", "noexec"], &["gid=5", "mode=620", "ptmxmode=666"]);
    check("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec"], &["size=65536k"]);
    check("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"], &[]);
    check("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"], &[]);
}

#[test]
fn mounts_are_made_in_the_order_of_the_configuration() {
    let mut container = Container::new("cat /data/a/mark; ls /data/b; ls /data");
    let sources = ["outer", "inner"].map(|name| container.folder().join(name));
    for source in &sources {
        fs::create_dir(source).unwrap();
        fs::write(source.join("mark"), source.file_name().unwrap().to_str().unwrap()).unwrap();
    }
    container.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs" }));
    container.mount(bind(&sources[1], "/data/a"));
    container.mount(bind(&sources[1], "/data/b"));
    // On top of what was there before.
    container.mount(json!({ "destination": "/data/b", "type": "tmpfs", "source": "tmpfs" }));
    assert_eq!(container.output(), "innera\nb");
    let mut container = Container::new("ls /data; cat /data/mark");
    container.mount(bind(&sources[1], "/data/inside"));
    fs::create_dir_all(&sources[0]).unwrap();
    fs::create_dir_all(&sources[1]).unwrap();
    fs::write(sources[0].join("mark"), "outer").unwrap();
    container.mount(bind(&sources[0], "/data"));
    assert_eq!(container.output(), "mark\nouter", "the later mount hides the earlier");
}

#[test]
fn missing_destinations_are_made_of_the_source_s_kind() {
    let mut container = Container::new("cat /new/deep/file; ls /new/folder; stat -c %F /new/tmpfs /new/socket");
    let source = container.folder().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text\n").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    container.mount(bind(&source.join("file"), "/new/deep/file"));
    container.mount(bind(&source, "/new/folder"));
    container.mount(bind(&source.join("socket"), "/new/socket"));
    container.mount(json!({ "destination": "/new/tmpfs", "type": "tmpfs", "source": "tmpfs" }));
    assert_eq!(container.output(), "text\nfile\nsocket\ndirectory\nsocket");
}

#[test]
fn destinations_with_strange_names_are_cleaned() {
    let check = |destination: &str, target: &str| {
        let mut container = Container::probe();
        container.mount(json!({ "destination": destination, "type": "tmpfs", "source": "mark" }));
        assert_eq!(container.seen().mounted(target).source, "mark", "{destination}");
    };
    check("/data/", "/data");
    check("//data//x", "/data/x");
    check("/data/./x/../y", "/data/y");
    check("/../../data", "/data");
    check("/data/two words", "/data/two\\040words");
    check("/data/\u{e4}", "/data/\u{e4}");
    // The specification took relative ones for mistakes, and later let them be taken from the root.
    check("data/relative", "/data/relative");
}

#[test]
fn links_on_the_way_to_a_destination_stay_inside() {
    if lacks("crun < 1.9", "cannot make what a link points at") {
        return;
    }
    let mut container = Container::new("cat /data/real/mark /data/other/mark");
    let outside = tempfile::tempdir().unwrap();
    let source = container.folder().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("mark"), "inside\n").unwrap();
    for (name, target) in [("absolute", "/data/real"), ("relative", "data/../../../data/other")] {
        symlink(target, container.rootfs().join(name)).unwrap();
    }
    symlink(outside.path(), container.rootfs().join("out")).unwrap();
    container.mount(bind(&source, "/absolute"));
    container.mount(bind(&source, "/relative"));
    container.mount(bind(&source, "/out/deep"));
    let outcome = container.try_create();
    if outcome.code == 0 {
        container.start();
        assert_eq!((container.wait(), container.out().as_str()), (0, "inside\ninside\n"));
    } else {
        // A link to nowhere may be refused; the others may not.
        container.spec["mounts"].as_array_mut().unwrap().pop();
        assert_eq!(container.output(), "inside\ninside");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "something was made on the machine");
}

#[test]
fn links_in_a_source_are_followed() {
    let mut container = Container::new("cat /data/mark");
    let source = container.folder().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("mark"), "found").unwrap();
    let link = container.folder().join("link");
    symlink("source", &link).unwrap();
    container.mount(bind(&link, "/data"));
    assert_eq!(container.output(), "found");
}

#[test]
fn a_relative_source_is_relative_to_the_bundle() {
    let mut container = Container::new("cat /data/mark");
    fs::create_dir(container.bundle().join("volume")).unwrap();
    fs::write(container.bundle().join("volume/mark"), "found").unwrap();
    container.mount(json!({ "destination": "/data", "source": "volume", "options": ["bind"] }));
    assert_eq!(container.output(), "found");
}

#[test]
fn a_bind_shows_the_folder_and_a_recursive_one_what_is_mounted_below() {
    let check = |option: &str, expected: &str| {
        let mut container = Container::new("ls /data/below");
        let source = container.folder().join("source");
        fs::create_dir_all(source.join("below")).unwrap();
        let below = Mounted::tmpfs(&source.join("below"));
        fs::write(below.path.join("mark"), "").unwrap();
        container.mount(json!({ "destination": "/data", "source": source, "options": [option] }));
        assert_eq!(container.output(), expected, "{option}");
    };
    check("bind", "");
    check("rbind", "mark");
}

#[test]
fn a_file_system_in_memory_has_its_size_mode_and_owner() {
    let mut container =
        Container::new("stat -c '%a %u %g' /data; dd if=/dev/zero of=/data/x bs=1024 count=100 2>&1; ls -s /data");
    container.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "mode=1750", "uid=7", "gid=8", "size=64k"] }));
    let output = container.output();
    assert!(output.contains(" 7 8\n") && output.contains("No space left"), "{output}");
    if !lacks("runc < 1.2", "the mode of the covered folder wins over the mode that is asked for") {
        assert!(output.starts_with("1750 "), "{output}");
    }
}

#[test]
fn a_file_system_in_memory_begins_with_what_the_image_has_if_asked() {
    let copied = |options: Value| {
        let mut container = Container::new(
            "cat /data/deep/file; stat -c '%a %u' /data/deep/file; readlink /data/link; touch /data/new",
        );
        let data = container.rootfs().join("data");
        fs::create_dir(data.join("deep")).unwrap();
        fs::write(data.join("deep/file"), "image\n").unwrap();
        fs::set_permissions(data.join("deep/file"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(data.join("deep/file"), Some(7), None).unwrap();
        symlink("deep/file", data.join("link")).unwrap();
        container.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options }));
        let output = container.run();
        assert!(!data.join("new").exists(), "the image was changed");
        output.out
    };
    assert_eq!(copied(json!(["tmpcopyup"])), "image\n640 7\ndeep/file\n");
    assert_eq!(copied(json!([])), "");
}

#[test]
fn a_memory_file_system_has_the_mode_of_what_it_covers() {
    if lacks("crun", "has the kernel's mode, 1777") {
        return;
    }
    let mut container = Container::new("stat -c %a /data");
    fs::set_permissions(container.rootfs().join("data"), fs::Permissions::from_mode(0o1711)).unwrap();
    container.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs" }));
    assert_eq!(container.output(), "1711");
}

#[test]
fn a_source_that_is_missing_is_an_error_and_is_not_made() {
    let mut container = Container::new("true");
    let missing = container.folder().join("missing");
    container.mount(bind(&missing, "/data"));
    container.try_create().refused();
    assert!(!missing.exists());
    container.assert_gone();
}

#[test]
fn a_kind_that_the_kernel_does_not_know_is_an_error() {
    let mut container = Container::new("true");
    container.mount(json!({ "destination": "/data", "type": "nonsense", "source": "x" }));
    container.try_create().refused();
    container.assert_gone();
}

#[test]
fn a_file_on_a_folder_and_a_folder_on_a_file_are_errors() {
    for (from, to) in [("file", "/data"), ("folder", "/etc/passwd")] {
        let mut container = Container::new("true");
        fs::create_dir(container.folder().join("folder")).unwrap();
        fs::write(container.folder().join("file"), "").unwrap();
        container.mount(bind(&container.folder().join(from), to));
        container.try_create().refused();
        container.assert_gone();
    }
}

#[test]
fn a_device_of_the_machine_can_be_bound() {
    let mut container = Container::new("stat -c '%t:%T' /data/null");
    container.mount(bind(std::path::Path::new("/dev/null"), "/data/null"));
    assert_eq!(container.output(), "1:3");
}

#[test]
fn a_folder_is_bound_and_not_copied() {
    let mut container = Container::new("echo changed > /data/file; rm /data/old");
    let source = container.folder().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("old"), "").unwrap();
    container.mount(bind(&source, "/data"));
    container.output();
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "changed\n");
    assert!(!source.join("old").exists());
}

#[test]
fn many_mounts_are_no_trouble() {
    let mut container = Container::probe();
    let source = container.folder().join("source");
    fs::create_dir(&source).unwrap();
    (0..200).for_each(|number| container.mount(bind(&source, &format!("/data/{number}"))));
    let seen = container.seen();
    let inode = fs::metadata(&source).unwrap().ino();
    assert_ne!(inode, 0);
    assert!((0..200).all(|number| seen.mount(&format!("/data/{number}")).is_some()));
}

#[test]
fn overlays_are_mounted_with_their_folders() {
    let mut container = Container::new("cat /data/low /data/high; touch /data/new");
    // A file system of its own: an overlay's upper folder cannot lie on every other.
    let space = Mounted::tmpfs(&container.folder().join("space"));
    let folders = ["lower", "upper", "work"].map(|name| space.path.join(name));
    folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    fs::write(folders[0].join("low"), "low ").unwrap();
    fs::write(folders[1].join("high"), "high").unwrap();
    let [lower, upper, work] = folders.each_ref().map(|folder| folder.display());
    container.mount(json!({ "destination": "/data", "type": "overlay", "source": "overlay",
        "options": [format!("lowerdir={lower}"), format!("upperdir={upper}"), format!("workdir={work}")] }));
    assert_eq!(container.output(), "low high");
    assert!(folders[1].join("new").exists());
    container.delete();
}
