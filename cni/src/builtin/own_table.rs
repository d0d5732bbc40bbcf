//! One nft table that is ours alone: told as data, kept as it should be, made again whole when somebody flushed it.

use berth_sys::nft::Nft;
use berth_sys::nft::batch::Batch;
use berth_sys::nft::rule::Rule;
use berth_sys::nft::set::{Field, Set};
use berth_sys::nft::table::{Base, Family, Table};
use nix::errno::Errno;

use crate::Error;
use crate::attachment::digest;
use crate::host::Host;
use crate::site::Site;

/// A table as it should be.
#[derive(Debug)]
pub(crate) struct OwnTable {
    pub(crate) family: Family,
    pub(crate) name: String,
    /// Chains, before the rules that send packets there.
    pub(crate) chains: Vec<(&'static str, Option<Base>)>,
    /// Maps: name, parts of the keys, parts of the values; sets, which have no values.
    pub(crate) maps: Vec<(&'static str, Vec<Field>, Vec<Field>)>,
    /// Rules and their chains.
    pub(crate) rules: Vec<(&'static str, Rule)>,
}

impl OwnTable {
    /// A digest of the table, kept on it: whoever reads it knows whether the table is as it should be.
    fn note(&self) -> String {
        format!("berth {}", digest(format!("{self:?}").as_bytes()))
    }

    /// Whether the table is there and as it should be.
    pub(crate) fn stands(&self, nft: &mut Nft) -> Result<bool, Error> {
        Ok(nft.note(self.table())?.as_deref() == Some(self.note().as_bytes()))
    }

    /// As [`Self::stands`], and nobody has flushed its rules since: the note on a table outlives them.
    pub(crate) fn stands_whole(&self, nft: &mut Nft) -> Result<bool, Error> {
        if !self.stands(nft)? {
            return Ok(false);
        }
        let found = nft.rules_of_table(self.table())?;
        let mut found: Vec<&str> = found.iter().map(|rule| rule.comment.as_str()).collect();
        let mut wanted: Vec<&str> = self.rules.iter().map(|(_, rule)| &*rule.comment).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        Ok(found == wanted)
    }

    /// Makes the table, or makes it anew, unless it is as it should be. Whether it had to be made is returned.
    pub(crate) fn ensure(&self, nft: &mut Nft, site: Site<'_>) -> Result<bool, Error> {
        self.ensure_by(Self::stands, nft, site)
    }

    /// As [`Self::ensure`], and looks at the rules too.
    pub(crate) fn ensure_whole(&self, nft: &mut Nft, site: Site<'_>) -> Result<bool, Error> {
        self.ensure_by(Self::stands_whole, nft, site)
    }

    fn ensure_by(
        &self,
        stands: impl Fn(&Self, &mut Nft) -> Result<bool, Error>,
        nft: &mut Nft,
        site: Site<'_>,
    ) -> Result<bool, Error> {
        if stands(self, nft)? {
            return Ok(false);
        }
        let _lock = Host::new(site).lock()?;
        if stands(self, nft)? {
            return Ok(false);
        }
        nft.commit(self.replacement())?;
        Ok(true)
    }

    fn table(&self) -> Table<'_> {
        Table { family: self.family, name: &self.name }
    }

    /// One transaction, so that no packet passes between the old table and the new one.
    fn replacement(&self) -> Batch {
        let table = self.table();
        let mut batch = Batch::new();
        // Made first, so that there is one to delete.
        batch.add_table(table);
        batch.delete_table(table);
        batch.add_table_with_note(table, self.note().as_bytes());
        for (name, base) in &self.chains {
            batch.add_chain(table, name, *base);
        }
        for (name, key, value) in &self.maps {
            let value = Some(value.as_slice()).filter(|value| !value.is_empty());
            batch.add_set(table, &Set { name, key, value });
        }
        for (chain, rule) in &self.rules {
            batch.add_rule(table, chain, rule);
        }
        batch
    }
}

/// The name of a network's table.
pub(crate) fn table_name(network: &str) -> String {
    format!("berth-{network}")
}

/// A table of ours for both versions of IP, by its name.
pub(crate) fn table(name: &str) -> Table<'_> {
    Table { family: Family::Inet, name }
}

/// Deletes, all at once, those elements whose owner is stale; a table that is not there has none.
pub(crate) fn delete_elements(
    nft: &mut Nft,
    table: Table<'_>,
    sets: &[&str],
    stale: &dyn Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut batch = Batch::new();
    for set in sets {
        let mut elements = nft.elements(table, set)?;
        elements.retain(|element| stale(&element.comment));
        batch.delete_elements(table, set, &elements);
    }
    match nft.commit(batch) {
        // Somebody flushed the table meanwhile.
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Deletes a table; none is success.
pub(crate) fn remove(nft: &mut Nft, name: &str) -> Result<(), Error> {
    remove_of(nft, Family::Inet, name)
}

/// As [`remove`], for any family.
pub(crate) fn remove_of(nft: &mut Nft, family: Family, name: &str) -> Result<(), Error> {
    let table = Table { family, name };
    if nft.note(table)?.is_none() {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.delete_table(table);
    Ok(nft.commit(batch)?)
}
