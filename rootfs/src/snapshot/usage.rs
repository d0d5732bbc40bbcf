//! What a snapshot takes on the disk.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::{Folder, Root};
use nix::errno::Errno;

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

/// A folder on the way down, and the folders in it that are still to be counted. It is not open: a container can make trees
/// that are deeper than there are descriptors.
struct Level {
    name: OsString,
    identity: (u64, u64),
    folders: Vec<OsString>,
}

impl Usage {
    /// Of `name` in `above` and all that is below it, each file once whatever names it has. What moves meanwhile may be
    /// counted twice or not at all.
    pub(super) fn of(above: &Path, name: &OsStr) -> io::Result<Self> {
        let mut usage = Self::default();
        let mut seen = HashSet::new();
        let root = Root::open(above)?;
        usage.count(root.folder(), name, &mut seen)?;
        let mut here = root.folder().folder(name)?;
        let mut levels = vec![usage.level(&here, name, &mut seen)?];
        while let Some(level) = levels.last_mut() {
            let Some(next) = level.folders.pop() else {
                levels.pop();
                let Some(above) = back(root.folder(), &here, &mut levels)? else { break };
                here = above;
                continue;
            };
            let below = here.folder(&next).and_then(|below| Ok((usage.level(&below, &next, &mut seen)?, below)));
            match below {
                Err(error) if is_gone(&error) => {}
                other => {
                    let (level, below) = other?;
                    levels.push(level);
                    here = below;
                }
            }
        }
        Ok(usage)
    }

    fn level(&mut self, folder: &Folder, name: &OsStr, seen: &mut HashSet<u64>) -> io::Result<Level> {
        let mut folders = Vec::new();
        for entry in folder.list()?.iter() {
            let entry = entry?;
            let child = OsStr::from_bytes(entry.file_name().to_bytes());
            if child != "." && child != ".." && self.count(folder, child, seen)? {
                folders.push(child.to_owned());
            }
        }
        Ok(Level { name: name.to_owned(), identity: folder.identity()?, folders })
    }

    /// Whether it is a folder.
    fn count(&mut self, folder: &Folder, name: &OsStr, seen: &mut HashSet<u64>) -> io::Result<bool> {
        let status = match folder.status(name) {
            Err(error) if is_gone(&error) => return Ok(false),
            other => other?,
        };
        if status.st_nlink < 2 || is_folder(&status) || seen.insert(status.st_ino) {
            self.inodes += 1;
            self.bytes += u64::try_from(status.st_blocks).unwrap_or_default() * BLOCK_BYTES;
        }
        Ok(is_folder(&status))
    }
}

/// The folder of the last level, from `here` below it; levels that are not where they were any more are left out. `None` if
/// none is left.
fn back(root: &Folder, here: &Folder, levels: &mut Vec<Level>) -> io::Result<Option<Folder>> {
    if let (Some(level), Ok(above)) = (levels.last(), here.above())
        && above.identity().is_ok_and(|identity| identity == level.identity)
    {
        return Ok(Some(above));
    }
    // Somebody moved it meanwhile: down again from the top, which nobody moves.
    let mut way: Option<Folder> = None;
    for (depth, level) in levels.iter().enumerate() {
        match way.as_ref().unwrap_or(root).folder(&level.name) {
            Ok(folder) if folder.identity()? == level.identity => way = Some(folder),
            _ => {
                levels.truncate(depth);
                break;
            }
        }
    }
    Ok(way)
}

/// Whether it went away, or became something else: the container is alive.
fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP))
}
