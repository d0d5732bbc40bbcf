//! Locks between processes and between threads, with a deadline. A lock ends with its holder, however that ends.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::Error;
use crate::limits::{LOCK_PAUSE_MAX, LOCK_WAIT_MAX};

/// A lock that is held; it ends with the value.
pub(crate) type Held = Flock<File>;

/// Who else may hold a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Others who share it too.
    Shared,
    /// Nobody.
    Alone,
}

/// Takes the lock of `path` if nobody holds it otherwise: `None` without waiting. Its folder must be there.
pub(crate) fn try_take(path: &Path, mode: Mode) -> Result<Option<Held>, Error> {
    match Flock::lock(open(path)?, mode.argument()) {
        Ok(held) => Ok(Some(held)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::io("take the lock", path)(errno.into())),
    }
}

/// Takes the lock of `path`, which is made if it is not there; its folder must be.
pub(crate) fn take(path: &Path, mode: Mode) -> Result<Held, Error> {
    let mut file = open(path)?;
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    let mut pause = Duration::from_micros(50);
    loop {
        match Flock::lock(file, mode.argument()) {
            Ok(held) => return Ok(held),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                return Err(Error::Locked { path: path.to_owned() });
            }
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
            Err((_, errno)) => return Err(Error::io("take the lock", path)(errno.into())),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LOCK_PAUSE_MAX);
    }
}

impl Mode {
    fn argument(self) -> FlockArg {
        match self {
            Self::Shared => FlockArg::LockSharedNonblock,
            Self::Alone => FlockArg::LockExclusiveNonblock,
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path).map_err(Error::io("open the lock", path))
}
