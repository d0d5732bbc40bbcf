//! The store: keys and bytes under one revision counter, on disk before anyone is told.
//!
//! ```text
//!   create, update, delete ─▶ writer (one thread) ─▶ one transaction for all that wait ─▶ redb
//!                                    └── once durable ──▶ history (ring in memory) ──▶ watches
//!   get, page ◀── a read transaction: committed state only
//! ```
//!
//! It knows no Kubernetes: what the bytes mean is the server's business.

mod embedded;
mod history;
mod key;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::limits::{REVISION_DEADLINE, WRITE_QUEUE_MAX};

pub(crate) use history::{Change, ChangeKind, History};
pub(crate) use key::{Key, Prefix};
pub(crate) use writer::Write;

/// The counter of all changes; an object's resourceVersion is the revision of its last change.
pub(crate) type Revision = u64;

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// Something is stored under the key already.
    #[error("{key} exists")]
    Exists { key: Key },
    /// Nothing is stored under the key.
    #[error("{key} does not exist")]
    Missing { key: Key },
    /// The object was changed by somebody else meanwhile.
    #[error("{key} is at revision {current}, not {expected}")]
    Conflict { key: Key, expected: Revision, current: Revision },
    /// The history does not reach back so far.
    #[error("revision {asked} is older than the oldest one remembered, {oldest}")]
    TooOld { asked: Revision, oldest: Revision },
    /// A revision that does not exist yet.
    #[error("revision {asked} is in the future; the newest is {newest}")]
    Future { asked: Revision, newest: Revision },
    /// The database was written by another version of this program.
    #[error("database {path} has format {found}, this program reads {known}; use the program that wrote it")]
    Format { path: PathBuf, found: u64, known: u64 },
    /// The database failed; the writer does not go on after this.
    #[error("database: cannot {step}")]
    Database {
        step: &'static str,
        #[source]
        source: Arc<redb::Error>,
    },
    /// The file of the database cannot be prepared.
    #[error("cannot prepare {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The store is closed, or its writer has died.
    #[error("the store is closed")]
    Closed,
}

/// An object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// When it was changed last.
    pub(crate) revision: Revision,
    /// What was given to [`Write`].
    pub(crate) text: Bytes,
}

/// A part of a list, in the order of keys.
#[derive(Debug)]
pub(crate) struct Page {
    /// The revision that all pages of this list show.
    pub(crate) revision: Revision,
    /// Keys and objects.
    pub(crate) items: Vec<(Key, Stored)>,
    /// There is more after the last key.
    pub(crate) more: bool,
}

/// Where a page begins and what it shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageStart {
    /// Only keys after this one.
    pub(crate) after: Option<Key>,
    /// The state as it was then; the newest if `None`.
    pub(crate) revision: Option<Revision>,
}

/// A handle on the store; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    tables: Arc<embedded::Tables>,
    history: Arc<History>,
    newest: watch::Receiver<Revision>,
    writes: mpsc::Sender<writer::Request>,
}

impl Store {
    /// Opens the database in the file at `path`, or makes it.
    ///
    /// # Errors
    /// When the file cannot be used, is no database, is open elsewhere, or has another format.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let tables = Arc::new(embedded::Tables::open(path)?);
        let revision = tables.revision()?;
        let history = Arc::new(History::new(revision));
        let (newest_sender, newest) = watch::channel(revision);
        let (writes, queue) = mpsc::channel(WRITE_QUEUE_MAX);
        writer::spawn(Arc::clone(&tables), Arc::clone(&history), newest_sender, queue)
            .map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        Ok(Self { tables, history, newest, writes })
    }

    /// The newest revision that is durable and told.
    pub(crate) fn revision(&self) -> Revision {
        *self.newest.borrow()
    }

    /// What is stored under a key.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.tables.get(key)
    }

    /// A part of the objects below a prefix, at most `limit`.
    ///
    /// # Errors
    /// When the database fails, or the revision asked for is out of reach.
    pub(crate) async fn page(&self, prefix: &Prefix, start: &PageStart, limit: usize) -> Result<Page, StoreError> {
        let snapshot = self.tables.snapshot()?;
        let Some(asked) = start.revision.filter(|asked| *asked != snapshot.revision()) else {
            return snapshot.page(prefix, start.after.as_ref(), limit);
        };
        if asked > snapshot.revision() {
            return Err(StoreError::Future { asked, newest: snapshot.revision() });
        }
        // A commit is visible an instant before it is in the history; the past can only be undone from there.
        self.reached(snapshot.revision()).await?;
        let undo = self.history.undo(prefix, asked, snapshot.revision())?;
        snapshot.page_before(prefix, start.after.as_ref(), limit, asked, undo)
    }

    /// Waits until the history holds a revision.
    async fn reached(&self, revision: Revision) -> Result<(), StoreError> {
        let mut newest = self.newest.clone();
        newest.wait_for(|newest| *newest >= revision).await.map(drop).map_err(|_| StoreError::Closed)
    }

    /// Writes, and returns the revision of the change once it is durable.
    ///
    /// # Errors
    /// When the write's condition does not hold, or the database fails.
    pub(crate) async fn write(&self, write: Write) -> Result<Revision, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writes.send(writer::Request::Write { write, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Follows the changes below a prefix after `revision`.
    ///
    /// # Errors
    /// [`StoreError::TooOld`] when they are no longer remembered, [`StoreError::Future`] when the revision does not
    /// come to be within a deadline.
    pub(crate) async fn follow(&self, prefix: Prefix, revision: Revision) -> Result<Follower, StoreError> {
        // A reader may have seen a commit an instant before it is told.
        match timeout(REVISION_DEADLINE, self.reached(revision)).await {
            Ok(reached) => reached?,
            Err(_) => return Err(StoreError::Future { asked: revision, newest: self.revision() }),
        }
        self.history.check(revision)?;
        Ok(Follower { prefix, cursor: revision, history: Arc::clone(&self.history), newest: self.newest.clone() })
    }

    /// Ends the writer after what it has been given. Later writes fail with [`StoreError::Closed`].
    pub(crate) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.writes.send(writer::Request::Close { reply }).await.is_ok() {
            // An error means that the writer is gone, which is what was asked for.
            let _ = done.await;
        }
    }

    /// Returns when the writer has ended, for whatever reason.
    pub(crate) async fn closed(&self) {
        self.writes.closed().await;
    }
}

/// Follows the changes below a prefix.
#[derive(Debug)]
pub(crate) struct Follower {
    prefix: Prefix,
    cursor: Revision,
    history: Arc<History>,
    newest: watch::Receiver<Revision>,
}

impl Follower {
    /// The next changes, at most `max`; waits for one. May be empty: then only [`Follower::cursor`] moved.
    ///
    /// # Errors
    /// [`StoreError::TooOld`] when the follower was too slow, [`StoreError::Closed`] at the end of the store.
    pub(crate) async fn next(&mut self, max: usize) -> Result<Vec<Arc<Change>>, StoreError> {
        let cursor = self.cursor;
        self.newest.wait_for(|newest| *newest > cursor).await.map_err(|_| StoreError::Closed)?;
        let (changes, cursor) = self.history.after(&self.prefix, self.cursor, max)?;
        self.cursor = cursor;
        Ok(changes)
    }

    /// Everything below the prefix up to this revision has been returned.
    pub(crate) fn cursor(&self) -> Revision {
        self.cursor
    }
}

#[cfg(test)]
mod tests;
