//! Small files that are whole or absent: written under a temporary name and renamed, so that a reader or a crash never
//! meets half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Whether a file must survive a loss of power, which costs a wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must outlive processes only: files below `/run`.
    Process,
    /// It must outlive a loss of power: `fsync` of the file and of its folder.
    Power,
}

/// Replaces `path` with `content`, mode 0600. On failure the old content stands and nothing else is left.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let temporary = temporary_name(path)?;
    let result = write_new(&temporary, content, durability).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
        return result;
    }
    match (durability, path.parent()) {
        (Durability::Power, Some(folder)) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Whether `name` is one that [`replace`] gives to a file that is not finished: a leftover of a crash.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(".tmp-")
}

/// The least room that [`read_limited`] begins with.
const READ_BYTES_MIN: u64 = 4095;

/// How often [`lock_folder`] looks whether the holder has done.
const LOCK_AGAIN: Duration = Duration::from_millis(1);

/// Reads a file of at most `bytes_max`; a larger one is an error.
pub fn read_limited(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Files of the kernel tell no length: a page at once is fewer calls than the library's growing steps.
    let length = file.metadata()?.len().clamp(READ_BYTES_MIN, bytes_max);
    let mut content = Vec::with_capacity(length as usize + 1);
    (&file).take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes")));
    }
    Ok(content)
}

/// Removes a file; one that is not there is removed already.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Takes the exclusive lock of `path`, which is made if it is not there; waits for its holder. The lock ends with the
/// returned value, or with the process.
pub fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Takes the exclusive lock of a folder, waiting for its holder at most this long (`TimedOut`). The lock ends with the
/// returned value, or with the process. `NotFound` if the folder is not there, or is removed by who holds its lock.
pub fn lock_folder(path: &Path, patience: Duration) -> io::Result<Flock<File>> {
    let deadline = Instant::now() + patience;
    loop {
        let folder = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            // What was waited for may be gone, and another in its place.
            Ok(lock) if lock.metadata()?.nlink() > 0 => return Ok(lock),
            Ok(_) => {}
            // The kernel would wait for ever.
            Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => thread::sleep(LOCK_AGAIN),
            Err((_, errno)) => return Err(errno.into()),
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a name"))?;
    let mut temporary = std::ffi::OsString::from(format!(".tmp-{}-{:?}-", std::process::id(), thread::current().id()));
    temporary.push(name);
    Ok(path.with_file_name(temporary))
}

fn write_new(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    match durability {
        Durability::Process => Ok(()),
        Durability::Power => file.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_replacement_keeps_the_old_content_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"old", Durability::Power).unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(replace(&folder.path().join("b"), b"new", Durability::Process).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn one_at_a_time_holds_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        fs::write(&count, "0").unwrap();
        let add = || {
            for _ in 0..100 {
                let _lock = lock_folder(folder.path(), Duration::from_secs(60)).unwrap();
                let now: u32 = fs::read_to_string(&count).unwrap().parse().unwrap();
                fs::write(&count, (now + 1).to_string()).unwrap();
            }
        };
        thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(add))));
        assert_eq!(fs::read_to_string(&count).unwrap(), "300");
    }

    #[test]
    fn a_folder_is_not_waited_for_in_vain() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("folder");
        let kind = |result: io::Result<Flock<File>>| result.unwrap_err().kind();
        assert_eq!(kind(lock_folder(&path, Duration::ZERO)), io::ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        let lock = lock_folder(&path, Duration::ZERO).unwrap();
        assert_eq!(kind(lock_folder(&path, Duration::ZERO)), io::ErrorKind::TimedOut);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| kind(lock_folder(&path, Duration::from_secs(60))));
            fs::remove_dir(&path).unwrap();
            drop(lock);
            assert_eq!(waiting.join().unwrap(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn removing_what_is_gone_is_success() {
        assert!(remove(Path::new("/nonexistent/file")).is_ok());
    }
}
