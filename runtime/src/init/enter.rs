//! Into the cgroup and the namespaces, while the machine's `/proc` is still in sight.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use berth_sys::{caps, keyring, process};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::sync;

/// Less likely than its parent may only be made who has `CAP_SYS_RESOURCE`: who has not stays as it is.
pub(super) fn set_oom_score(score: &str) -> nix::Result<()> {
    match write(c"/proc/self/oom_score_adj", score.as_bytes()) {
        Err(Errno::EACCES | Errno::EPERM) => Ok(()),
        other => other,
    }
}

/// Uses a descriptor for the last time: whoever may look into this process from inside of the container, from here on or
/// soon, finds none that leads out.
pub(super) fn once(fd: &OwnedFd, work: impl FnOnce(&OwnedFd) -> nix::Result<()>) -> nix::Result<()> {
    work(fd)?;
    process::forget(fd);
    Ok(())
}

/// Becomes root of the user namespace that it is in, so that what it makes belongs to that. If the namespace is new, its
/// maker maps its users first.
pub(super) fn become_root(mapped: bool, maker: &OwnedFd) -> nix::Result<()> {
    if mapped {
        sync::await_go_on(maker)?;
    }
    caps::set_ids(0, 0)?;
    caps::set_groups(&[])?;
    // Taken back by the kernel with the change of the user.
    process::die_with_parent(true)
}

/// A kernel may have been built without keyrings, and a user may have no quota for one more.
pub(super) fn join_keyring(name: &CStr) -> nix::Result<()> {
    match keyring::join_new_session(name) {
        Err(Errno::ENOSYS | Errno::EDQUOT) => Ok(()),
        other => other,
    }
}

/// Writes a value to a file of the kernel, in one piece.
pub(super) fn write(path: &CStr, value: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, value).map(drop)
}
