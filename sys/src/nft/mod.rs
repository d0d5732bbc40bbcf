//! nftables by netlink: a typed subset, written as one atomic batch. No program is run.
//!
//! | room | what is in it |
//! |---|---|
//! | [`table`] | tables and chains |
//! | [`set`] | sets, maps, their elements |
//! | [`rule`] | rules and the expressions they consist of |
//! | `encode` | expressions as bytes |
//! | [`batch`] | gathering changes, committing all or none |
//! | [`watch`] | whether anything has changed |
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. Everything is spelled so that `nft list ruleset` shows it as a
//! person would have written it.

pub mod batch;
mod encode;
pub mod rule;
pub mod set;
pub mod table;
pub mod watch;

use std::collections::HashSet;

use crate::netlink::Error;
use crate::netlink::message::{Attributes, Messages, Received, attribute, attributes};
use crate::netlink::socket::{Protocol, Socket};
use set::Element;
use table::Table;

/// Attributes that name a table, in every kind of message.
const TABLE_NAME: u16 = 1;

/// Elements that fit into one message of the kernel.
const TOLD_AT_ONCE: usize = 32;
/// How often a set is read that is told in another way each time: it changes all the time.
const TELLINGS_MAX: usize = 16;

/// A conversation with the kernel about nftables.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// Opens one for the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// The note that was left on a table; `None` if there is no such table, empty if there is no note.
    pub fn note(&mut self, table: Table<'_>) -> Result<Option<Vec<u8>>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        request.push(format!("read nft table {}", table.name), kind(libc::NFT_MSG_GETTABLE), flags, |message| {
            header(message, table);
            message.put_str(TABLE_NAME, table.name);
        });
        let mut note = None;
        let answer = self.socket.answers(&mut request, |message| {
            note = body(message).map(|body| attribute(body, table::TABLE_USERDATA).unwrap_or_default().to_vec());
        });
        if_absent(answer.map(|()| note), None)
    }

    /// The elements of a set; none if there is no such set.
    ///
    /// While a set grows, the kernel moves its elements in the background, and what it tells in several messages may have
    /// some twice and lack others. So many elements are believed when they are told the same way again.
    pub fn elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Element>, Error> {
        let mut found = self.told_elements(table, set)?;
        for _ in 0..TELLINGS_MAX {
            if found.len() <= TOLD_AT_ONCE {
                break;
            }
            let before: HashSet<Vec<u8>> = found.into_iter().map(|element| element.key).collect();
            found = self.told_elements(table, set)?;
            if found.len() == before.len() && found.iter().all(|element| before.contains(&element.key)) {
                break;
            }
        }
        Ok(found)
    }

    fn told_elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Element>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let what = format!("read nft set {} {set}", table.name);
        request.push(what, kind(libc::NFT_MSG_GETSETELEM), flags, |message| {
            header(message, table);
            set::name_list(message, table, set);
        });
        let found = self.socket.dump(&mut request, |message| {
            let list = body(message).and_then(|body| attribute(body, set::LIST_ELEMENTS)).unwrap_or_default();
            attributes(list).filter_map(|(_, element)| Element::parse(element)).collect::<Vec<_>>()
        });
        let mut found = if_absent(found, Vec::new())?;
        let mut told = HashSet::new();
        found.retain(|element| told.insert(element.key.clone()));
        Ok(found)
    }
}

/// Turns the refusal "there is none" into a value.
fn if_absent<T>(answer: Result<T, Error>, value: T) -> Result<T, Error> {
    match answer {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => Ok(value),
        other => other,
    }
}

/// The type of a message: subsystem and verb.
const fn kind(verb: i32) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | verb as u16
}

/// The fixed part of every message (`nfgenmsg`).
fn header(message: &mut Attributes<'_>, table: Table<'_>) {
    message.fixed(&[table.family as u8, 0, 0, 0]);
}

fn body(message: Received<'_>) -> Option<&[u8]> {
    message.body.get(4..)
}
