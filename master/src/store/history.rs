//! The last changes, in memory: for watches that begin in the past and for pages that continue an older list.
//! Bounded in number and in bytes. After a restart it begins anew at the revision of the database, so that a client
//! that had seen everything goes on, and one that had not lists again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::{Key, Prefix, Revision, StoreError, Stored};
use crate::limits::{HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Created,
    Updated,
    Deleted,
}

/// One change.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) key: Key,
    pub(crate) kind: ChangeKind,
    /// The new state; of what was deleted, its last.
    pub(crate) text: Bytes,
    /// The state before.
    pub(crate) previous: Option<Stored>,
}

/// The ring of changes.
#[derive(Debug)]
pub(crate) struct History {
    ring: RwLock<Ring>,
}

#[derive(Debug)]
struct Ring {
    /// In the order of revisions.
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// All changes after this revision are in the ring.
    complete_after: Revision,
    newest: Revision,
}

impl History {
    pub(super) fn new(revision: Revision) -> Self {
        let ring = Ring { changes: VecDeque::new(), bytes: 0, complete_after: revision, newest: revision };
        Self { ring: RwLock::new(ring) }
    }

    /// No code panics while it holds the lock, and a ring is whole between any two of its lines.
    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, changes: Vec<Arc<Change>>) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            ring.bytes += size(&change);
            ring.newest = change.revision;
            ring.changes.push_back(change);
        }
        while ring.changes.len() > HISTORY_CHANGES_MAX || ring.bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = ring.changes.pop_front() else { break };
            ring.bytes -= size(&oldest);
            ring.complete_after = oldest.revision;
        }
    }

    /// Changes after this revision can be told.
    pub(super) fn check(&self, revision: Revision) -> Result<(), StoreError> {
        self.read().check(revision)
    }

    /// Changes below a prefix after a revision, at most `max`, and up to where they are complete.
    pub(super) fn after(
        &self,
        prefix: &Prefix,
        revision: Revision,
        max: usize,
    ) -> Result<(Vec<Arc<Change>>, Revision), StoreError> {
        let ring = self.read();
        ring.check(revision)?;
        let mut found = Vec::new();
        for change in ring.changes.range(ring.position(revision)..) {
            if !prefix.holds(&change.key) {
                continue;
            }
            if found.len() == max {
                let cursor = found.last().map_or(revision, |last: &Arc<Change>| last.revision);
                return Ok((found, cursor));
            }
            found.push(Arc::clone(change));
        }
        // One who starts in the future hears nothing until then.
        Ok((found, ring.newest.max(revision)))
    }

    /// What the keys that changed after `past`, up to `now`, held at `past`.
    pub(super) fn undo(
        &self,
        prefix: &Prefix,
        past: Revision,
        now: Revision,
    ) -> Result<BTreeMap<Key, Option<Stored>>, StoreError> {
        let ring = self.read();
        ring.check(past)?;
        let mut states = BTreeMap::new();
        for change in ring.changes.range(ring.position(past)..).rev() {
            if change.revision <= now && prefix.holds(&change.key) {
                states.insert(change.key.clone(), change.previous.clone());
            }
        }
        Ok(states)
    }
}

impl Ring {
    fn check(&self, revision: Revision) -> Result<(), StoreError> {
        if revision < self.complete_after {
            return Err(StoreError::TooOld { asked: revision, oldest: self.complete_after });
        }
        Ok(())
    }

    fn position(&self, revision: Revision) -> usize {
        self.changes.partition_point(|change| change.revision <= revision)
    }
}

fn size(change: &Change) -> usize {
    size_of::<Change>() + change.text.len() + change.previous.as_ref().map_or(0, |previous| previous.text.len())
}
