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

/// The folder that the last place was in: of devices, links and control groups many lie side by side.
#[derive(Default)]
pub(super) struct Parent<'a>(Option<(&'a Path, Folder)>);

impl<'a> Parent<'a> {
    /// The folder that a place is in, made with those above it.
    fn of(&mut self, root: &Root, target: &'a Target) -> nix::Result<&Folder> {
        let path = target.path.parent().unwrap_or(Path::new("/"));
        if self.0.as_ref().is_none_or(|(known, _)| *known != path) {
            let folder = if target.no_links { without_links(root, target) } else { with_links(root, target, path) };
            self.0 = Some((path, folder?));
        }
        self.0.as_ref().map(|(_, folder)| folder).ok_or(Errno::EINVAL)
    }

    /// Something is mounted here: what is below goes out of sight. By way of a link, that may be anything.
    pub(super) fn cover(&mut self, target: &Target) {
        if !target.no_links || self.0.as_ref().is_some_and(|(known, _)| known.starts_with(&target.path)) {
            self.0 = None;
        }
    }
}

/// Opens a place, made if it is not there.
pub(super) fn open<'a>(root: &Root, parent: &mut Parent<'a>, target: &'a Target, kind: Kind) -> nix::Result<OwnedFd> {
    if target.no_links {
        return folder_at(parent.of(root, target)?, &target.name).map(Folder::into);
    }
    match find(root, &target.path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    match parent.of(root, target).and_then(|folder| make(folder, target, kind)) {
        // A link to nowhere is in the way: what it names is made, below the root.
        Err(Errno::EEXIST | Errno::ENOTDIR) => make_through_links(root, &target.path, kind),
        other => other,
    }
}

fn make(folder: &Folder, target: &Target, kind: Kind) -> nix::Result<OwnedFd> {
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

/// What stands where the kernel's own files shall be mounted must be a folder, not a link to one, and so must those above:
/// the image would choose where they appear.
fn without_links(root: &Root, target: &Target) -> nix::Result<Folder> {
    let mut last = root.open_folder(Path::new("")).map_err(errno)?;
    for (_, name) in target.above() {
        last = folder_at(&last, name)?;
    }
    Ok(last)
}

/// A folder in a folder, made if it is not there.
fn folder_at(folder: &Folder, name: &OsStr) -> nix::Result<Folder> {
    match folder.folder(name).map_err(errno) {
        Err(Errno::ENOENT) => {
            folder.make_folder(name, FOLDER).map_err(errno)?;
            folder.folder(name).map_err(errno)
        }
        other => other,
    }
}

/// The folder that a place is in, made with those above it.
fn with_links(root: &Root, target: &Target, path: &Path) -> nix::Result<Folder> {
    match root.open_folder(path).map_err(errno) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
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
pub(super) fn make_device<'a>(root: &Root, parent: &mut Parent<'a>, device: &'a Device) -> nix::Result<()> {
    let folder = parent.of(root, &device.target)?;
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
pub(super) fn make_link<'a>(root: &Root, parent: &mut Parent<'a>, at: &'a Target, to: &CStr) -> nix::Result<()> {
    match parent.of(root, at)?.symlink(OsStr::from_bytes(to.to_bytes()), &at.name).map_err(errno) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}
