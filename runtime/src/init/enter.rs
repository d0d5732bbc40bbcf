//! Into the cgroup and the namespaces, while the machine's `/proc` is still in sight.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use crate::sync::{self, Message};

/// Less likely than its parent may only be made who has `CAP_SYS_RESOURCE`: who has not stays as it is.
pub(super) fn set_oom_score(score: &str) -> nix::Result<()> {
    match write(Path::new("/proc/self/oom_score_adj"), score.as_bytes()) {
        Err(Errno::EACCES | Errno::EPERM) => Ok(()),
        other => other,
    }
}

/// Its maker does it, because moving a process on v1 waits for the whole machine, several milliseconds, in which this
/// process can make its mounts.
pub(super) fn await_cgroup(sync: &OwnedFd) -> nix::Result<()> {
    match sync::receive(sync)? {
        Some(Message::Joined) => Ok(()),
        _ => Err(Errno::EPIPE),
    }
}

/// Every namespace of a container at once; the pid namespace one can only be born into.
pub(super) fn join_container(init: &OwnedFd) -> nix::Result<()> {
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    setns(init, all)
}

/// Writes a value to a file of the kernel, in one piece.
pub(super) fn write(path: &Path, value: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, value).map(drop)
}
