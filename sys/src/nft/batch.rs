//! Changes that the kernel makes all at once, or not at all.

use std::borrow::Cow;

use super::Nft;
use crate::netlink::Error;
use crate::netlink::message::{Attributes, Messages};
use crate::netlink::socket::acknowledgement;

/// The changes of one transaction, in their order.
#[derive(Debug)]
pub struct Batch {
    messages: Messages,
    sets: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// No change yet.
    pub fn new() -> Self {
        let mut messages = Messages::new();
        messages.push("begin an nft transaction", libc::NFNL_MSG_BATCH_BEGIN as u16, libc::NLM_F_REQUEST, frame);
        Self { messages, sets: 0 }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }

    pub(super) fn push(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        kind: u16,
        flags: i32,
        build: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.messages.push(what, kind, libc::NLM_F_REQUEST | flags, build);
    }

    /// A number for a set of this transaction, by which the kernel tells new sets apart.
    pub(super) fn next_id(&mut self) -> u32 {
        self.sets += 1;
        self.sets
    }
}

impl Nft {
    /// Commits a batch: all of it or nothing. The error is that of the first change that was refused.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        // Refusals come unasked; one acknowledgement, of the last change, tells that there are no more of them. More
        // would overrun the socket's buffer when a batch is long.
        let mut messages = batch.messages;
        messages.flag_last(libc::NLM_F_ACK);
        let last = messages.len() as u32 - 1;
        messages.push("end an nft transaction", libc::NFNL_MSG_BATCH_END as u16, libc::NLM_F_REQUEST, frame);
        let first = self.socket.send(&mut messages)?;
        let mut refusal = None;
        let mut done = false;
        while !done {
            self.socket.receive(|message| {
                let index = message.sequence.wrapping_sub(first);
                if index > last || i32::from(message.kind) != libc::NLMSG_ERROR {
                    return;
                }
                let answer = acknowledgement(message, messages.what(index as usize));
                // An error about the beginning is one about the whole: nothing else will come.
                done |= index == last || (index == 0 && answer.is_err());
                if let Err(error) = answer {
                    refusal.get_or_insert(error);
                }
            })?;
        }
        refusal.map_or(Ok(()), Err)
    }
}

/// The fixed part of a transaction's ends: which subsystem is meant.
fn frame(message: &mut Attributes<'_>) {
    let [high, low] = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
    message.fixed(&[libc::AF_UNSPEC as u8, 0, high, low]);
}
