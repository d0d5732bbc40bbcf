//! A file that tells whether the process that owns it lives. The kernel forgets a dead owner at once, and a reused
//! process id is never taken for it.
//!
//! It is a POSIX record lock: it belongs to one process and is not inherited by its children. Beside it the owner holds
//! a `flock`, which is: it tells of the children that keep the owner's descriptor to work for it, and may outlive it for
//! as long as it takes a signal to kill them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// This process owns the file for as long as this value lives. Opening and closing the file a second time in the same
/// process would give it up.
#[derive(Debug)]
pub struct Presence {
    file: File,
}

impl AsFd for Presence {
    /// What a child keeps open that [`is_held`] shall tell of.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Takes `path`, which is made if it is not there. `WouldBlock` if a living process owns it or works for one that did.
pub fn take(path: &Path) -> io::Result<Presence> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => {}
        Err(Errno::EACCES | Errno::EAGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(errno) => return Err(errno.into()),
    }
    file.try_lock()?;
    Ok(Presence { file })
}

/// Whether `path` is owned, or somebody still works for an owner that has died. As for [`owner`], the owner must not ask.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The living process that owns `path`, as this process's pid namespace knows it; `None` if there is none, or no file.
/// The owner itself must not ask: it would be told that nobody is in its way, and lose the file.
pub fn owner(path: &Path) -> io::Result<Option<i32>> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut lock = whole_file();
    fcntl(&file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}

fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::process::{self, Birth};

    #[test]
    fn nobody_owns_what_nobody_took() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(owner(&path).unwrap(), None);
        assert!(!is_held(&path).unwrap());
        drop(take(&path).unwrap());
        assert_eq!(owner(&path).unwrap(), None);
        assert!(!is_held(&path).unwrap());
    }

    #[test]
    fn who_keeps_the_descriptor_of_an_owner_that_is_gone_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let presence = take(&path).unwrap();
        let (told, tell) = io::pipe().unwrap();
        let mut kept = [told.as_raw_fd(), presence.as_fd().as_raw_fd()];
        kept.sort_unstable();
        let child = process::spawn(&Birth::default(), || {
            let _ = process::close_all_but(&kept).and_then(|()| nix::unistd::read(&told, &mut [0]));
            process::exit_now(0)
        });
        drop(presence);
        assert_eq!(owner(&path).unwrap(), None);
        assert!(is_held(&path).unwrap());
        drop(tell);
        process::wait(child.unwrap().pidfd).unwrap();
        assert!(!is_held(&path).unwrap());
    }
}
