//! The tables in redb: objects by key, and what describes the database itself.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::{Key, Page, Prefix, Revision, StoreError, Stored};
use crate::limits::DATABASE_CACHE_BYTES;

/// Raised whenever what is in the tables changes its meaning.
const FORMAT: u64 = 1;

/// Key to (revision, bytes).
pub(super) const OBJECTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("objects");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const ABOUT_FORMAT: &str = "format";
const ABOUT_REVISION: &str = "revision";

/// The first revision, so that 0 stays free for "any", which is what it means to Kubernetes' clients.
const REVISION_FIRST: Revision = 1;

#[derive(Debug)]
pub(super) struct Tables {
    database: Database,
}

/// Names the step that failed.
pub(super) fn failed<E: Into<redb::Error>>(step: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Database { step, source: Arc::new(source.into()) }
}

impl Tables {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        prepare_file(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        let database =
            Database::builder().set_cache_size(DATABASE_CACHE_BYTES).create(path).map_err(failed("open it"))?;
        let tables = Self { database };
        tables.prepare(path)?;
        Ok(tables)
    }

    /// Makes the tables of a new database; refuses one of another format.
    fn prepare(&self, path: &Path) -> Result<(), StoreError> {
        let transaction = self.begin()?;
        {
            transaction.open_table(OBJECTS).map_err(failed("open its objects"))?;
            let mut about = transaction.open_table(ABOUT).map_err(failed("open its description"))?;
            let found = about.get(ABOUT_FORMAT).map_err(failed("read its format"))?.map(|found| found.value());
            match found {
                Some(FORMAT) => {}
                Some(found) => return Err(StoreError::Format { path: path.to_owned(), found, known: FORMAT }),
                None => {
                    about.insert(ABOUT_FORMAT, FORMAT).map_err(failed("write its format"))?;
                    about.insert(ABOUT_REVISION, REVISION_FIRST).map_err(failed("write its revision"))?;
                }
            }
        }
        transaction.commit().map_err(failed("commit"))
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.database.begin_write().map_err(failed("begin to write"))
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let transaction = self.database.begin_read().map_err(failed("begin to read"))?;
        let objects = transaction.open_table(OBJECTS).map_err(failed("open its objects"))?;
        let revision = read_revision(&transaction)?;
        Ok(Snapshot { revision, objects })
    }

    pub(super) fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.snapshot()?.revision)
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        // The snapshot outlives what is read from it: once it ends, the writer may take its pages.
        let snapshot = self.snapshot()?;
        let found = snapshot.objects.get(key.as_str()).map_err(failed("read"))?;
        Ok(found.map(|found| stored(found.value())))
    }
}

/// Only the owner may read: secrets are stored as they are.
fn prepare_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn read_revision(transaction: &ReadTransaction) -> Result<Revision, StoreError> {
    let about = transaction.open_table(ABOUT).map_err(failed("open its description"))?;
    let revision = about.get(ABOUT_REVISION).map_err(failed("read its revision"))?;
    Ok(revision.map_or(REVISION_FIRST, |revision| revision.value()))
}

pub(super) fn write_revision(transaction: &WriteTransaction, revision: Revision) -> Result<(), StoreError> {
    let mut about = transaction.open_table(ABOUT).map_err(failed("open its description"))?;
    about.insert(ABOUT_REVISION, revision).map_err(failed("write its revision"))?;
    Ok(())
}

pub(super) fn stored((revision, text): (u64, &[u8])) -> Stored {
    Stored { revision, text: Bytes::copy_from_slice(text) }
}

/// The state at one revision, however long it is looked at.
pub(super) struct Snapshot {
    revision: Revision,
    objects: ReadOnlyTable<&'static str, (u64, &'static [u8])>,
}

impl Snapshot {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn page(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let mut items = Vec::new();
        let mut more = false;
        for entry in self.range(prefix, after)? {
            let (key, value) = entry.map_err(failed("read"))?;
            if items.len() == limit {
                more = true;
                break;
            }
            items.push((Key::stored(key.value()), stored(value.value())));
        }
        Ok(Page { revision: self.revision, items, more })
    }

    /// A page of an earlier state: what is here, with `undo` (the state of changed keys before their changes) over it.
    pub(super) fn page_before(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        revision: Revision,
        mut undo: BTreeMap<Key, Option<Stored>>,
    ) -> Result<Page, StoreError> {
        if let Some(after) = after {
            undo.retain(|key, _| key > after);
        }
        let mut merged = BTreeMap::new();
        // Every key of `undo` may hide one of the table: so many more are read, and nothing is missed.
        for entry in self.range(prefix, after)?.take(limit.saturating_add(undo.len()).saturating_add(1)) {
            let (key, value) = entry.map_err(failed("read"))?;
            merged.insert(Key::stored(key.value()), Some(stored(value.value())));
        }
        merged.append(&mut undo);
        let mut items: Vec<_> =
            merged.into_iter().filter_map(|(key, stored)| stored.map(|stored| (key, stored))).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page { revision, items, more })
    }

    fn range(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> Result<redb::Range<'static, &'static str, (u64, &'static [u8])>, StoreError> {
        let end = prefix.end();
        let start = match after {
            Some(after) if prefix.holds(after) => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix.start()),
        };
        self.objects.range::<&str>((start, Bound::Excluded(end.as_str()))).map_err(failed("read"))
    }
}
