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
const FILE: Mode = Mode::from_bits_truncate(0o644);

/// How many links to nowhere are followed to make what they name.
const LINKS_MAX: usize = 8;

/// Opens a place, made if it is not there.
pub(super) fn open(root: &Root, target: &Target, kind: Kind) -> nix::Result<OwnedFd> {
    if target.no_links {
        return open_without_links(root, target);
    }
    match find(root, &target.path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    match make(root, target, kind) {
        // A link to nowhere is in the way: what it names is made, below the root.
        Err(Errno::EEXIST | Errno::ENOTDIR) => make_through_links(root, &target.path, kind),
        other => other,
    }
}

fn make(root: &Root, target: &Target, kind: Kind) -> nix::Result<OwnedFd> {
    let folder = folder_of(root, target)?;
    match kind {
        Kind::Folder => folder.make_folder(&target.name, FOLDER).map_err(errno)?,
        Kind::File => drop(folder.create(&target.name, FILE).map_err(errno)?),
    }
    folder.open(&target.name, OFlag::O_PATH).map_err(errno)
}

/// Makes a place part by part. A link to nowhere is taken out of the path, and what it says put in; the walk begins anew.
fn make_through_links(root: &Root, path: &Path, kind: Kind) -> nix::Result<OwnedFd> {
    let mut path = Buffer::of(path.as_os_str().as_bytes())?;
    for _ in 0..=LINKS_MAX {
        match walk(root, &path, kind)? {
            Walked::There(place) => return Ok(place),
            Walked::Link { from, to } => path = path.with_link(root, from, to)?,
        }
    }
    Err(Errno::ELOOP)
}

/// How a walk ended.
enum Walked {
    /// Everything is there.
    There(OwnedFd),
    /// The part between these bytes is a link to nowhere.
    Link { from: usize, to: usize },
}

fn walk(root: &Root, path: &Buffer, kind: Kind) -> nix::Result<Walked> {
    let bytes = path.bytes();
    let mut at = 0;
    while at < bytes.len() {
        let from = at + bytes[at..].iter().position(|byte| *byte != b'/').unwrap_or(bytes.len() - at);
        let to = from + bytes[from..].iter().position(|byte| *byte == b'/').unwrap_or(bytes.len() - from);
        let is_last = bytes[to..].iter().all(|byte| *byte == b'/');
        at = to;
        let name = OsStr::from_bytes(&bytes[from..to]);
        if name.is_empty() || find(root, Path::new(OsStr::from_bytes(&bytes[..to]))).is_ok() {
            continue;
        }
        let folder = root.open_folder(Path::new(OsStr::from_bytes(&bytes[..from]))).map_err(errno)?;
        let made = match kind {
            Kind::File if is_last => folder.create(name, FILE).map(drop),
            _ => folder.make_folder(name, FOLDER),
        };
        match made.map_err(errno) {
            Err(Errno::EEXIST) => return Ok(Walked::Link { from, to }),
            other => other?,
        }
    }
    find(root, Path::new(OsStr::from_bytes(bytes))).map(Walked::There)
}

/// A path of limited length: nothing may be allocated here.
struct Buffer {
    bytes: [u8; nix::libc::PATH_MAX as usize],
    length: usize,
}

impl Buffer {
    fn of(path: &[u8]) -> nix::Result<Self> {
        let mut buffer = Self { bytes: [0; nix::libc::PATH_MAX as usize], length: 0 };
        buffer.push(path)?;
        Ok(buffer)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, more: &[u8]) -> nix::Result<()> {
        let room = self.bytes.get_mut(self.length..self.length + more.len()).ok_or(Errno::ENAMETOOLONG)?;
        room.copy_from_slice(more);
        self.length += more.len();
        Ok(())
    }

    /// The path with what the link between two bytes says in its place.
    fn with_link(&self, root: &Root, from: usize, to: usize) -> nix::Result<Self> {
        let (above, below) = (&self.bytes()[..from], &self.bytes()[to..]);
        let folder = root.open_folder(Path::new(OsStr::from_bytes(above))).map_err(errno)?;
        let mut link = [0; nix::libc::PATH_MAX as usize];
        let length = folder.read_link_into(OsStr::from_bytes(&self.bytes()[from..to]), &mut link).map_err(errno)?;
        let link = &link[..length];
        let mut path = Self::of(if link.starts_with(b"/") { b"" } else { above })?;
        path.push(link)?;
        path.push(below)?;
        Ok(path)
    }
}

/// Opens what is there, following links below the root.
pub(super) fn find(root: &Root, path: &Path) -> nix::Result<OwnedFd> {
    root.open_file(path, OFlag::O_PATH, Mode::empty()).map_err(errno)
}

/// What stands where the kernel's own files shall be mounted must be a folder, not a link to one: the image would
/// choose where they appear.
fn open_without_links(root: &Root, target: &Target) -> nix::Result<OwnedFd> {
    let names = target.above().map(|(_, name)| name).chain([target.name.as_os_str()]);
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
    for (path, name) in target.above() {
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
