//! What events about nftables are about, so that a machine on which another tool changes its own tables all the time is
//! not looked at all the time; and the number that every change raises, by which who has looked once knows that nothing
//! has changed since.

use super::{Nft, TABLE_NAME, body, kind};
use crate::netlink::Error;
use crate::netlink::message::{Messages, attribute, text};
use crate::netlink::watch::Watch;

const GENERATION_ID: u16 = 1;

impl Watch {
    /// Takes what has come about nftables, without waiting; whether any of it was about a table that matters, by its name.
    /// Events that were lost count as such.
    pub fn drain_tables(&mut self, mut matters: impl FnMut(&str) -> bool) -> Result<bool, Error> {
        // All messages but the one that tells the end of a change begin with the table's name.
        self.drain_if(|message| {
            let name = body(message).and_then(|body| attribute(body, TABLE_NAME));
            message.kind != kind(libc::NFT_MSG_NEWGEN) && name.is_some_and(|name| matters(&text(name)))
        })
    }
}

impl Nft {
    /// The number of the ruleset: another one after each change, whoever made it.
    pub fn generation(&mut self) -> Result<u32, Error> {
        const WHAT: &str = "read the generation of nftables";
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        // About no table in particular.
        request.push(WHAT, kind(libc::NFT_MSG_GETGEN), flags, |message| message.fixed(&[0; 4]));
        let mut generation = None;
        self.socket.answers(&mut request, |message| {
            let number = body(message).and_then(|body| attribute(body, GENERATION_ID));
            generation = number.and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
        })?;
        generation.ok_or_else(|| Error::Malformed { what: WHAT.to_owned() })
    }
}
