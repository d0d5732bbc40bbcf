//! `macspoofchk`: a pod's frames have the pod's own hardware address, or are dropped as they come in, in an nft table of the
//! network's own:
//!
//! ```text
//! table bridge berth-<network>-sources {
//!     set checked { host's end }
//!     set allowed { host's end . hardware address }
//!     chain prerouting { type filter hook prerouting priority -300
//!         iifname @checked iifname . ether saddr != @allowed drop
//!     }
//! }
//! ```

use std::collections::HashSet;

use berth_sys::netlink::link::Mac;
use berth_sys::nft::Nft;
use berth_sys::nft::batch::Batch;
use berth_sys::nft::rule::{Base as Header, Expr, Meta, Register, Verdict};
use berth_sys::nft::set::{Element, Field, concat};
use berth_sys::nft::table::{Base, ChainKind, Family, Hook, Table};
use nix::errno::Errno;
use nix::libc::IFNAMSIZ;

use super::Bridge;
use crate::Error;
use crate::attachment::Owner;
use crate::builtin::masquerade::ending;
use crate::builtin::own_table::{self, OwnTable, table_name};
use crate::cache::Record;
use crate::site::Site;
use crate::spec::result::AddResult;

const CHAIN: &str = "prerouting";
const CHECKED: &str = "checked";
const ALLOWED: &str = "allowed";
/// Before all that looks at what is in a frame.
const PRIORITY: i32 = -300;
/// Where a frame has its source, and how long that is.
const SOURCE_AT: u32 = 6;
const SOURCE_BYTES: u32 = 6;

fn name_of(network: &str) -> String {
    format!("{}-sources", table_name(network))
}

fn table(name: &str) -> Table<'_> {
    Table { family: Family::Bridge, name }
}

fn own_table(network: &str) -> OwnTable {
    // A name takes the first four registers.
    let (link, source) = (Register(0), Register(4));
    let exprs = vec![
        Expr::Meta(Meta::InputName, link),
        Expr::Set(CHECKED.to_owned(), link),
        Expr::Payload(Header::Link, SOURCE_AT, SOURCE_BYTES, source),
        Expr::NotSet(ALLOWED.to_owned(), link),
    ];
    let drop = ending(exprs, Expr::Verdict(Verdict::Drop), "a hardware address that is not the pod's");
    OwnTable {
        family: Family::Bridge,
        name: name_of(network),
        chains: vec![(CHAIN, Some(Base { kind: ChainKind::Filter, hook: Hook::PreRouting, priority: PRIORITY }))],
        maps: vec![(CHECKED, vec![Field::LinkName], vec![]), (ALLOWED, vec![Field::LinkName, Field::Mac], vec![])],
        rules: vec![(CHAIN, drop)],
    }
}

/// The elements of an attachment, by their sets. The one that allows goes first.
fn elements(owner: &Owner, mac: Mac) -> [(&'static str, Element); 2] {
    let comment = owner.host_name();
    let mut link = comment.clone().into_bytes();
    link.resize(IFNAMSIZ, 0);
    let element = |key| Element { key, value: None, comment: comment.clone() };
    [(ALLOWED, element(concat([link.as_slice(), &mac.0]))), (CHECKED, element(link))]
}

impl Bridge {
    /// Lets an attachment send with its own address alone.
    pub(super) fn check_source(&self, site: Site<'_>, owner: &Owner, mac: Option<Mac>) -> Result<(), Error> {
        let Some(mac) = mac.filter(|_| self.checks_source) else { return Ok(()) };
        let done = site.nft(|nft| {
            own_table(site.network).ensure(nft, site)?;
            allow(nft, site, &elements(owner, mac))
        });
        done.map_err(|error| match &error {
            Error::Kernel(cause) if matches!(cause.errno(), Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)) => {
                let problem = "this kernel cannot look into frames on a bridge (nf_tables_bridge)".to_owned();
                Error::Config { field: "macspoofchk".to_owned(), problem }
            }
            _ => error,
        })
    }

    /// Takes away what [`Self::check_source`] made.
    pub(super) fn forget_source(&self, site: Site<'_>, owner: &Owner) -> Result<(), Error> {
        let name = owner.host_name();
        self.forget_sources(site, &|of| of == name)
    }

    /// As [`Self::forget_source`], of all whose name is stale.
    pub(super) fn forget_sources(&self, site: Site<'_>, stale: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        if !self.checks_source {
            return Ok(());
        }
        // In this order a pod is never checked and not allowed.
        site.nft(|nft| own_table::delete_elements(nft, table(&name_of(site.network)), &[CHECKED, ALLOWED], stale))
    }

    /// The table with the elements of those who are attached.
    pub(super) fn repair_sources(&self, site: Site<'_>, records: &[Record]) -> Result<(), Error> {
        for record in records.iter().filter(|_| self.checks_source) {
            let elements = elements(&record.attachment.owner(), mac_of(&record.result)?);
            site.nft(|nft| {
                own_table(site.network).ensure_whole(nft, site)?;
                allow(nft, site, &elements)
            })?;
        }
        Ok(())
    }

    /// Whether the table stands, with the elements of one who is attached.
    pub(super) fn sources_stand(&self, site: Site<'_>, owner: &Owner, result: &AddResult) -> Result<bool, Error> {
        if !self.checks_source {
            return Ok(true);
        }
        let elements = elements(owner, mac_of(result)?);
        site.nft(|nft| Ok(own_table(site.network).stands_whole(nft)? && missing(nft, site, &elements)?.is_empty()))
    }
}

/// The hardware address that ADD told of the pod's interface.
fn mac_of(result: &AddResult) -> Result<Mac, Error> {
    let inside = result.interfaces.iter().find(|interface| !interface.sandbox.is_empty());
    let bytes = inside.map(|inside| inside.mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect());
    match bytes {
        Some(Ok::<Vec<u8>, _>(bytes)) if bytes.len() == 6 => {
            let mut mac = Mac([0; 6]);
            mac.0.copy_from_slice(&bytes);
            Ok(mac)
        }
        _ => {
            let problem = "names no hardware address of the container's interface".to_owned();
            Err(Error::Config { field: "prevResult.interfaces".to_owned(), problem })
        }
    }
}

/// Those elements that are not there.
fn missing<'e>(
    nft: &mut Nft,
    site: Site<'_>,
    elements: &'e [(&'static str, Element)],
) -> Result<Vec<&'e (&'static str, Element)>, Error> {
    let name = name_of(site.network);
    let mut found: HashSet<(&str, Vec<u8>)> = HashSet::new();
    for set in [CHECKED, ALLOWED] {
        found.extend(nft.elements(table(&name), set)?.into_iter().map(|element| (set, element.key)));
    }
    Ok(elements.iter().filter(|(set, element)| !found.contains(&(*set, element.key.clone()))).collect())
}

fn allow(nft: &mut Nft, site: Site<'_>, elements: &[(&'static str, Element)]) -> Result<(), Error> {
    let name = name_of(site.network);
    let mut batch = Batch::new();
    for (set, element) in missing(nft, site, elements)? {
        batch.add_elements(table(&name), set, std::slice::from_ref(element));
    }
    Ok(nft.commit(batch)?)
}

/// The table goes.
pub(super) fn remove(nft: &mut Nft, network: &str) -> Result<(), Error> {
    own_table::remove_of(nft, Family::Bridge, &name_of(network))
}
