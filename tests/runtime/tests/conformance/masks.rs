//! config-linux.md: masked and read-only paths.

use std::fs;
use std::os::unix::fs::symlink;

use berth_runtime_tests::{Container, lacks};
use serde_json::json;

#[test]
fn the_usual_paths_are_masked_and_read_only() {
    let container = Container::new(
        "cat /proc/kcore /proc/keys /proc/timer_list; \
         ls -A /proc/acpi /proc/scsi /sys/firmware 2> /dev/null | grep -v :$; \
         for f in /proc/sys/kernel/shmmni /proc/sysrq-trigger /proc/irq/default_smp_affinity; do echo x > $f; done; true",
    );
    let outcome = container.run();
    assert_eq!((outcome.code, outcome.out.trim()), (0, ""), "{}", outcome.err);
    assert!(outcome.err.matches("Read-only file system").count() >= 2, "{}", outcome.err);
}

#[test]
fn a_masked_file_is_empty_and_a_masked_folder_too_and_neither_can_be_written() {
    let container = Container::new(
        "cat /etc/secret; ls -A /etc/hidden; echo x > /etc/hidden/file; stat -c %t:%T /etc/secret; true",
    );
    fs::write(container.rootfs().join("etc/secret"), "secret").unwrap();
    fs::create_dir(container.rootfs().join("etc/hidden")).unwrap();
    fs::write(container.rootfs().join("etc/hidden/file"), "secret").unwrap();
    let container =
        container.with(|spec| spec["linux"]["maskedPaths"] = json!(["/etc/secret", "/etc/hidden", "/not/there"]));
    let outcome = container.run();
    assert_eq!(outcome.out, "1:3\n");
    assert!(outcome.err.contains("Read-only file system"), "{}", outcome.err);
    assert_eq!(fs::read_to_string(container.rootfs().join("etc/hidden/file")).unwrap(), "secret");
    assert!(!container.rootfs().join("not").exists());
}

#[test]
fn a_read_only_path_can_be_read_and_keeps_its_other_options() {
    let mut container = Container::new(
        "cat /data/file; echo x > /data/file; echo x > /data/new; \
         awk '$5 == \"/data\" { print $6 }' /proc/self/mountinfo",
    );
    let source = container.folder().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text\n").unwrap();
    container.mount(json!({ "destination": "/data", "source": source, "options": ["bind", "nosuid", "noexec"] }));
    container.spec["linux"]["readonlyPaths"] = json!(["/data", "/not/there"]);
    let outcome = container.run();
    assert!(outcome.out.starts_with("text\n"), "{}", outcome.text());
    assert_eq!(outcome.err.matches("Read-only file system").count(), 2, "{}", outcome.err);
    if lacks("crun < 1.9", "the other options are lost") {
        return;
    }
    let options = outcome.out.lines().last().unwrap();
    assert!(["ro", "nosuid", "noexec"].iter().all(|option| options.contains(option)), "{options}");
}

#[test]
fn a_read_only_path_of_the_image_stays_as_it_is_on_the_machine() {
    let container = Container::new("echo x > /etc/fixed/file; true");
    fs::create_dir(container.rootfs().join("etc/fixed")).unwrap();
    let container = container.with(|spec| spec["linux"]["readonlyPaths"] = json!(["/etc/fixed"]));
    assert!(container.run().err.contains("Read-only file system"));
    fs::write(container.rootfs().join("etc/fixed/file"), "x").unwrap();
}

#[test]
fn a_masked_path_that_is_a_link_hides_what_it_points_at() {
    let container = Container::new("cat /etc/link /etc/deep/secret; true");
    fs::create_dir(container.rootfs().join("etc/deep")).unwrap();
    fs::write(container.rootfs().join("etc/deep/secret"), "secret").unwrap();
    symlink("/etc/deep/secret", container.rootfs().join("etc/link")).unwrap();
    let container = container.with(|spec| spec["linux"]["maskedPaths"] = json!(["/etc/link"]));
    // To refuse it is as good as to hide it.
    if container.try_create().code == 0 {
        container.start();
        assert_eq!((container.wait(), container.out().as_str()), (0, ""));
    }
}

#[test]
fn without_such_paths_nothing_is_hidden() {
    let script = "head -c 1 /proc/timer_list | wc -c; awk '$5 ~ \"^/proc/\"' /proc/self/mountinfo | wc -l";
    let container = Container::new(script).with(|spec| {
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    assert!(container.output().ends_with("\n0"), "{}", container.out());
}

#[test]
fn paths_that_are_not_absolute_are_refused_or_taken_from_the_root() {
    let container = Container::new("cat /etc/secret; true").with(|spec| {
        spec["linux"]["maskedPaths"] = json!(["etc/secret"]);
        spec["process"]["cwd"] = json!("/tmp");
    });
    fs::write(container.rootfs().join("etc/secret"), "secret").unwrap();
    if container.try_create().code == 0 {
        container.start();
        assert_eq!((container.wait(), container.out().as_str()), (0, ""));
    }
}
