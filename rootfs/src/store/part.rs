//! A layer's blob while it comes: written down as it passes by, so that a pull that was cut off goes on where it was.
//!
//! What an earlier try left is read first and is believed as little as the network: it goes through the same digest. It
//! becomes a blob of the store by one rename, after the digest was right.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::place::Place;
use crate::digest::Digest;
use crate::error::{Error, UnpackError};

/// The part of a blob that is on the disk.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    file: Flock<File>,
    /// Bytes that were there when it was opened.
    begun: u64,
    /// Whether somebody can go on with it: it has the name of its blob.
    named: bool,
}

impl Part {
    /// The part of the blob `digest`, which has `size` bytes. While another process writes it, a new one without a name.
    pub(crate) fn of(place: &Place, digest: &Digest, size: u64) -> Result<Self, Error> {
        let path = place.part(digest);
        let Some(file) = open(&path)? else { return Self::new(place) };
        let begun = file.metadata().map_err(Error::file("look at", &path))?.len();
        let begun = if begun > size { 0 } else { begun };
        file.set_len(begun).map_err(Error::file("cut", &path))?;
        Ok(Self { path, file, begun, named: true })
    }

    /// The part of a blob that nobody knows yet.
    pub(crate) fn new(place: &Place) -> Result<Self, Error> {
        let path = place.temporary()?;
        let file = open(&path)?.ok_or_else(|| Error::file("lock", &path)(Errno::EWOULDBLOCK.into()))?;
        Ok(Self { path, file, begun: 0, named: false })
    }

    /// How many bytes of the blob need not come again.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// The blob: what is here, then `rest`, which is written down.
    pub(crate) fn then<R: Read>(&self, rest: R) -> Whole<'_, R> {
        Whole { file: &self.file, at: 0, begun: self.begun, rest }
    }

    /// Makes it a blob of the store: it is whole and its digest is right.
    pub(crate) fn publish(self, place: &Place, digest: &Digest) -> Result<(), Error> {
        let blob = place.blob(digest);
        fs::rename(&self.path, &blob).map_err(Error::file("publish", blob))
    }

    /// Leaves it for the next try, if there can be one.
    pub(crate) fn leave(self) -> Result<(), Error> {
        if self.named { Ok(()) } else { self.discard() }
    }

    /// Forgets it.
    pub(crate) fn discard(self) -> Result<(), Error> {
        berth_sys::file::remove(&self.path).map_err(Error::file("remove", &self.path))
    }
}

/// Opens a file for this process alone; `None` if another has it.
fn open(path: &Path) -> Result<Option<Flock<File>>, Error> {
    let file = File::options().read(true).append(true).create(true).mode(0o600).open(path);
    match Flock::lock(file.map_err(Error::file("open", path))?, FlockArg::LockExclusiveNonblock) {
        // Whoever had it a moment ago may have published it meanwhile: then this file has no name any more.
        Ok(file) if is_still(&file, path) => Ok(Some(file)),
        Ok(_) | Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::file("lock", path)(errno.into())),
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    matches!((file.metadata(), fs::metadata(path)), (Ok(one), Ok(other)) if one.ino() == other.ino())
}

/// A whole blob, of which a part was here before.
#[derive(Debug)]
pub(crate) struct Whole<'p, R> {
    file: &'p File,
    at: u64,
    begun: u64,
    rest: R,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.begun {
            let left = usize::try_from(self.begun - self.at).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.file.read_at(buffer.get_mut(..left).unwrap_or_default(), self.at)?;
            self.at += count as u64;
            return Ok(count);
        }
        let count = self.rest.read(buffer)?;
        let mut file = self.file;
        let written = file.write_all(buffer.get(..count).unwrap_or_default());
        // A reader's error would be taken for the sender's; this one is the disk's.
        written.map_err(|source| io::Error::other(UnpackError::Keep { source }))?;
        Ok(count)
    }
}
