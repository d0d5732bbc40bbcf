//! Namespaces of the real kernel. Run as root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::os::unix::fs::MetadataExt;

use berth_sys::namespace::{Kind, in_netns, open, pin, pin_new, unpin};

fn own(kind: &str) -> u64 {
    fs::metadata(format!("/proc/thread-self/ns/{kind}")).unwrap().ino()
}

#[test]
fn pinned_namespaces_are_new_can_be_entered_and_are_gone_when_unpinned() {
    let folder = tempfile::tempdir().unwrap();
    let before = own("net");
    pin_new(&[Kind::Net, Kind::Ipc, Kind::Uts], folder.path()).unwrap();
    assert_eq!(own("net"), before, "the caller must stay in its namespace");
    for kind in [Kind::Net, Kind::Ipc, Kind::Uts] {
        let path = folder.path().join(kind.name());
        let pinned = fs::metadata(&path).unwrap().ino();
        assert_ne!(pinned, own(kind.name()));
        if kind == Kind::Net {
            let inside = in_netns(open(&path).unwrap(), || own("net")).unwrap();
            assert_eq!(inside, pinned);
        }
        unpin(&path).unwrap();
        unpin(&path).unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn a_failed_pin_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("uts"), "in the way").unwrap();
    assert!(pin_new(&[Kind::Net, Kind::Uts], folder.path()).is_err());
    assert!(!folder.path().join("net").exists());
    assert!(pin(std::path::Path::new("/proc/self/ns/none"), &folder.path().join("none")).is_err());
    assert!(!folder.path().join("none").exists());
    assert!(pin_new(&[Kind::Mount], folder.path()).is_err());
}

#[test]
fn what_is_no_network_namespace_cannot_be_entered() {
    assert!(in_netns(open("/proc/self/ns/uts".as_ref()).unwrap(), || ()).is_err());
    assert!(open("/proc/self/ns/none".as_ref()).is_err());
}
