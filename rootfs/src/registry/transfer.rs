//! A blob on its way from the network to the thread that unpacks it, resumed where it was interrupted.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::source::{Blob, Kind, Source, pause};
use super::{Need, Repository};
use crate::digest::Digest;
use crate::error::{Error, told};
use crate::limits::{CHUNKS_AHEAD, RETRIES_MAX};
use crate::store::layer::TransferFailed;

/// Chunks, or why there will be no more; an empty one is the end.
type Chunk = Result<Bytes, String>;

/// The end that is written to.
pub(crate) type Outgoing = mpsc::Sender<Chunk>;

/// The end that is read, by a thread that may block.
pub(crate) struct Incoming {
    chunks: mpsc::Receiver<Chunk>,
    chunk: Bytes,
    ended: bool,
}

/// A way for one blob, of bounded length.
pub(crate) fn incoming() -> (Outgoing, Incoming) {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    (sender, Incoming { chunks, chunk: Bytes::new(), ended: false })
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) if chunk.is_empty() => self.ended = true,
                Some(chunk) => self.chunk = chunk.map_err(|why| io::Error::other(TransferFailed(why)))?,
                None => return Err(io::Error::other(TransferFailed("the pull was given up".to_owned()))),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        let part = self.chunk.split_to(count);
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(&part);
        }
        Ok(count)
    }
}

/// Who gave a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// Mirrors, or one of them a part.
    ByMirror,
    /// The registry itself, all of it.
    ByRegistry,
}

/// Sends a blob of `size` bytes to `out`, from byte `begun` on, telling `seen` how much is there. Its end is told to `out`
/// too, so that a blob that stopped half way is not taken for a short one.
pub(crate) async fn send_blob(
    repository: &Repository,
    digest: &Digest,
    size: u64,
    begun: u64,
    out: Outgoing,
    seen: impl FnMut(u64),
) -> Result<Served, Error> {
    let mut transfer = Transfer { repository, digest, size, out, seen, done: begun, served: Served::ByRegistry };
    match transfer.whole().await {
        Ok(()) => {
            drop(transfer.out.send(Ok(Bytes::new())).await);
            Ok(transfer.served)
        }
        Err(error) => {
            drop(transfer.out.send(Err(told(&error))).await);
            Err(error)
        }
    }
}

struct Transfer<'r, F> {
    repository: &'r Repository,
    digest: &'r Digest,
    size: u64,
    out: Outgoing,
    seen: F,
    done: u64,
    served: Served,
}

enum End {
    /// All is sent, or nobody wants more.
    Whole,
    Interrupted(String),
}

impl<F: FnMut(u64)> Transfer<'_, F> {
    /// All of it, each source going on where the one before was.
    async fn whole(&mut self) -> Result<(), Error> {
        if self.done == self.size && self.size > 0 {
            return Ok(());
        }
        let mut walk = self.repository.walk(Need::Content);
        while let Some(source) = walk.next() {
            match self.from(source).await {
                Ok(()) => return Ok(()),
                Err(error) => walk.failed(source, error),
            }
        }
        Err(walk.error())
    }

    /// The rest from one source, which goes on after each interruption: the registry as long as it gives something each
    /// time, a mirror a few times.
    async fn from(&mut self, source: &Source) -> Result<(), Error> {
        let mut interruptions = 0;
        loop {
            let before = self.done;
            let end = match source.blob(self.digest, before, self.size).await {
                Ok(blob) => self.part(blob).await,
                Err(Error::Unreachable { source: why, .. }) if before > 0 => End::Interrupted(told(&*why)),
                Err(error) => return Err(error),
            };
            let is_stuck = self.done == before;
            if source.kind == Kind::Mirror && !is_stuck {
                self.served = Served::ByMirror;
            }
            let End::Interrupted(why) = end else { return Ok(()) };
            tracing::debug!(digest = %self.digest, done = self.done, why, "a blob was interrupted: going on");
            interruptions = if source.kind == Kind::Registry && !is_stuck { 1 } else { interruptions + 1 };
            if interruptions > RETRIES_MAX || (source.kind == Kind::Mirror && is_stuck) {
                let why = format!("blob {} after {} of {} bytes: {why}", self.digest, self.done, self.size);
                return Err(source.unreachable(why));
            }
            tokio::time::sleep(pause(interruptions - 1)).await;
        }
    }

    async fn part(&mut self, blob: Blob) -> End {
        let Blob { mut response, at } = blob;
        let mut skip = self.done.saturating_sub(at);
        loop {
            let mut chunk = match response.chunk().await {
                // A clean end is none before all that was promised is there.
                Ok(None) if self.done < self.size => return End::Interrupted("it ended too early".to_owned()),
                Ok(None) => return End::Whole,
                Ok(Some(chunk)) => chunk,
                Err(error) => return End::Interrupted(told(&error)),
            };
            let skipped = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            drop(chunk.split_to(skipped));
            skip -= skipped as u64;
            if chunk.is_empty() {
                continue;
            }
            self.done += chunk.len() as u64;
            (self.seen)(self.done.min(self.size));
            // One byte too many is enough to know: an endless blob is not read to its end.
            if self.out.send(Ok(chunk)).await.is_err() || self.done > self.size {
                return End::Whole;
            }
        }
    }
}
