//! Any bytes as the `state.json` of a container: its state, or an error that names the file; and never one for the
//! others' states.
#![no_main]

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use berth_runtime::{Error, Runtime};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

const ID: &str = "c";

/// The runtime's root, in memory, with one container's folder.
static ROOT: LazyLock<TempDir> = LazyLock::new(|| {
    let root = tempfile::tempdir_in("/dev/shm").expect("there is memory");
    fs::create_dir(root.path().join(ID)).expect("it is empty");
    root
});

fn file() -> PathBuf {
    ROOT.path().join(ID).join("state.json")
}

/// Whether the error tells which file, and in the file what.
fn names_the_field(error: &Error, file: &Path) -> bool {
    match error {
        Error::File { path, .. } => path == file && error.source().is_some_and(|it| it.to_string().contains(": ")),
        // It made sense, but what it says of the cgroup.
        Error::Cgroup(_) => true,
        _ => false,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let path = file();
    fs::write(&path, bytes).expect("there is memory");
    let runtime = Runtime::new(ROOT.path().to_owned());
    let (one, all) = (runtime.state(ID), runtime.list());
    match (&one, &all) {
        (Ok(one), Ok(all)) => assert_eq!(std::slice::from_ref(one), all),
        // One that cannot be read does not hide others.
        (Err(one), Ok(all)) => {
            assert!(all.is_empty());
            assert!(names_the_field(one, &path), "{one:?}");
        }
        _ => panic!("{one:?} but {all:?}"),
    }
});
