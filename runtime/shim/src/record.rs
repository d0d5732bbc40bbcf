//! Exit records: files that tell how a container ended, to whoever comes later.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_runtime::shim::protocol::ExitRecord;
use berth_sys::file::{self, Durability};

/// Makes the folder for the records of a sandbox.
pub(crate) fn prepare(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir.join("exits"))
}

/// Writes a container's record, whole or not at all.
pub(crate) fn write(dir: &Path, container: &str, exit: &ExitRecord) -> io::Result<()> {
    file::replace(&path(dir, container), &serde_json::to_vec(exit)?, Durability::Process)
}

/// Removes a container's record; success if there is none.
pub(crate) fn remove(dir: &Path, container: &str) -> io::Result<()> {
    file::remove(&path(dir, container))
}

/// Removes the records of the whole sandbox.
pub(crate) fn remove_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join("exits")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(dir: &Path, container: &str) -> PathBuf {
    dir.join("exits").join(format!("{container}.json"))
}
