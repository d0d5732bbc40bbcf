//! What somebody took away from under the attached is made anew: links first, for what goes with them, then nftables, of
//! which nothing is looked at while its generation is the one in which all stood.
//!
//! Others come and go meanwhile. Only ports of the host need a moment in which nobody does: an element that is put back for
//! one who is going would stay for ever. That moment is taken only when one is missing.

use crate::Error;
use crate::builtin::Plugin;
use crate::builtin::firewall::FILTER;
use crate::builtin::own_table::table_name;
use crate::cache::Record;
use crate::chain::Chain;

/// Whether ports of the host lead where they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    Stand,
    Missing,
}

impl Chain<'_> {
    /// Whether a table of this name may be one that the network relies on.
    pub(crate) fn is_about(&self, table: &str) -> bool {
        table.starts_with(&table_name(&self.list.name)) || (table == FILTER && self.firewalls().next().is_some())
    }

    /// Makes anew what somebody took away from under those who are attached.
    pub(crate) fn repair(&self) -> Result<(), Error> {
        if self.cache().is_empty()? {
            return self.rest();
        }
        let using = self.host().using()?;
        let records = self.cache().all()?;
        let mut outcome = self.repair_links(&records);
        let ports = self.repair_tables(&records, &mut outcome);
        drop(using);
        if ports == Ports::Missing {
            outcome = outcome.and(self.host().clearing().and_then(|_clearing| self.repair_ports()));
        }
        outcome.and(self.rest())
    }

    fn repair_links(&self, records: &[Record]) -> Result<(), Error> {
        let mut outcome = Ok(());
        for plugin in &self.list.plugins {
            let done = match plugin {
                Plugin::Bridge(bridge) => bridge.repair_links(self.site(), records),
                Plugin::Portmap(portmap) => portmap.repair_links(self.site(), records),
                _ => Ok(()),
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    /// All of nftables but the ports of the host, while others come and go. The first error is left in `outcome`.
    fn repair_tables(&self, records: &[Record], outcome: &mut Result<(), Error>) -> Ports {
        let site = self.site();
        // What was looked at and stood does still, if nobody has changed anything since.
        let generation = site.nft(|nft| Ok(nft.generation()?)).ok();
        if generation.is_some_and(|generation| self.sockets.is_verified(generation)) {
            return Ports::Stand;
        }
        let (mut ports, mut done) = (Ports::Stand, Ok(()));
        for plugin in &self.list.plugins {
            let step = match plugin {
                Plugin::Bridge(bridge) => bridge.repair_table(site, records),
                Plugin::Firewall(firewall) => firewall.repair(site, records),
                Plugin::Portmap(portmap) => portmap.lacks(site, records).map(|lacks| {
                    if lacks {
                        ports = Ports::Missing;
                    }
                }),
                _ => Ok(()),
            };
            done = done.and(step);
        }
        if let (Some(generation), Ok(()), Ports::Stand) = (generation, &done, ports) {
            self.sockets.verify(generation);
        }
        if outcome.is_ok() {
            *outcome = done;
        }
        ports
    }

    /// The ports of the host, while nobody comes or goes.
    fn repair_ports(&self) -> Result<(), Error> {
        let (site, records) = (self.site(), self.cache().all()?);
        let mut outcome = Ok(());
        for plugin in &self.list.plugins {
            if let Plugin::Portmap(portmap) = plugin {
                outcome = outcome.and(portmap.repair_table(site, &records));
            }
        }
        outcome
    }
}
