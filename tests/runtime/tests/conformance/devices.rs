//! config-linux.md: devices: the default ones and their links, those of the configuration, and who may use them.

use std::fs;

use berth_runtime_tests::call::Outcome;
use berth_runtime_tests::{Container, lacks};
use serde_json::{Value, json};

#[test]
fn the_default_devices_are_there() {
    let container = Container::new("cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty");
    let expected =
        [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")];
    let expected: Vec<_> =
        expected.map(|(name, number)| format!("{name} character special file {number} 666 0:0")).into();
    let output = container.output();
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_default_links_are_there() {
    let container =
        Container::new("cd /dev; for name in fd stdin stdout stderr; do readlink $name; done; ls pts/ptmx; ls ptmx");
    assert_eq!(container.output(), "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\nptmx");
}

#[test]
fn there_are_no_other_devices() {
    let container = Container::new("cd /dev; find . -type c -o -type b | sort");
    let output = container.output();
    let mut found: Vec<_> = output.lines().map(|name| name.trim_start_matches("./")).collect();
    found.retain(|name| !["ptmx", "pts/ptmx"].contains(name));
    assert_eq!(found, ["full", "null", "random", "tty", "urandom", "zero"]);
}

#[test]
fn the_default_devices_work() {
    let container = Container::new(
        "head -c 3 /dev/zero | od -An -c; head -c 5 /dev/urandom | wc -c; echo x > /dev/null; cat /dev/null; \
         echo x > /dev/full || echo full",
    );
    let output = container.output();
    assert!(output.contains("\\0  \\0  \\0") && output.contains("\n5\n") && output.ends_with("full"), "{output}");
}

/// A container with a device, allowed by rules.
fn with_device(script: &str, device: Value, rules: Value) -> Outcome {
    let mut container = Container::new(script).with(|spec| {
        spec["linux"]["devices"] = json!([device]);
        spec["linux"]["resources"]["devices"] = rules;
    });
    container.grant(&["CAP_MKNOD"]);
    container.run()
}

#[test]
fn a_device_of_the_configuration_has_its_numbers_mode_and_owner() {
    let check = |device: Value, expected: &str| {
        let script = format!("stat -c '%F %t:%T %a %u:%g' {}", device["path"].as_str().unwrap());
        let rules = json!([
            { "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        ]);
        let outcome = with_device(&script, device, rules);
        assert_eq!(outcome.ok().trim(), expected);
    };
    check(
        json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8 }),
        "character special file a:e5 640 7:8",
    );
    check(
        json!({ "path": "/dev/deep/er/disk", "type": "b", "major": 7, "minor": 300, "fileMode": 0o600 }),
        "block special file 7:12c 600 0:0",
    );
    check(json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }), "fifo 0:0 622 0:0");
    check(
        json!({ "path": "/data/mark", "type": "c", "major": 1, "minor": 3, "fileMode": 0o777 }),
        "character special file 1:3 777 0:0",
    );
    check(
        json!({ "path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o666 }),
        "character special file 1:5 666 0:0",
    );
    // The mask of the runtime's caller does not count.
    check(
        json!({ "path": "/dev/open", "type": "c", "major": 1, "minor": 3, "fileMode": 0o777 }),
        "character special file 1:3 777 0:0",
    );
    if !lacks("crun", "a default device has its default owner") {
        check(
            json!({ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 5 }),
            "character special file 1:3 666 5:0",
        );
    }
}

#[test]
fn a_device_that_is_none_is_refused() {
    for device in [
        json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }),
        json!({ "path": "/dev/x", "major": 1, "minor": 3 }),
    ] {
        let container = Container::new("true").with(|spec| spec["linux"]["devices"] = json!([device]));
        let accepted = container.try_create().code == 0;
        assert!(!accepted || lacks("crun", "takes it for a character device"), "{device}");
        container.delete();
    }
}

/// What of reading and writing a device the rules allow: `/dev/fuse`, which nobody has by default and everybody may
/// open. A kernel without it has another error than for what is not allowed.
fn allowed(rules: Value) -> String {
    let script = "try() { case $1 in *permitted*) ;; *) printf $2 ;; esac; }
        try \"$( (: < /dev/fuse) 2>&1)\" r
        try \"$( (: > /dev/fuse) 2>&1)\" w
        try \"$(mknod /tmp/fuse c 10 229 2>&1)\" m";
    let device = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 });
    with_device(script, device, rules).ok().trim().to_owned()
}

#[test]
fn who_is_denied_everything_has_the_default_devices_alone() {
    assert_eq!(allowed(json!([{ "allow": false, "access": "rwm" }])).replace('m', ""), "");
}

#[test]
fn rules_allow_what_they_name() {
    let none = json!({ "allow": false, "access": "rwm" });
    let check = |rules: &[Value], expected: &str| {
        let mut all = vec![none.clone()];
        all.extend(rules.iter().cloned());
        // Making nodes is allowed for all of them by some runtimes.
        assert_eq!(allowed(json!(all)).replace('m', ""), expected, "{rules:?}");
    };
    check(&[json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" })], "r");
    check(&[json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "w" })], "w");
    check(&[json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" })], "rw");
    check(&[json!({ "allow": true, "type": "c", "major": 10, "access": "rw" })], "rw");
    check(&[json!({ "allow": true, "type": "c", "access": "r" })], "r");
    check(&[json!({ "allow": true, "type": "c", "major": 10, "minor": 230, "access": "rw" })], "");
    check(&[json!({ "allow": true, "type": "b", "major": 10, "minor": 229, "access": "rw" })], "");
    check(&[json!({ "allow": true, "access": "rwm" })], "rw");
    check(&[json!({ "allow": true, "type": "a", "access": "rwm" })], "rw");
}

#[test]
fn the_later_rule_wins() {
    let check = |rules: Value, expected: &str| assert_eq!(allowed(rules).replace('m', ""), expected);
    let node =
        |allow: bool, access: &str| json!({ "allow": allow, "type": "c", "major": 10, "minor": 229, "access": access });
    let none = json!({ "allow": false, "access": "rwm" });
    check(json!([none, node(true, "rw"), node(false, "w")]), "r");
    check(json!([none, node(true, "r"), node(true, "w")]), "rw");
    check(json!([node(true, "rw"), none]), "");
    check(json!([none, { "allow": true, "access": "rwm" }, node(false, "rw")]), "");
}

#[test]
fn a_device_that_nobody_allows_cannot_be_used_though_it_is_there() {
    let device = json!({ "path": "/dev/device", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 });
    let none = json!([{ "allow": false, "access": "rwm" }]);
    let outcome = with_device("cat < /dev/device", device, none);
    assert!(outcome.err.contains("Operation not permitted"), "{}", outcome.text());
}

#[test]
fn rules_hold_for_processes_that_come_later() {
    let container = Container::sleeper().with(|spec| {
        spec["linux"]["devices"] =
            json!([{ "path": "/dev/device", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 }]);
    });
    let container = container.running();
    assert!(container.exec("cat < /dev/device").err.contains("Operation not permitted"));
    assert_eq!(container.exec("echo > /dev/null").code, 0);
}

#[test]
fn without_a_memory_file_system_the_devices_are_made_in_the_image() {
    let mut container = Container::new("stat -c '%t:%T' /dev/null; echo > /dev/null");
    container.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    assert_eq!(container.output(), "1:3");
    use std::os::unix::fs::FileTypeExt;
    assert!(fs::symlink_metadata(container.rootfs().join("dev/null")).unwrap().file_type().is_char_device());
}

#[test]
fn the_machine_s_own_folder_of_devices_is_left_as_it_is() {
    if lacks("crun", "makes its links in the bound folder") {
        return;
    }
    let mut container = Container::new("ls /dev/mark; ls /dev | wc -l");
    let devices = container.folder().join("devices");
    fs::create_dir(&devices).unwrap();
    fs::write(devices.join("mark"), "").unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&devices.join("null"), nix::sys::stat::SFlag::S_IFCHR, mode, null).unwrap();
    container.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    container.mount(json!({ "destination": "/dev", "source": devices, "options": ["rbind"] }));
    assert_eq!(container.output(), "/dev/mark\n2");
    assert_eq!(fs::read_dir(&devices).unwrap().count(), 2);
}

#[test]
fn a_hole_in_a_wider_rule_is_refused_and_never_dropped() {
    if lacks("crun", "drops the narrower rule") {
        return;
    }
    let container = Container::sleeper().with(|spec| {
        spec["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "access": "rwm" },
            { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        ]);
    });
    container.try_create().refused();
    container.assert_gone();
}
