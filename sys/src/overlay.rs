//! One overlay filesystem: read-only folders below, one writable folder on top, shown at a target.
//!
//! Made by the mount API of `fsopen(2)`, where each lower folder is appended by itself (`lowerdir+`, Linux 6.8), so that
//! a long chain fits; an older kernel gets all of them in the one page that `mount(2)` takes, named by descriptors
//! because those names are short.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount as mount2, umount2};
use nix::sys::stat::Mode;

use crate::xattr::descriptor_path;

/// The longest string that `fsconfig(2)` takes, without its end.
const OPTION_BYTES_MAX: usize = 255;
/// What `mount(2)` takes as options, without its end.
const OPTIONS_BYTES_MAX: usize = 4095;

/// The folders of an overlay.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The read-only folders, the uppermost first; at least one.
    pub lower: &'a [PathBuf],
    /// Where changes go.
    pub upper: &'a Path,
    /// An empty folder on the filesystem of `upper`, for the kernel.
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

/// Does what [`mount`] does with the one call that every kernel has; `E2BIG` for more than some 200 lower folders.
pub fn mount_at_once(overlay: &Overlay<'_>, target: &Path) -> io::Result<()> {
    let mut held = Vec::new();
    let options = options_of(overlay, &mut held)?;
    if options.len() > OPTIONS_BYTES_MAX {
        return Err(Errno::E2BIG.into());
    }
    Ok(mount2(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_os_str()))?)
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

/// The options that stand for a [`Durability`], and those that keep the upper folder readable by itself: no feature
/// whose marks only this overlay would understand, whatever the module's defaults are.
fn fixed_options(durability: Durability) -> impl Iterator<Item = (&'static CStr, Option<&'static CStr>)> {
    let volatile = (durability == Durability::Volatile).then_some((c"volatile", None));
    [(c"index", Some(c"off")), (c"metacopy", Some(c"off")), (c"redirect_dir", Some(c"off"))].into_iter().chain(volatile)
}

fn mount_by_parts(overlay: &Overlay<'_>, target: &Path) -> Result<(), Errno> {
    let context = fsopen(c"overlay")?;
    set_string(&context, c"source", c"overlay")?;
    let mut held = Vec::new();
    for lower in overlay.lower {
        set_path(&context, c"lowerdir+", lower, &mut held)?;
    }
    set_path(&context, c"upperdir", overlay.upper, &mut held)?;
    set_path(&context, c"workdir", overlay.work, &mut held)?;
    for (name, value) in fixed_options(overlay.durability) {
        match value {
            Some(value) => set_string(&context, name, value)?,
            None => configure(&context, libc::FSCONFIG_SET_FLAG, Some(name), None)?,
        }
    }
    configure(&context, libc::FSCONFIG_CMD_CREATE, None, None)?;
    let mount = fsmount(&context)?;
    move_mount(&mount, target)
}

/// Sets a path; one too long for the call by the name of an open descriptor, which `held` keeps until the mount is made.
fn set_path(context: &OwnedFd, key: &CStr, path: &Path, held: &mut Vec<OwnedFd>) -> Result<(), Errno> {
    if path.as_os_str().len() <= OPTION_BYTES_MAX {
        return set_string(context, key, &c_string(path)?);
    }
    let folder = open_folder(path)?;
    let result = set_string(context, key, &c_string(&descriptor_path(folder.as_fd()))?);
    held.push(folder);
    result
}

/// All of an overlay as one string; its folders are named by descriptors that `held` keeps.
fn options_of(overlay: &Overlay<'_>, held: &mut Vec<OwnedFd>) -> Result<OsString, Errno> {
    let mut options = OsString::new();
    for (index, folder) in overlay.lower.iter().map(PathBuf::as_path).chain([overlay.upper, overlay.work]).enumerate() {
        let before = match index.checked_sub(overlay.lower.len()) {
            None if index == 0 => "lowerdir=",
            None => ":",
            Some(0) => ",upperdir=",
            Some(_) => ",workdir=",
        };
        let folder = open_folder(folder)?;
        options.push(before);
        options.push(descriptor_path(folder.as_fd()));
        held.push(folder);
    }
    for (name, value) in fixed_options(overlay.durability) {
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

fn fsopen(kind: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: the string is NUL-terminated and lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) };
    owned(result)
}

fn set_string(context: &OwnedFd, key: &CStr, value: &CStr) -> Result<(), Errno> {
    configure(context, libc::FSCONFIG_SET_STRING, Some(key), Some(value))
}

fn configure(context: &OwnedFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> Result<(), Errno> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the descriptor is open; the strings are NUL-terminated and live until the call returns, or are null where
    // the command takes none; the last argument is 0 for each of the commands used here.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(key), pointer(value), 0) };
    Errno::result(result).map(drop)
}

fn fsmount(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    // SAFETY: the descriptor is open; the other arguments are plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, 0) };
    owned(result)
}

fn move_mount(mount: &OwnedFd, target: &Path) -> Result<(), Errno> {
    let target = c_string(target)?;
    // SAFETY: the descriptor is open; both strings are NUL-terminated and live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// The descriptor that a system call gave back.
fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
