//! One overlay filesystem: read-only folders below, one writable folder on top, shown at a target.
//!
//! Made by the mount API of `fsopen(2)`, where each lower folder is appended by itself (`lowerdir+`, Linux 6.8), so that
//! a long chain fits; an older kernel gets all of them in the one page that `mount(2)` takes, named by descriptors
//! because those names are short.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount as mount2, umount2};
use nix::sys::stat::Mode;

use crate::mount::{self, Context};
use crate::xattr::descriptor_path;

/// The longest source of a mount.
pub const SOURCE_BYTES_MAX: usize = OPTION_BYTES_MAX;
/// The longest string that `fsconfig(2)` takes, without its end.
const OPTION_BYTES_MAX: usize = 255;
/// What `mount(2)` takes as options, without its end.
const OPTIONS_BYTES_MAX: usize = 4095;

/// The folders of an overlay.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// What the table of mounts names as its source: whatever the mount shall be known by.
    pub source: &'a OsStr,
    /// The read-only folders, the uppermost first; at least one, and two if there is no upper.
    pub lower: &'a [PathBuf],
    /// Where changes go; without it there can be none.
    pub upper: Option<Upper<'a>>,
}

/// The writable part of an overlay.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    /// Where changes go.
    pub folder: &'a Path,
    /// An empty folder on the mount of `folder`, for the kernel.
    pub work: &'a Path,
    /// Whether changes must reach the disk before the mount ends.
    pub durability: Durability,
}

/// What becomes of changes when power is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As on any filesystem.
    Kept,
    /// They are worthless then: nothing waits for the disk, not `fsync` and not the unmount, which otherwise writes out
    /// the whole filesystem of the upper folder.
    Volatile,
}

/// Mounts `overlay` at `target`, a folder.
pub fn mount(overlay: &Overlay<'_>, target: &Path) -> io::Result<()> {
    match mount_by_parts(overlay, target) {
        // EINVAL: no `lowerdir+`; ENOSYS: a filter that does not know fsopen. If it was neither, mount(2) says the same.
        Err(Errno::EINVAL | Errno::ENOSYS) => mount_at_once(overlay, target),
        other => Ok(other?),
    }
}

/// Does what [`mount()`] does with the one call that every kernel has; `E2BIG` for more than some 200 lower folders.
pub fn mount_at_once(overlay: &Overlay<'_>, target: &Path) -> io::Result<()> {
    let mut held = Vec::new();
    let options = options_of(overlay, &mut held)?;
    if options.len() > OPTIONS_BYTES_MAX {
        return Err(Errno::E2BIG.into());
    }
    Ok(mount2(Some(overlay.source), target, Some("overlay"), MsFlags::empty(), Some(options.as_os_str()))?)
}

/// Takes the topmost mount off `target`, at once for all who look there anew; those who are still in it keep it. Success
/// if nothing is mounted there.
pub fn detach(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes out all that the filesystem of `folder` has not written yet.
pub fn sync_filesystem(folder: impl AsFd) -> io::Result<()> {
    Ok(nix::unistd::syncfs(folder)?)
}

/// The options beside the folders. They keep the upper folder readable by itself: no feature whose marks only this overlay
/// would understand, whatever the module's defaults are.
fn fixed_options(upper: Option<Upper<'_>>) -> impl Iterator<Item = (&'static CStr, Option<&'static CStr>)> {
    let volatile = upper.is_some_and(|upper| upper.durability == Durability::Volatile);
    [(c"index", Some(c"off")), (c"metacopy", Some(c"off")), (c"redirect_dir", Some(c"off"))]
        .into_iter()
        .chain(volatile.then_some((c"volatile", None)))
}

fn mount_by_parts(overlay: &Overlay<'_>, target: &Path) -> Result<(), Errno> {
    let context = Context::open(c"overlay")?;
    context.set(c"source", Some(&c_string(Path::new(overlay.source))?))?;
    let mut held = Vec::new();
    for lower in overlay.lower {
        set_path(&context, c"lowerdir+", lower, &mut held)?;
    }
    if let Some(upper) = overlay.upper {
        set_path(&context, c"upperdir", upper.folder, &mut held)?;
        set_path(&context, c"workdir", upper.work, &mut held)?;
    }
    for (name, value) in fixed_options(overlay.upper) {
        context.set(name, value)?;
    }
    let mount = context.mount(0)?;
    mount::attach(&mount, open_folder(target)?)
}

/// Sets a path; one too long for the call by the name of an open descriptor, which `held` keeps until the mount is made.
fn set_path(context: &Context, key: &CStr, path: &Path, held: &mut Vec<OwnedFd>) -> Result<(), Errno> {
    if path.as_os_str().len() <= OPTION_BYTES_MAX {
        return context.set(key, Some(&c_string(path)?));
    }
    let folder = open_folder(path)?;
    let result = context.set(key, Some(&c_string(&descriptor_path(folder.as_fd()))?));
    held.push(folder);
    result
}

/// All of an overlay as one string; its folders are named by descriptors that `held` keeps.
fn options_of(overlay: &Overlay<'_>, held: &mut Vec<OwnedFd>) -> Result<OsString, Errno> {
    let mut options = OsString::new();
    let lower = overlay.lower.iter().enumerate();
    let lower = lower.map(|(index, folder)| (if index == 0 { "lowerdir=" } else { ":" }, folder.as_path()));
    let upper = overlay.upper.into_iter();
    let upper = upper.flat_map(|upper| [(",upperdir=", upper.folder), (",workdir=", upper.work)]);
    for (before, folder) in lower.chain(upper) {
        let folder = open_folder(folder)?;
        options.push(before);
        options.push(descriptor_path(folder.as_fd()));
        held.push(folder);
    }
    for (name, value) in fixed_options(overlay.upper) {
        options.push(",");
        options.push(OsStr::from_bytes(name.to_bytes()));
        if let Some(value) = value {
            options.push("=");
            options.push(OsStr::from_bytes(value.to_bytes()));
        }
    }
    Ok(options)
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn c_string(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
