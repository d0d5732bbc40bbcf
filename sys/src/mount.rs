//! The file-descriptor based mount calls, and the classic ones that still have no successor.
//!
//! Nothing here allocates: a child between `clone3` and `execve` calls it. A mount is made detached (`fsmount`,
//! `open_tree`), shaped while nobody can see it, and attached to a descriptor of its target, so that no path is
//! resolved twice.

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

/// Attributes for [`new_mount`] and [`set_attributes`]: `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
};

/// Whether an operation covers one mount or all that hang below it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This mount alone.
    One,
    /// This mount and every one below.
    Tree,
}

impl Reach {
    fn flag(self) -> c_int {
        match self {
            Self::One => 0,
            Self::Tree => libc::AT_RECURSIVE,
        }
    }
}

/// A change of a mount's attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear before; [`MOUNT_ATTR__ATIME`] whenever an atime mode is set.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave propagation as it is.
    pub propagation: u64,
}

impl Attributes {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A new file system that is being configured.
#[derive(Debug)]
pub struct Context(OwnedFd);

impl Context {
    /// Begins a file system of this type.
    pub fn open(kind: &CStr) -> nix::Result<Self> {
        // SAFETY: the string is terminated and outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) };
        own(fd).map(Self)
    }

    /// Gives an option: `key=value`, or a bare word.
    pub fn set(&self, key: &CStr, value: Option<&CStr>) -> nix::Result<()> {
        match value {
            Some(value) => self.configure(libc::FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr()),
            None => self.configure(libc::FSCONFIG_SET_FLAG, key.as_ptr(), ptr::null()),
        }
    }

    /// Makes the file system, and a detached mount of it.
    pub fn mount(&self, attributes: u64) -> nix::Result<OwnedFd> {
        self.configure(libc::FSCONFIG_CMD_CREATE, ptr::null(), ptr::null())?;
        // SAFETY: integers only.
        let fd =
            unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes as u32) };
        own(fd)
    }

    fn configure(&self, command: libc::fsconfig_command, key: *const c_char, value: *const c_char) -> nix::Result<()> {
        // SAFETY: both pointers are null where the command wants that, else terminated strings that the two callers
        // above hold for the length of the call.
        let result = unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, 0) };
        Errno::result(result).map(drop)
    }
}

/// A detached mount of a new file system: options in the order given.
pub fn new_mount<'a>(
    kind: &CStr,
    options: impl IntoIterator<Item = (&'a CStr, Option<&'a CStr>)>,
    attributes: u64,
) -> nix::Result<OwnedFd> {
    let context = Context::open(kind)?;
    for (key, value) in options {
        context.set(key, value)?;
    }
    context.mount(attributes)
}

/// A detached copy of what is mounted at `path` (below `folder` if relative; `folder` itself if empty).
pub fn copy(folder: impl AsFd, path: &CStr, reach: Reach) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE as c_int | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | reach.flag();
    // SAFETY: the string is terminated and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, folder.as_fd().as_raw_fd(), path.as_ptr(), flags) };
    own(fd)
}

/// Attaches a detached mount on `target`, an `O_PATH` descriptor.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> nix::Result<()> {
    let (from, to) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are the same static empty string; the rest are integers.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    Errno::result(result).map(drop)
}

/// Changes the attributes of the mount whose root `mount` is a descriptor of.
pub fn set_attributes(mount: impl AsFd, attributes: &Attributes, reach: Reach) -> nix::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    change_mount(mount, &change, reach)
}

/// Shows the owners of files in a detached mount through the mappings of a user namespace: what belongs to an id inside
/// belongs to the id outside that it is mapped to.
pub fn map_owners(mount: impl AsFd, user_namespace: impl AsFd, reach: Reach) -> nix::Result<()> {
    let change = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd() as u64,
    };
    change_mount(mount, &change, reach)
}

fn change_mount(mount: impl AsFd, change: &libc::mount_attr, reach: Reach) -> nix::Result<()> {
    let (fd, flags) = (mount.as_fd().as_raw_fd(), libc::AT_EMPTY_PATH | reach.flag());
    // SAFETY: the string is static; `change` outlives the call and its size is given.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, ptr::from_ref(change), size_of_val(change))
    };
    Errno::result(result).map(drop)
}

/// Makes `root`, the root of an attached mount, the root of the calling process' mount namespace, and lets go of the
/// old one with all that is mounted in it.
pub fn pivot(root: impl AsFd) -> nix::Result<()> {
    nix::unistd::fchdir(root)?;
    nix::unistd::pivot_root(c".", c".")?;
    // The old root now lies over the new one, at the same place: the topmost goes.
    nix::mount::umount2(c".", nix::mount::MntFlags::MNT_DETACH)?;
    nix::unistd::chdir(c"/")
}

/// As [`pivot`], for a root that cannot be pivoted from (the initial RAM disk): `root` is moved over it and the calling
/// process changes its root. What lies below stays mounted.
pub fn move_over(root: impl AsFd) -> nix::Result<()> {
    nix::unistd::fchdir(root)?;
    nix::mount::mount(Some(c"."), c"/", None::<&CStr>, nix::mount::MsFlags::MS_MOVE, None::<&CStr>)?;
    nix::unistd::chroot(c".")?;
    nix::unistd::chdir(c"/")
}

fn own(fd: i64) -> nix::Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the system call that returned it gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
