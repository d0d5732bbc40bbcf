//! config.md: options of mounts, alone and together, and those that reach down to what is mounted below.

use std::fs;

use berth_runtime_tests::machine::Mounted;
use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, lacks};
use serde_json::{Value, json};

/// What the probe sees of a bind of a folder with another file system in `below`.
fn bound(options: &[&str]) -> Report {
    let mut container = Container::probe();
    let source = container.folder().join("source");
    let outer = Mounted::tmpfs(&source);
    let below = Mounted::tmpfs(&outer.path.join("below"));
    container.mount(json!({ "destination": "/data", "type": "bind", "source": source, "options": options }));
    let seen = container.seen();
    // Inner before outer.
    drop(below);
    seen
}

#[test]
fn options_of_a_bind_are_the_mount_s() {
    let check = |options: &[&str], expected: &[&str], not: &[&str]| {
        let mut all = vec!["bind"];
        all.extend(options);
        let seen = bound(&all);
        let mount = seen.mounted("/data");
        assert!(mount.has(expected), "{options:?}: {mount:?}");
        assert!(!not.iter().any(|option| mount.has(&[option])), "{options:?}: {mount:?}");
    };
    check(&[], &["rw", "relatime"], &["ro", "nosuid", "nodev", "noexec"]);
    check(&["ro"], &["ro"], &["rw"]);
    check(&["rw"], &["rw"], &["ro"]);
    check(&["nosuid"], &["nosuid", "rw"], &["nodev", "noexec"]);
    check(&["nodev"], &["nodev"], &["nosuid"]);
    check(&["noexec"], &["noexec"], &["nosuid"]);
    check(&["noatime"], &["noatime"], &["relatime"]);
    check(&["strictatime"], &[], &["relatime", "noatime"]);
    check(&["nodiratime"], &["nodiratime"], &[]);
    check(&["ro", "nosuid", "nodev", "noexec", "noatime"], &["ro", "nosuid", "nodev", "noexec", "noatime"], &[]);
    if !lacks("crun", "the last of two opposites does not win") {
        check(&["ro", "rw"], &["rw"], &["ro"]);
        check(&["noexec", "exec", "nodev", "dev", "nosuid", "suid"], &[], &["noexec", "nodev", "nosuid"]);
    }
}

#[test]
fn a_mount_does_not_let_links_be_followed() {
    if lacks("crun < 1.9", "no nosymfollow") {
        return;
    }
    assert!(bound(&["bind", "nosymfollow"]).mounted("/data").has(&["nosymfollow"]));
}

#[test]
fn options_of_a_file_system_are_the_mount_s_and_the_file_system_s() {
    let check = |options: &[&str], mount_options: &[&str], super_options: &[&str]| {
        let mut container = Container::probe();
        container.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options }));
        let seen = container.seen();
        let mount = seen.mounted("/data");
        assert!(mount.has(mount_options), "{options:?}: {mount:?}");
        assert!(super_options.iter().all(|it| mount.super_options.iter().any(|own| own == it)), "{mount:?}");
    };
    check(&["ro", "noexec"], &["ro", "noexec"], &[]);
    check(&["size=1m", "mode=700", "nosuid"], &["rw", "nosuid"], &["size=1024k", "mode=700"]);
    check(&["nr_inodes=100", "nodev", "noatime"], &["nodev", "noatime"], &["nr_inodes=100"]);
    if !lacks("runc", "gives `defaults` to the file system, which refuses it") {
        check(&["defaults"], &["rw"], &[]);
    }
    check(&["sync", "dirsync"], &[], &["sync", "dirsync"]);
}

#[test]
fn a_read_only_bind_leaves_what_is_below_and_a_recursive_one_does_not() {
    let check = |options: &[&str], outer: &[&str], below: &[&str]| {
        let seen = bound(options);
        assert!(seen.mounted("/data").has(outer), "{options:?}: {:?}", seen.mounted("/data"));
        assert!(seen.mounted("/data/below").has(below), "{options:?}: {:?}", seen.mounted("/data/below"));
    };
    check(&["rbind", "ro"], &["ro"], &["rw"]);
    check(&["rbind", "rro"], &["ro"], &["ro"]);
    check(&["rbind", "rnosuid", "rnodev", "rnoexec"], &["nosuid", "nodev", "noexec"], &["nosuid", "nodev", "noexec"]);
    if !lacks("crun < 1.9", "the kernel refuses what it makes of `rnoatime`") {
        check(&["rbind", "rnoatime"], &["noatime"], &["noatime"]);
    }
    check(&["rbind", "rro", "nosuid"], &["ro", "nosuid"], &["ro"]);
    if !lacks("crun < 1.9", "recursive attributes of links") {
        check(&["rbind", "rnosymfollow"], &["nosymfollow"], &["nosymfollow"]);
    }
}

#[test]
fn recursive_options_can_undo_what_the_machine_s_mounts_have() {
    let mut container = Container::probe();
    let outer = Mounted::tmpfs(&container.folder().join("source"));
    let below = Mounted::tmpfs(&outer.path.join("below"));
    let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND;
    below.change(flags | nix::mount::MsFlags::MS_RDONLY | nix::mount::MsFlags::MS_NOEXEC);
    container.mount(json!({ "destination": "/data", "source": outer.path, "options": ["rbind", "rrw", "rexec"] }));
    let seen = container.seen();
    drop(below);
    assert!(seen.mounted("/data/below").has(&["rw"]) && !seen.mounted("/data/below").has(&["noexec"]));
}

#[test]
fn a_bind_without_options_has_those_of_its_source() {
    if lacks("crun", "clears the options of the source") {
        return;
    }
    let mut container = Container::probe();
    let outer = Mounted::tmpfs(&container.folder().join("source"));
    let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND;
    outer.change(flags | nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV);
    container.mount(json!({ "destination": "/data", "source": outer.path, "options": ["bind"] }));
    assert!(container.seen().mounted("/data").has(&["nosuid", "nodev"]));
}

#[test]
fn the_options_hold() {
    let run = |options: Value, script: &str| {
        let mut container = Container::new(script);
        let source = container.folder().join("source");
        fs::create_dir(&source).unwrap();
        fs::copy("/bin/busybox", source.join("program")).unwrap();
        container.mount(json!({ "destination": "/data", "source": source, "options": options }));
        container.run()
    };
    assert!(run(json!(["bind", "ro"]), "touch /data/x").err.contains("Read-only file system"));
    assert!(run(json!(["bind", "noexec"]), "/data/program true").err.contains("ermission denied"));
    let node = "mknod /data/null c 1 3 && echo x > /data/null";
    assert!(run(json!(["bind", "nodev"]), node).err.contains("ermission denied"));
    assert_eq!(run(json!(["bind"]), node).code, 0);
}

#[test]
fn each_option_that_features_names_is_accepted() {
    let container = Container::new("true");
    let features = container.call(&["features"]).finish();
    if features.code != 0 {
        assert!(lacks("crun < 1.9", "no features command"));
        return;
    }
    let features = features.json();
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.len() > 40, "{options:?}");
    let no_ratime = lacks("runc < 1.2", "the kernel refuses what it makes of `ratime` and its kin");
    let own = |name: &str| {
        // What needs more than an option, or is not for this kind of file system.
        ["remount", "idmap", "ridmap", "mand", "acl", "noacl", "iversion", "tmpcopyup", "copy-symlink"].contains(&name)
            || no_ratime && name.starts_with("r") && name.ends_with("atime") && name != "relatime"
    };
    // Many at once: one container each would take a minute.
    for chunk in options.iter().filter(|option| !own(option.as_str().unwrap())).collect::<Vec<_>>().chunks(12) {
        let mut container = Container::new("true");
        for (number, option) in chunk.iter().enumerate() {
            let source = container.folder().to_owned();
            container.mount(json!({ "destination": format!("/data/{number}"), "source": source,
                "options": ["bind", option] }));
        }
        println!("{chunk:?}");
        assert_eq!(container.run().code, 0);
    }
}

#[test]
fn an_option_that_is_none_is_given_to_the_file_system_which_refuses_it() {
    let mut container = Container::new("true");
    container.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"] }));
    container.try_create().refused();
}
