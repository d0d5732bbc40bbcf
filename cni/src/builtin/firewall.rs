//! One nft table that is ours alone: kept as it should be, made again whole when somebody flushed it.

use std::fmt::Debug;

use berth_sys::nft::Nft;
use berth_sys::nft::batch::Batch;
use berth_sys::nft::table::{Family, Table};

use crate::Error;
use crate::attachment::digest;
use crate::host::Host;

/// A table as it should be.
#[derive(Debug)]
pub(crate) struct Firewall {
    name: String,
    /// A digest of the content, kept on the table: whoever reads it knows whether it is as it should be.
    note: String,
    replacement: Batch,
}

impl Firewall {
    /// A table with this name. `content` is what tells one version of it from another; `fill` writes it.
    pub(crate) fn new(name: String, content: &impl Debug, fill: impl FnOnce(&mut Batch, Table<'_>)) -> Self {
        let note = format!("berth {}", digest(format!("{content:?}").as_bytes()));
        let table = Table { family: Family::Inet, name: &name };
        let mut batch = Batch::new();
        // Made first, so that there is one to delete; all in one transaction, so that no packet passes in between.
        batch.add_table(table);
        batch.delete_table(table);
        batch.add_table_with_note(table, note.as_bytes());
        fill(&mut batch, table);
        Self { name, note, replacement: batch }
    }

    /// The table's name.
    pub(crate) fn table(&self) -> Table<'_> {
        table(&self.name)
    }

    /// Whether the table is there and as it should be.
    pub(crate) fn stands(&self, nft: &mut Nft) -> Result<bool, Error> {
        Ok(nft.note(self.table())?.as_deref() == Some(self.note.as_bytes()))
    }

    /// Makes the table, or makes it anew, unless it is as it should be. Whether it had to be made is returned.
    pub(crate) fn ensure(self, nft: &mut Nft, host: &Host) -> Result<bool, Error> {
        if self.stands(nft)? {
            return Ok(false);
        }
        let _lock = host.lock()?;
        if self.stands(nft)? {
            return Ok(false);
        }
        nft.commit(self.replacement)?;
        Ok(true)
    }
}

/// A table of ours, by its name.
pub(crate) fn table(name: &str) -> Table<'_> {
    Table { family: Family::Inet, name }
}

/// Deletes a table; none is success.
pub(crate) fn remove(nft: &mut Nft, name: &str) -> Result<(), Error> {
    if nft.note(table(name))?.is_none() {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.add_table(table(name));
    batch.delete_table(table(name));
    Ok(nft.commit(batch)?)
}
