//! config-linux.md: propagation of mounts between the machine and the container.

use berth_runtime_tests::machine::Mounted;
use berth_runtime_tests::{Container, lacks};
use nix::mount::MsFlags;
use serde_json::json;

/// A container that sees a shared folder of the machine at `/data` and runs on.
fn container(option: &str, root: Option<&str>) -> (Mounted, Container) {
    let mut container = Container::sleeper();
    let shared = Mounted::tmpfs(&container.folder().join("shared"));
    shared.change(MsFlags::MS_SHARED);
    container.mount(json!({ "destination": "/data", "source": shared.path, "options": ["rbind", option] }));
    container.grant(&["CAP_SYS_ADMIN"]);
    if let Some(root) = root {
        container.spec["linux"]["rootfsPropagation"] = json!(root);
    }
    (shared, container.running())
}

#[test]
fn mounts_go_the_ways_that_the_option_opens() {
    let check = |option: &str, into: bool, out: bool| {
        if out && lacks("crun", "runs in a mount namespace of its own here, out of which nothing comes") {
            return;
        }
        // As engines ask for it: nothing comes through a root that is private.
        let root = if out { "rshared" } else { "rslave" };
        let (shared, container) = container(option, Some(root));
        let host = Mounted::tmpfs(&shared.path.join("host"));
        std::fs::write(host.path.join("mark"), "").unwrap();
        assert_eq!(container.exec("ls /data/host/mark").code == 0, into, "{option}: into the container");
        container.exec("mkdir /data/own && mount -t tmpfs none /data/own && touch /data/own/mark").ok();
        assert_eq!(shared.path.join("own/mark").exists(), out, "{option}: out of the container");
        if out {
            container.exec("umount /data/own").ok();
            assert!(!shared.path.join("own/mark").exists());
        }
        drop(host);
        assert_ne!(container.exec("ls /data/host/mark").code, 0, "{option}: unmounting");
        container.delete();
        drop(shared);
    };
    check("rprivate", false, false);
    check("private", false, false);
    check("rslave", true, false);
    check("slave", true, false);
    check("rshared", true, true);
    check("shared", true, true);
}

#[test]
fn without_an_option_mounts_follow_the_root_s_propagation_out_never() {
    let (shared, container) = container("nosuid", None);
    container.exec("mkdir /data/own && mount -t tmpfs none /data/own && touch /data/own/mark").ok();
    assert!(!shared.path.join("own/mark").exists());
    container.delete();
    drop(shared);
}

#[test]
fn the_root_has_the_propagation_that_is_asked_for() {
    let check = |propagation: &str, expected: &dyn Fn(&[String]) -> bool| {
        let container = Container::probe().with(|spec| spec["linux"]["rootfsPropagation"] = json!(propagation));
        let seen = container.seen();
        let own = &seen.mounted("/").propagation;
        assert!(expected(own), "{propagation}: {own:?}");
    };
    let has = |own: &[String], word: &str| own.iter().any(|it| it.starts_with(word));
    check("private", &|own| own.is_empty());
    check("rprivate", &|own| own.is_empty());
    if !lacks("runc", "makes the machine's root unbindable first, and then cannot bind it") {
        check("unbindable", &|own| own == ["unbindable"]);
    }
    if !lacks("runc < 1.2", "a root is not shared after it was made the root") {
        check("shared", &|own| has(own, "shared:"));
        check("rshared", &|own| has(own, "shared:"));
    }
    check("slave", &|own| !has(own, "shared:"));
    check("rslave", &|own| !has(own, "shared:"));
    let container = Container::new("true").with(|spec| spec["linux"]["rootfsPropagation"] = json!("nonsense"));
    assert!(container.try_create().code != 0 || lacks("crun", "accepts nonsense"));
}

#[test]
fn a_mount_can_be_made_unbindable() {
    if lacks("crun", "ignores the option") {
        return;
    }
    let mut container = Container::probe();
    let folder = container.folder().to_owned();
    container.mount(json!({ "destination": "/data", "source": folder, "options": ["bind", "unbindable"] }));
    assert_eq!(container.seen().mounted("/data").propagation, ["unbindable"]);
}
