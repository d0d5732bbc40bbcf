//! What a snapshot takes on the disk.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::{Folder, Root};
use nix::dir::Dir;
use nix::fcntl::OFlag;

use crate::limits::DEPTH_MAX;
use crate::unpack::is_folder;

/// Bytes in one of the blocks that `stat` counts.
const BLOCK_BYTES: u64 = 512;

/// What something takes on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    /// Files, folders and whatever else has an inode.
    pub inodes: u64,
}

/// A folder on the way down, and the folders in it that are still to be counted.
struct Level {
    folder: Folder,
    folders: Vec<OsString>,
}

impl Usage {
    /// Of `name` in `above` and all that is below it, each file once whatever names it has. Folders deeper than any image
    /// may have are counted without what is in them: somebody wrote them to be counted for ever.
    pub(super) fn of(above: &Path, name: &OsStr) -> io::Result<Self> {
        let mut usage = Self::default();
        let mut seen = HashSet::new();
        let root = Root::open(above)?;
        usage.count(root.folder(), name, &mut seen)?;
        let mut levels = vec![usage.level(root.folder(), name, &mut seen)?];
        while let Some(level) = levels.last_mut() {
            let Some(next) = level.folders.pop() else {
                levels.pop();
                continue;
            };
            if levels.len() > DEPTH_MAX {
                continue;
            }
            let below = levels.last().map(|level| usage.level(&level.folder, &next, &mut seen)).transpose();
            match below {
                // It went away meanwhile: the container is alive.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => levels.extend(other?),
            }
        }
        Ok(usage)
    }

    fn level(&mut self, parent: &Folder, name: &OsStr, seen: &mut HashSet<u64>) -> io::Result<Level> {
        let mut listing = Dir::from_fd(parent.open(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
        let folder = parent.folder(name)?;
        let mut folders = Vec::new();
        for entry in listing.iter() {
            let entry = entry?;
            let child = OsStr::from_bytes(entry.file_name().to_bytes());
            if child != "." && child != ".." && self.count(&folder, child, seen)? {
                folders.push(child.to_owned());
            }
        }
        Ok(Level { folder, folders })
    }

    /// Whether it is a folder.
    fn count(&mut self, folder: &Folder, name: &OsStr, seen: &mut HashSet<u64>) -> io::Result<bool> {
        let status = match folder.status(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if status.st_nlink < 2 || is_folder(&status) || seen.insert(status.st_ino) {
            self.inodes += 1;
            self.bytes += u64::try_from(status.st_blocks).unwrap_or_default() * BLOCK_BYTES;
        }
        Ok(is_folder(&status))
    }
}
