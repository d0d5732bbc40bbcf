//! Overlays of real folders. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use berth_sys::overlay::{Durability, Overlay, Upper, detach, mount, mount_at_once};

fn folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    path
}

/// `count` layers, each with a file of its own and one that all have.
fn layers(top: &Path, count: usize) -> Vec<PathBuf> {
    let layer = |index: usize| {
        let layer = folder(top.join(format!("layers/{index:064}/diff")));
        fs::write(layer.join(format!("own-{index}")), "").unwrap();
        fs::write(layer.join("all"), index.to_string()).unwrap();
        layer
    };
    (0..count).map(layer).collect()
}

type Mount = fn(&Overlay<'_>, &Path) -> std::io::Result<()>;

fn check(mount: Mount, count: usize, name: &str, durability: Durability) {
    let top = tempfile::tempdir_in("/dev/shm").unwrap();
    let top = folder(top.path().join(name));
    let lower = layers(&top, count);
    let (upper, work, target) = (folder(top.join("upper")), folder(top.join("work")), folder(top.join("target")));
    let upper_parts = Some(Upper { folder: &upper, work: &work, durability });
    mount(&Overlay { source: OsStr::new("test"), lower: &lower, upper: upper_parts }, &target).expect("needs root");
    let seen = fs::read_dir(&target).unwrap().count();
    let all = fs::read_to_string(target.join("all")).unwrap();
    fs::write(target.join("new"), "").unwrap();
    detach(&target).unwrap();
    detach(&target).unwrap();
    assert_eq!((seen, all.as_str()), (count + 1, "0"));
    assert!(upper.join("new").exists());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn the_uppermost_layer_wins_and_changes_go_to_the_upper_folder() {
    check(mount, 2, "plain", Durability::Kept);
    check(mount_at_once, 2, "plain", Durability::Kept);
}

#[test]
fn long_chains_and_long_names_fit() {
    for mount in [mount, mount_at_once] as [Mount; 2] {
        check(mount, 128, "long", Durability::Volatile);
        check(mount, 3, &"n".repeat(240), Durability::Volatile);
    }
}

#[test]
fn nothing_mounted_is_detached_already() {
    detach(Path::new("/nonexistent/target")).unwrap();
}

#[test]
fn without_an_upper_folder_nothing_can_be_written() {
    for mount in [mount, mount_at_once] as [Mount; 2] {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        let (lower, target) = (layers(top.path(), 2), folder(top.path().join("target")));
        mount(&Overlay { source: OsStr::new("test"), lower: &lower, upper: None }, &target).expect("needs root");
        let written = fs::write(target.join("new"), "").unwrap_err();
        let all = fs::read_to_string(target.join("all")).unwrap();
        detach(&target).unwrap();
        assert_eq!((written.kind(), all.as_str()), (std::io::ErrorKind::ReadOnlyFilesystem, "0"));
    }
}
