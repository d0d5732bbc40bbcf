//! The root file system, the mounts in it, and what is hidden or read-only there.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::beneath::{Folder, Root};
use berth_sys::copy_tree::copy_tree;
use berth_sys::mount::{
    Attributes, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, Reach, attach, copy,
    new_mount, set_attributes,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, makedev};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::Progress;
use super::target::{self, Kind};
use crate::plan::{Content, MASK_SOURCE, Mount, Target};

const READ_ONLY: Attributes = Attributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0 };

const PRIVATE: Attributes = Attributes { set: 0, clear: 0, propagation: MsFlags::MS_PRIVATE.bits() };

impl<'a> Progress<'a> {
    pub(super) fn open_source(&mut self, slot: usize, path: &CStr, reach: Reach) -> nix::Result<()> {
        *self.sources.get_mut(slot).ok_or(Errno::EINVAL)? = Some(copy(AT_FDCWD, path, reach)?);
        Ok(())
    }

    pub(super) fn attach_root(&mut self, slot: usize, path: &CStr, propagation: u64) -> nix::Result<()> {
        let mount = self.take_source(slot)?;
        set_attributes(&mount, &Attributes { propagation, ..Attributes::default() }, Reach::Tree)?;
        attach(&mount, open_path(path)?)?;
        self.root = Some(Root::from_folder(Folder::from(mount)));
        Ok(())
    }

    pub(super) fn mount(&mut self, mount: &'a Mount) -> nix::Result<()> {
        let (what, kind) = match &mount.content {
            Content::Copy { slot } => {
                let source = self.take_source(*slot)?;
                let kind = Kind::of(&source)?;
                (source, kind)
            }
            Content::New { kind, options, attributes, inherits_mode } => {
                let options = options.iter().map(|(key, value)| (key.as_c_str(), value.as_deref()));
                let made = new_mount(kind, options, *attributes)?;
                if *inherits_mode && let Ok(covered) = target::find(self.root()?, &mount.target.path) {
                    let mode = Mode::from_bits_truncate(fstat(covered)?.st_mode & 0o7777);
                    let inside =
                        openat(&made, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
                    fchmod(&inside, mode)?;
                }
                if let Some(from) = self.copy_from.take() {
                    copy_tree(&from, &made)?;
                }
                (made, Kind::Folder)
            }
        };
        if mount.target.path == Path::new("/proc") && fstatfs(&what)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Errno::EINVAL);
        }
        for (attributes, reach) in [(&mount.attributes, Reach::One), (&mount.recursive, Reach::Tree)] {
            if !attributes.is_empty() {
                set_attributes(&what, attributes, reach)?;
            }
        }
        let root = self.root.as_ref().ok_or(Errno::EINVAL)?;
        let target = target::open(root, &mut self.parent, &mount.target, kind)?;
        if !mount.target.path.starts_with("/proc") && self.is_in_proc(&target)? {
            return Err(Errno::EXDEV);
        }
        self.parent.cover(&mount.target);
        attach(what, target)
    }

    /// Holds the image's folder at a place that is mounted over next, if there is one.
    pub(super) fn hold(&mut self, target: &Target) -> nix::Result<()> {
        self.copy_from = match target::find(self.root()?, &target.path) {
            Ok(place) if Kind::of(&place)? == Kind::Folder => Some(place),
            Ok(_) | Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        Ok(())
    }

    /// Whether a place is in the container's `/proc`, where a link of the image may have led: what may be mounted there was
    /// checked by path (CVE-2019-16884). Another `/proc`, such as the machine's in a volume, is no concern.
    fn is_in_proc(&self, place: &OwnedFd) -> nix::Result<bool> {
        if fstatfs(place)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Ok(false);
        }
        let proc = target::find(self.root()?, Path::new("/proc"))?;
        Ok(fstat(proc)?.st_dev == fstat(place)?.st_dev)
    }

    /// One empty folder hides all folders, one null device all else: a mount of its own for each would be slower to
    /// make and, for file systems, to take down.
    pub(super) fn mask(&mut self, path: &Path) -> nix::Result<()> {
        let target = match target::find(self.root()?, path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other?,
        };
        let (mask, first) = match Kind::of(&target)? {
            Kind::Folder => (&mut self.empty_folder, None),
            Kind::File => (&mut self.null_device, self.sources.get_mut(MASK_SOURCE).and_then(Option::take)),
        };
        match mask {
            // Only what is attached can be copied on kernels before 6.15.
            Some(mask) => attach(copy(&*mask, c"", Reach::One)?, target),
            None => {
                let new = match first {
                    Some(null) => checked_null(null)?,
                    None => empty_folder()?,
                };
                attach(&new, target)?;
                *mask = Some(new);
                Ok(())
            }
        }
    }

    fn take_source(&mut self, slot: usize) -> nix::Result<OwnedFd> {
        self.sources.get_mut(slot).and_then(Option::take).ok_or(Errno::EINVAL)
    }
}

/// Nothing that is mounted from here on shows on the machine, and nothing of the machine's shows here.
pub(super) fn detach() -> nix::Result<()> {
    set_attributes(open_path(c"/")?, &PRIVATE, Reach::Tree)
}

/// Covers a path with a read-only view of itself.
pub(super) fn make_read_only(root: &Root, path: &Path) -> nix::Result<()> {
    let target = match target::find(root, path) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other?,
    };
    let view = copy(&target, c"", Reach::Tree)?;
    set_attributes(&view, &READ_ONLY, Reach::Tree)?;
    attach(view, target)
}

/// Makes what is mounted at a path read-only.
pub(super) fn seal(root: &Root, path: &Path) -> nix::Result<()> {
    let mount = root.open_folder(path).map_err(super::errno)?;
    set_attributes(mount.as_fd(), &READ_ONLY, Reach::One)
}

/// Changes how mounts of the root, and of what is below, come and go with those of others.
pub(super) fn set_propagation(root: &Root, propagation: u64) -> nix::Result<()> {
    set_attributes(root.folder(), &Attributes { propagation, ..Attributes::default() }, Reach::One)
}

fn empty_folder() -> nix::Result<OwnedFd> {
    let options = [(c"nr_blocks", Some(c"1")), (c"nr_inodes", Some(c"1")), (c"mode", Some(c"555"))];
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    let mount = new_mount(c"tmpfs", options, attributes)?;
    set_attributes(&mount, &PRIVATE, Reach::One)?;
    Ok(mount)
}

/// What hides secrets must be the null device itself, whatever stands at `/dev/null`.
fn checked_null(null: OwnedFd) -> nix::Result<OwnedFd> {
    let status = fstat(&null)?;
    let is_char = status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    if is_char && status.st_rdev == makedev(1, 3) { Ok(null) } else { Err(Errno::ENODEV) }
}

fn open_path(path: &CStr) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}
