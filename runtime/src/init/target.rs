//! Places in the container's root: found, and made where they are missing, without ever leaving it.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::{Folder, Root};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid};

use super::errno;
use crate::plan::{Device, Target};

/// What a place has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
}

impl Kind {
    /// The kind of place that something can be mounted on: a folder on folders, anything else on files.
    pub(super) fn of(mount: impl AsFd) -> nix::Result<Self> {
        let mode = fstat(mount)?.st_mode & SFlag::S_IFMT.bits();
        Ok(if mode == SFlag::S_IFDIR.bits() { Self::Folder } else { Self::File })
    }
}

const FOLDER: Mode = Mode::from_bits_truncate(0o755);

/// Opens a place, made if it is not there.
pub(super) fn open(root: &Root, target: &Target, kind: Kind) -> nix::Result<OwnedFd> {
    if target.no_links {
        return open_without_links(root, target);
    }
    match find(root, &target.path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let folder = folder_of(root, target)?;
    // A link to nowhere is in the way here, and stays so: it is not followed to make what it names.
    match kind {
        Kind::Folder => folder.make_folder(&target.name, FOLDER).map_err(errno)?,
        Kind::File => drop(folder.create(&target.name, Mode::from_bits_truncate(0o644)).map_err(errno)?),
    }
    folder.open(&target.name, OFlag::O_PATH).map_err(errno)
}

/// Opens what is there, following links below the root.
pub(super) fn find(root: &Root, path: &Path) -> nix::Result<OwnedFd> {
    root.open_file(path, OFlag::O_PATH, Mode::empty()).map_err(errno)
}

/// What stands where the kernel's own files shall be mounted must be a folder, not a link to one: the image would
/// choose where they appear.
fn open_without_links(root: &Root, target: &Target) -> nix::Result<OwnedFd> {
    let names = target.above.iter().map(|(_, name)| name).chain([&target.name]);
    let mut folder: Option<Folder> = None;
    for name in names {
        let above = folder.as_ref().unwrap_or(root.folder());
        folder = Some(match above.folder(name).map_err(errno) {
            Err(Errno::ENOENT) => {
                above.make_folder(name, FOLDER).map_err(errno)?;
                above.folder(name).map_err(errno)?
            }
            other => other?,
        });
    }
    folder.ok_or(Errno::EINVAL)?.as_fd().try_clone_to_owned().map_err(errno)
}

/// The folder that a place is in, made with those above it.
fn folder_of(root: &Root, target: &Target) -> nix::Result<Folder> {
    let mut last = root.open_folder(Path::new("")).map_err(errno)?;
    for (path, name) in &target.above {
        last = match root.open_folder(path).map_err(errno) {
            Err(Errno::ENOENT) => {
                last.make_folder(name, FOLDER).map_err(errno)?;
                last.folder(name).map_err(errno)?
            }
            other => other?,
        };
    }
    Ok(last)
}

/// Makes a device node; the same one there already is as good.
pub(super) fn make_device(root: &Root, device: &Device) -> nix::Result<()> {
    let folder = folder_of(root, &device.target)?;
    let name = &device.target.name;
    match folder.make_node(name, device.kind, device.mode, device.number).map_err(errno) {
        Err(Errno::EEXIST) => {
            let there = folder.status(name).map_err(errno)?;
            let same = there.st_mode & SFlag::S_IFMT.bits() == device.kind.bits() && there.st_rdev == device.number;
            return if same { Ok(()) } else { Err(Errno::EEXIST) };
        }
        other => other?,
    }
    let (user, group) = device.owner;
    if device.owner == (0, 0) {
        return Ok(());
    }
    folder.set_owner(name, Uid::from_raw(user), Gid::from_raw(group)).map_err(errno)
}

/// Makes a link, unless there is something.
pub(super) fn make_link(root: &Root, at: &Target, to: &CStr) -> nix::Result<()> {
    match folder_of(root, at)?.symlink(OsStr::from_bytes(to.to_bytes()), &at.name).map_err(errno) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}
