//! Taking a pod's folder down: first every mount below it, the last one first; only when the kernel lists none any more
//! are files removed, so that nothing of a mounted disk or server is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_sys::mountinfo;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::VolumeError;

/// Mounts may be stacked: each round takes the upper ones.
const ROUNDS_MAX: u32 = 16;

/// Unmounts everything below a folder and removes it. What is gone is removed.
pub(super) fn free(folder: &Path) -> Result<(), VolumeError> {
    let real = match fs::canonicalize(folder) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(VolumeError::file("look at", folder)(error)),
    };
    for _ in 0..ROUNDS_MAX {
        let mounts = mounts_below(&real)?;
        if mounts.is_empty() {
            return match fs::remove_dir_all(&real) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(VolumeError::file("remove", &real)(error)),
                _ => Ok(()),
            };
        }
        mounts.iter().rev().try_for_each(|mount| unmount(mount))?;
    }
    let message = "something keeps mounting there".to_owned();
    Err(VolumeError::Mount { what: "nothing".to_owned(), path: real, message })
}

fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let mounts = mountinfo::read().map_err(VolumeError::file("read the mounts below", folder))?;
    Ok(mounts.into_iter().map(|mount| mount.target).filter(|target| target.starts_with(folder)).collect())
}

/// Detached at once, even if a process still has a file open there: the kernel lets go of it with the last one. A
/// server that does not answer holds nobody up.
fn unmount(path: &Path) -> Result<(), VolumeError> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(VolumeError::file("unmount", path)(errno.into())),
    }
}
