//! Cleaning up after a shim that died: everything that it kept is below its sandbox's directory, by which it is found.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, umount2};

use super::client::{Error, living};
use crate::Runtime;

/// Removes what a dead shim left: the containers' processes, cgroups and runtime state, the pinned namespaces, and `dir`
/// with all that is in it; read the exit records before. Goes on at errors and returns all of them. Success if it is
/// gone already.
pub fn reap_dead(dir: &Path) -> Result<(), Error> {
    if let Some(pid) = living(dir)? {
        return Err(Error::Alive { dir: dir.into(), pid });
    }
    let mut failures = Vec::new();
    let runtime = Runtime::new(dir.join("runtime"));
    for container in names(&dir.join("runtime"), &mut failures) {
        if let Err(error) = runtime.delete(&container) {
            failures.push(format!("container {container}: {error}"));
        }
    }
    unpin(&dir.join("ns"), &mut failures);
    // What is still mounted or running must be found again: the directory goes last, and only after all of it.
    if failures.is_empty() {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => failures.push(error.to_string()),
            _ => return Ok(()),
        }
    }
    Err(Error::Leftovers { dir: dir.into(), failures })
}

/// Detaches every namespace that is pinned below `folder`.
fn unpin(folder: &Path, failures: &mut Vec<String>) {
    for name in names(folder, failures) {
        let path = folder.join(&name);
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Not a mount: the shim died before it pinned it.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(errno) => failures.push(format!("unpinning {}: {errno}", path.display())),
        }
    }
}

fn names(folder: &Path, failures: &mut Vec<String>) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            failures.push(format!("listing {}: {error}", folder.display()));
            return Vec::new();
        }
        Ok(entries) => entries,
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
