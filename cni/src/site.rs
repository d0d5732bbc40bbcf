//! Where a verb works: the network's name, its folders, and the conversations with the kernel that are kept open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use berth_sys::nft::Nft;

use crate::limits::NFT_SOCKETS_MAX;
use crate::{Dirs, Error};

/// The network namespace of the calling thread.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// Where a verb works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// The network's name.
    pub(crate) network: &'a str,
    /// The network's version of the specification.
    pub(crate) version: &'a str,
    pub(crate) dirs: &'a Dirs,
    pub(crate) sockets: &'a NftSockets,
}

/// Conversations about nftables, each with the number of its network namespace. They are kept open: when one is closed,
/// the kernel waits until what was deleted is out of use, for milliseconds, and everybody else's changes wait with it.
#[derive(Debug, Default)]
pub(crate) struct NftSockets {
    kept: Mutex<Vec<(u64, Nft)>>,
    /// The network namespace and the generation of its nftables in which all of the network was found standing.
    verified: Mutex<Option<(u64, u32)>>,
}

impl Site<'_> {
    /// Talks about the nftables of the calling thread's network namespace.
    pub(crate) fn nft<T>(&self, work: impl FnOnce(&mut Nft) -> Result<T, Error>) -> Result<T, Error> {
        let netns = own_netns()?;
        let mut nft = match self.sockets.take(netns) {
            Some(nft) => nft,
            None => Nft::open()?,
        };
        let outcome = work(&mut nft);
        self.sockets.put(netns, nft);
        outcome
    }
}

/// The number of the calling thread's network namespace.
fn own_netns() -> Result<u64, Error> {
    Ok(fs::metadata(OWN_NETNS).map_err(Error::io("read", OWN_NETNS))?.ino())
}

impl NftSockets {
    /// Remembers that all stood in this generation.
    pub(crate) fn verify(&self, generation: u32) {
        let found = own_netns().ok().map(|netns| (netns, generation));
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Whether all stood in this generation.
    pub(crate) fn is_verified(&self, generation: u32) -> bool {
        let known = *self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        known.is_some() && known == own_netns().ok().map(|netns| (netns, generation))
    }

    fn take(&self, netns: u64) -> Option<Nft> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.iter().position(|(of, _)| *of == netns)?;
        Some(kept.swap_remove(index).1)
    }

    fn put(&self, netns: u64, nft: Nft) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < NFT_SOCKETS_MAX {
            kept.push((netns, nft));
        }
    }
}
