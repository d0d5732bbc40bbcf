//! Tables and chains.

use super::batch::Batch;
use super::{Nft, TABLE_NAME, body, header, if_absent, kind};
use crate::netlink::Error;
use crate::netlink::message::{Messages, attribute};

pub(super) const TABLE_USERDATA: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IP of both versions.
    Inet = libc::NFPROTO_INET as u8,
    /// IPv4.
    Ip = libc::NFPROTO_IPV4 as u8,
    /// IPv6.
    Ip6 = libc::NFPROTO_IPV6 as u8,
    /// What passes from one port of a bridge to another.
    Bridge = libc::NFPROTO_BRIDGE as u8,
}

/// A table, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// Where packets come from into a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// As they arrive.
    PreRouting = libc::NF_INET_PRE_ROUTING as u32,
    /// For this machine.
    Input = libc::NF_INET_LOCAL_IN as u32,
    /// Through this machine.
    Forward = libc::NF_INET_FORWARD as u32,
    /// From this machine.
    Output = libc::NF_INET_LOCAL_OUT as u32,
    /// As they leave.
    PostRouting = libc::NF_INET_POST_ROUTING as u32,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses; sees the first packet of a connection only.
    Nat,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What it may do.
    pub kind: ChainKind,
    /// Where its packets come from.
    pub hook: Hook,
    /// Its place among the chains of the same hook: lower is earlier.
    pub priority: i32,
}

/// A chain as the kernel has it, whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The number of the [`Hook`] that its packets come from; `None` if other chains send them.
    pub hook: Option<u32>,
    /// Whether it drops what none of its rules decides about.
    pub drops: bool,
}

impl Nft {
    /// A chain; `None` if there is no such chain or no such table.
    pub fn chain(&mut self, table: Table<'_>, name: &str) -> Result<Option<Chain>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let what = format!("read nft chain {} {name}", table.name);
        request.push(what, kind(libc::NFT_MSG_GETCHAIN), flags, |message| {
            header(message, table);
            message.put_str(CHAIN_TABLE, table.name);
            message.put_str(CHAIN_NAME, name);
        });
        let mut chain = None;
        let answer = self.socket.answers(&mut request, |message| chain = body(message).map(parse));
        if_absent(answer.map(|()| chain), None)
    }
}

fn parse(attributes: &[u8]) -> Chain {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    let hook = attribute(attributes, CHAIN_HOOK).and_then(|hook| attribute(hook, HOOK_NUMBER)).and_then(number);
    let policy = attribute(attributes, CHAIN_POLICY).and_then(number);
    Chain { hook, drops: policy == Some(libc::NF_DROP as u32) }
}

impl Batch {
    /// Makes a table, if it is not there.
    pub fn add_table(&mut self, table: Table<'_>) {
        self.table(table, None);
    }

    /// Makes a table with a note of the caller's on it.
    pub fn add_table_with_note(&mut self, table: Table<'_>, note: &[u8]) {
        self.table(table, Some(note));
    }

    fn table(&mut self, table: Table<'_>, note: Option<&[u8]>) {
        let what = format!("make nft table {}", table.name);
        self.push(what, kind(libc::NFT_MSG_NEWTABLE), libc::NLM_F_CREATE, |message| {
            header(message, table);
            message.put_str(TABLE_NAME, table.name);
            if let Some(note) = note {
                message.put(TABLE_USERDATA, note);
            }
        });
    }

    /// Deletes a table with all that is in it; refused if there is none: [`Batch::add_table`] before makes it sure.
    pub fn delete_table(&mut self, table: Table<'_>) {
        self.push(format!("delete nft table {}", table.name), kind(libc::NFT_MSG_DELTABLE), 0, |message| {
            header(message, table);
            message.put_str(TABLE_NAME, table.name);
        });
    }

    /// Deletes a chain with its rules; refused with `EBUSY` while other rules send packets there.
    pub fn delete_chain(&mut self, table: Table<'_>, name: &str) {
        let what = format!("delete nft chain {} {name}", table.name);
        self.push(what, kind(libc::NFT_MSG_DELCHAIN), 0, |message| {
            header(message, table);
            message.put_str(CHAIN_TABLE, table.name);
            message.put_str(CHAIN_NAME, name);
        });
    }

    /// Makes a chain; with `base` packets come into it by themselves, without it other chains send them.
    pub fn add_chain(&mut self, table: Table<'_>, name: &str, base: Option<Base>) {
        let what = format!("make nft chain {} {name}", table.name);
        self.push(what, kind(libc::NFT_MSG_NEWCHAIN), libc::NLM_F_CREATE, |message| {
            header(message, table);
            message.put_str(CHAIN_TABLE, table.name);
            message.put_str(CHAIN_NAME, name);
            if let Some(base) = base {
                message.nest(CHAIN_HOOK, |hook| {
                    hook.put_be32(HOOK_NUMBER, base.hook as u32);
                    hook.put(HOOK_PRIORITY, &base.priority.to_be_bytes());
                });
                let kind = match base.kind {
                    ChainKind::Filter => "filter",
                    ChainKind::Nat => "nat",
                };
                message.put_str(CHAIN_TYPE, kind);
            }
        });
    }
}
