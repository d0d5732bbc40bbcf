//! A file that tells whether the process that owns it lives. The kernel forgets a dead owner at once, and a reused
//! process id is never taken for it.
//!
//! It is a POSIX record lock: it belongs to one process and is not inherited by its children, unlike `flock`, which
//! would outlive its owner in every child that has not executed its program yet.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// This process owns the file for as long as this value lives. Opening and closing the file a second time in the same
/// process would give it up.
#[derive(Debug)]
pub struct Presence {
    _file: File,
}

/// Takes `path`, which is made if it is not there. `WouldBlock` if a living process owns it.
pub fn take(path: &Path) -> io::Result<Presence> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(Presence { _file: file }),
        Err(Errno::EACCES | Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        Err(errno) => Err(errno.into()),
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
    use super::*;

    #[test]
    fn nobody_owns_what_nobody_took() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(owner(&path).unwrap(), None);
        drop(take(&path).unwrap());
        assert_eq!(owner(&path).unwrap(), None);
    }
}
