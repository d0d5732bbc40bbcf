//! Where things lie in a store's folder, and the locks between the processes that share it. The picture is in the crate's
//! head.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::digest::Digest;
use crate::error::Error;
use crate::unpack::Devices;

/// The folders of one store, and what may be made in them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    top: PathBuf,
    devices: Devices,
}

/// Somebody works in the store: nothing that could be in use is swept away. Ends when dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Lease {
    _file: Flock<File>,
}

/// The index is ours to write.
#[derive(Debug)]
pub(crate) struct IndexLock {
    _file: Flock<File>,
}

static TEMPORARIES: AtomicU64 = AtomicU64::new(0);

impl Place {
    /// Makes the folders that are missing.
    pub(crate) fn make(top: &Path, devices: Devices) -> Result<Self, Error> {
        let place = Self { top: top.to_owned(), devices };
        for folder in
            [place.layers(), place.blobs(), place.parts(), place.snapshots(), place.uses(), place.temporaries()]
        {
            // Layers hold set-user-ID programs: nobody but root comes near them.
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(Error::file("make", &folder))?;
        }
        Ok(place)
    }

    pub(crate) fn devices(&self) -> Devices {
        self.devices
    }

    pub(crate) fn top(&self) -> &Path {
        &self.top
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.top.join("images.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.top.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn parts(&self) -> PathBuf {
        self.top.join("parts")
    }

    pub(crate) fn part(&self, digest: &Digest) -> PathBuf {
        self.parts().join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.top.join("layers")
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.top.join("snapshots")
    }

    pub(crate) fn uses(&self) -> PathBuf {
        self.top.join("uses")
    }

    /// Notes that an image is used now, by the time of an empty file.
    pub(crate) fn note_use(&self, image: &str) -> Result<(), Error> {
        let path = self.use_of(image);
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let noted = file.and_then(|file| file.set_modified(std::time::SystemTime::now()));
        noted.map_err(Error::file("note a use in", path))
    }

    /// When an image was last used; `None` if never.
    pub(crate) fn last_used(&self, image: &str) -> Option<jiff::Timestamp> {
        fs::metadata(self.use_of(image)).and_then(|status| status.modified()).ok()?.try_into().ok()
    }

    fn use_of(&self, image: &str) -> PathBuf {
        self.uses().join(image.rsplit_once(':').map_or(image, |(_, hex)| hex))
    }

    /// Exists while a sweep is wanted that somebody's work was in the way of.
    pub(crate) fn unswept(&self) -> PathBuf {
        self.top.join("unswept")
    }

    pub(crate) fn temporaries(&self) -> PathBuf {
        self.top.join("tmp")
    }

    /// A name for something unfinished that nobody else has.
    pub(crate) fn temporary(&self) -> PathBuf {
        let number = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
        // The clock tells a process from an earlier one of the same number.
        let now = jiff::Timestamp::now().as_nanosecond();
        self.temporaries().join(format!("{}-{number}-{now}", std::process::id()))
    }

    /// Waits for a sweep, which is short, and keeps further ones off.
    pub(crate) fn lease(&self) -> Result<Lease, Error> {
        let _file = self.lock("use.lock", FlockArg::LockShared)?.ok_or_else(|| self.stolen("use.lock"))?;
        Ok(Lease { _file })
    }

    /// Nobody works in the store, and nobody begins to until the lock is dropped; `None` if somebody does.
    pub(crate) fn exclusive(&self) -> Result<Option<Lease>, Error> {
        let file = self.lock("use.lock", FlockArg::LockExclusiveNonblock)?;
        Ok(file.map(|_file| Lease { _file }))
    }

    /// Waits for whoever writes the index.
    pub(crate) fn index_lock(&self) -> Result<IndexLock, Error> {
        let _file = self.lock("index.lock", FlockArg::LockExclusive)?.ok_or_else(|| self.stolen("index.lock"))?;
        Ok(IndexLock { _file })
    }

    fn lock(&self, name: &str, kind: FlockArg) -> Result<Option<Flock<File>>, Error> {
        let path = self.top.join(name);
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let mut file = open.map_err(Error::file("open", &path))?;
        loop {
            match Flock::lock(file, kind) {
                Ok(lock) => return Ok(Some(lock)),
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((again, Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(Error::file("lock", path)(errno.into())),
            }
        }
    }

    fn stolen(&self, name: &str) -> Error {
        Error::file("lock", self.top.join(name))(Errno::EWOULDBLOCK.into())
    }
}

/// The names in a folder; none if it is not there. Names that are no UTF-8 are not the store's and are passed over.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::file("list", folder))?,
    };
    let names = listing.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
    let names: Result<Vec<_>, _> = names.collect();
    Ok(names.map_err(Error::file("list", folder))?.into_iter().flatten().collect())
}

/// Removes a tree below a folder of the store; what is gone is removed already.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let root = match berth_sys::beneath::Root::open(above) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::file("open", above))?,
    };
    root.folder().remove_tree(name).map_err(Error::file("remove", path))
}
