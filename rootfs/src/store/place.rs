//! Where things lie in a store's folder, and the locks between the processes that share it. The picture is in the crate's
//! head.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::worker::{Claim, Worker};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{LOCK_WAIT_MAX, SWEEP_WAIT_MAX};
use crate::unpack::Devices;

/// The folders of one store, and what may be made in them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    top: PathBuf,
    devices: Devices,
    /// Where the unfinished things of this process are.
    worker: Arc<Worker>,
}

/// Nothing is swept away meanwhile: for the moments between one look and what is made of it, not for a whole pull. Ends when
/// dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Lease {
    _file: Flock<File>,
}

/// The index is ours to write.
#[derive(Debug)]
pub(crate) struct IndexLock {
    _file: Flock<File>,
}

static NAMES: AtomicU64 = AtomicU64::new(0);

/// How long somebody looks at a lock's holder before he asks again.
const LOCK_AGAIN: Duration = Duration::from_millis(1);

impl Place {
    /// Makes the folders that are missing.
    pub(crate) fn make(top: &Path, devices: Devices) -> Result<Self, Error> {
        let place = Self { top: top.to_owned(), devices, worker: Arc::default() };
        for folder in [
            place.layers(),
            place.blobs(),
            place.parts(),
            place.snapshots(),
            place.uses(),
            place.temporaries(),
            place.doomed(),
        ] {
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

    /// Room for the index on a full disk.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.top.join("reserve")
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

    /// Has a folder for each process that works in the store.
    pub(crate) fn temporaries(&self) -> PathBuf {
        self.top.join("tmp")
    }

    /// A name for something unfinished that nobody else has. It is swept away when this process is dead.
    pub(crate) fn temporary(&self) -> Result<PathBuf, Error> {
        Ok(self.worker.folder(self)?.join(unique()))
    }

    /// Will keep layers from the sweeps of all processes.
    pub(crate) fn claim(&self) -> Result<Claim, Error> {
        Claim::make(self.worker.folder(self)?)
    }

    /// What is being removed, by whoever finds it.
    pub(crate) fn doomed(&self) -> PathBuf {
        self.top.join("doomed")
    }

    /// Takes something out of sight, at once, to be removed from where it is then; `None` if it is not there.
    pub(crate) fn doom(&self, path: &Path) -> Result<Option<PathBuf>, Error> {
        let doomed = self.doomed().join(unique());
        match fs::rename(path, &doomed) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(|()| Some(doomed)).map_err(Error::file("put aside", path)),
        }
    }

    /// Removes what was taken out of sight. Long.
    pub(crate) fn bury(&self) -> Result<(), Error> {
        let doomed = names(&self.doomed())?;
        doomed.into_iter().try_for_each(|name| remove_tree(&self.doomed().join(name)))
    }

    /// Waits for a sweep, which is short, and keeps further ones off.
    pub(crate) fn lease(&self) -> Result<Lease, Error> {
        let lock = self.lock("use.lock", FlockArg::LockSharedNonblock, LOCK_WAIT_MAX)?;
        lock.map(|_file| Lease { _file }).ok_or_else(|| self.held("use.lock"))
    }

    /// Nobody is about to use what seems idle, and nobody comes to be until the lock is dropped; `None` if there is no end
    /// of them.
    pub(crate) fn exclusive(&self) -> Result<Option<Lease>, Error> {
        let lock = self.lock("use.lock", FlockArg::LockExclusiveNonblock, SWEEP_WAIT_MAX)?;
        Ok(lock.map(|_file| Lease { _file }))
    }

    /// Waits for whoever writes the index.
    pub(crate) fn index_lock(&self) -> Result<IndexLock, Error> {
        let lock = self.lock("index.lock", FlockArg::LockExclusiveNonblock, LOCK_WAIT_MAX)?;
        lock.map(|_file| IndexLock { _file }).ok_or_else(|| self.held("index.lock"))
    }

    fn lock(&self, name: &str, kind: FlockArg, patience: Duration) -> Result<Option<Flock<File>>, Error> {
        let path = self.top.join(name);
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let mut file = open.map_err(Error::file("open", &path))?;
        let deadline = Instant::now() + patience;
        loop {
            // The kernel would wait for ever.
            file = match Flock::lock(file, kind) {
                Ok(lock) => return Ok(Some(lock)),
                Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) => again,
                Err((_, errno)) => return Err(Error::file("lock", path)(errno.into())),
            };
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(LOCK_AGAIN);
        }
    }

    fn held(&self, name: &str) -> Error {
        Error::Held { path: self.top.join(name), wait: LOCK_WAIT_MAX }
    }
}

/// A name that nothing in the store's folders has.
pub(super) fn unique() -> String {
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    // The clock tells a process from an earlier one of the same number.
    let now = jiff::Timestamp::now().as_nanosecond();
    format!("{}-{number}-{now}", std::process::id())
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
