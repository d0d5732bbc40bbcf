//! The one thread that writes. All writes that wait go into one durable transaction: under load they share the cost of
//! reaching the disk, and a single one waits for nobody.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use redb::{ReadableTable, Table};
use tokio::sync::{mpsc, oneshot, watch};

use super::embedded::{OBJECTS, Tables, failed, stored, write_revision};
use super::history::{Change, ChangeKind, History};
use super::{Key, Revision, StoreError, Stored};
use crate::limits::WRITE_BATCH_MAX;

/// A change and the condition under which it is made.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Only if the key is free.
    Create { key: Key, text: Bytes },
    /// Only if the object is at the revision.
    Update { key: Key, expected: Revision, text: Bytes },
    /// Only if the object is at the revision. Followers are told `last`, its final state.
    Delete { key: Key, expected: Revision, last: Bytes },
}

pub(super) enum Request {
    Write { write: Write, reply: oneshot::Sender<Result<Revision, StoreError>> },
    Close { reply: oneshot::Sender<()> },
}

type Reply = (oneshot::Sender<Result<Revision, StoreError>>, Result<Revision, StoreError>);

pub(super) fn spawn(
    tables: Arc<Tables>,
    history: Arc<History>,
    newest: watch::Sender<Revision>,
    queue: mpsc::Receiver<Request>,
) -> std::io::Result<()> {
    let writer = Writer { tables, history, newest };
    thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(queue)).map(drop)
}

struct Writer {
    tables: Arc<Tables>,
    history: Arc<History>,
    newest: watch::Sender<Revision>,
}

impl Writer {
    fn run(self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let (batch, close) = gather(first, &mut queue);
            if let Err(error) = self.commit(batch) {
                tracing::error!(error = &error as &dyn std::error::Error, "the store ends: its database failed");
                return;
            }
            if let Some(reply) = close {
                // Whoever asked may have gone; the end is the same.
                let _ = reply.send(());
                return;
            }
        }
    }

    /// Makes a batch durable, then tells followers, then those who wrote. An error is told to the writers first.
    fn commit(&self, batch: Vec<(Write, oneshot::Sender<Result<Revision, StoreError>>)>) -> Result<(), StoreError> {
        let mut replies = Vec::with_capacity(batch.len());
        match self.transact(batch, &mut replies) {
            Ok(changes) => {
                if let Some(last) = changes.last().map(|change| change.revision) {
                    self.history.push(changes);
                    self.newest.send_replace(last);
                }
                for (reply, outcome) in replies {
                    // A caller that has gone no longer wants to know.
                    let _ = reply.send(outcome);
                }
                Ok(())
            }
            Err(StoreError::Database { step, source }) => {
                for (reply, _) in replies {
                    let _ = reply.send(Err(StoreError::Database { step, source: Arc::clone(&source) }));
                }
                Err(StoreError::Database { step, source })
            }
            Err(error) => Err(error),
        }
    }

    fn transact(
        &self,
        batch: Vec<(Write, oneshot::Sender<Result<Revision, StoreError>>)>,
        replies: &mut Vec<Reply>,
    ) -> Result<Vec<Arc<Change>>, StoreError> {
        let mut changes = Vec::new();
        let mut revision = *self.newest.borrow();
        // Whatever fails below, each caller is found in `replies`.
        let mut writes = Vec::with_capacity(batch.len());
        for (write, reply) in batch {
            replies.push((reply, Err(StoreError::Closed)));
            writes.push(write);
        }
        let transaction = self.tables.begin()?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(failed("open its objects"))?;
            for (write, (_, outcome)) in writes.into_iter().zip(replies.iter_mut()) {
                *outcome = match apply(&mut objects, write, revision + 1)? {
                    Ok(change) => {
                        revision = change.revision;
                        changes.push(Arc::new(change));
                        Ok(revision)
                    }
                    Err(refusal) => Err(refusal),
                };
            }
        }
        if changes.is_empty() {
            transaction.abort().map_err(failed("abort"))?;
        } else {
            write_revision(&transaction, revision)?;
            transaction.commit().map_err(failed("commit"))?;
        }
        Ok(changes)
    }
}

/// The first request and those that wait behind it, up to the first that closes.
#[allow(clippy::type_complexity)]
fn gather(
    first: Request,
    queue: &mut mpsc::Receiver<Request>,
) -> (Vec<(Write, oneshot::Sender<Result<Revision, StoreError>>)>, Option<oneshot::Sender<()>>) {
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(request) = next {
        match request {
            Request::Write { write, reply } => batch.push((write, reply)),
            Request::Close { reply } => return (batch, Some(reply)),
        }
        next = if batch.len() < WRITE_BATCH_MAX { queue.try_recv().ok() } else { None };
    }
    (batch, None)
}

/// The outer error is the database's and ends the batch; the inner one is the write's own condition.
fn apply(
    objects: &mut Table<'_, &str, (u64, &[u8])>,
    write: Write,
    revision: Revision,
) -> Result<Result<Change, StoreError>, StoreError> {
    let key = match &write {
        Write::Create { key, .. } | Write::Update { key, .. } | Write::Delete { key, .. } => key.clone(),
    };
    let previous = objects.get(key.as_str()).map_err(failed("read"))?.map(|found| stored(found.value()));
    let (kind, text) = match check(&write, &key, previous.as_ref()) {
        Ok(made) => made,
        Err(refusal) => return Ok(Err(refusal)),
    };
    match kind {
        ChangeKind::Deleted => drop(objects.remove(key.as_str()).map_err(failed("remove"))?),
        ChangeKind::Created | ChangeKind::Updated => {
            drop(objects.insert(key.as_str(), (revision, text.as_ref())).map_err(failed("insert"))?);
        }
    }
    Ok(Ok(Change { revision, key, kind, text, previous }))
}

fn check(write: &Write, key: &Key, previous: Option<&Stored>) -> Result<(ChangeKind, Bytes), StoreError> {
    let (kind, text, expected) = match write {
        Write::Create { text, .. } => {
            return match previous {
                None => Ok((ChangeKind::Created, text.clone())),
                Some(_) => Err(StoreError::Exists { key: key.clone() }),
            };
        }
        Write::Update { text, expected, .. } => (ChangeKind::Updated, text, *expected),
        Write::Delete { last, expected, .. } => (ChangeKind::Deleted, last, *expected),
    };
    match previous {
        None => Err(StoreError::Missing { key: key.clone() }),
        Some(found) if found.revision != expected => {
            Err(StoreError::Conflict { key: key.clone(), expected, current: found.revision })
        }
        Some(_) => Ok((kind, text.clone())),
    }
}
