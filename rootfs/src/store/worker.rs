//! What a process that works in the store keeps from the sweeps of others: its unfinished things, and the layers that it
//! counts on. Both are in a folder that is locked as long as the process lives, so that a dead one's are known as such.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use berth_sys::file::read_limited;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::place::{Lease, Place, names, unique};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::CLAIM_BYTES_MAX;

const CLAIM: &str = "claim-";

/// A process's folder, made when first needed.
#[derive(Debug, Default)]
pub(crate) struct Worker(OnceLock<Locked>);

#[derive(Debug)]
struct Locked {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Worker {
    pub(super) fn folder(&self, place: &Place) -> Result<&Path, Error> {
        if let Some(locked) = self.0.get() {
            return Ok(&locked.path);
        }
        // A sweep between making and locking it would take it for a dead one's.
        let _lease = place.lease()?;
        let path = place.temporaries().join(unique());
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::file("make", &path))?;
        let file = File::open(&path).map_err(Error::file("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let _lock = lock.map_err(|(_, errno)| Error::file("lock", &path)(errno.into()))?;
        let made = Locked { path, _lock };
        Ok(&self.0.get_or_init(|| made).path)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // What is still in it goes with the next sweep.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Layers that no sweep removes. Ends when dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    file: File,
}

impl Claim {
    pub(super) fn make(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(format!("{CLAIM}{}", unique()));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(Error::file("make", &path))?, path })
    }

    /// Adds layers while no sweep can be.
    pub(crate) fn add<'d>(&self, layers: impl IntoIterator<Item = &'d Digest>, _: &Lease) -> Result<(), Error> {
        let text: String = layers.into_iter().map(|layer| format!("{}\n", layer.hex())).collect();
        (&self.file).write_all(text.as_bytes()).map_err(Error::file("write", &self.path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Dooms what dead processes left. The caller is alone.
pub(super) fn doom_of_dead(place: &Place) -> Result<(), Error> {
    for name in names(&place.temporaries())? {
        let folder = place.temporaries().join(name);
        if !is_alive(&folder)? {
            place.doom(&folder)?;
        }
    }
    Ok(())
}

/// What processes that live have claimed, by hexadecimal digest; and perhaps what dead ones had.
pub(crate) fn claims(place: &Place) -> Result<HashSet<String>, Error> {
    let mut claimed = HashSet::new();
    for name in names(&place.temporaries())? {
        let folder = place.temporaries().join(name);
        for name in names(&folder)?.into_iter().filter(|name| name.starts_with(CLAIM)) {
            let path = folder.join(name);
            match read_limited(&path, CLAIM_BYTES_MAX) {
                // It ended just now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => {
                    let text = other.map_err(Error::file("read", path))?;
                    claimed.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
                }
            }
        }
    }
    Ok(claimed)
}

/// Whether the process whose folder this is still runs.
fn is_alive(folder: &Path) -> Result<bool, Error> {
    let file = match File::open(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(Error::file("open", folder))?,
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(Error::file("lock", folder)(errno.into())),
    }
}
