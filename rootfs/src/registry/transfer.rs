//! A blob on its way from the network to the thread that unpacks it, resumed where it was interrupted.

use std::io::{self, Read};

use bytes::Bytes;
use reqwest::StatusCode;
use tokio::sync::mpsc;

use super::Repository;
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{CHUNKS_AHEAD, RETRIES_MAX, RETRY_WAIT};
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

/// Sends a blob of `size` bytes to `out`, from byte `begun` on, telling `seen` how much is there. Its end is told to `out` too, so that a blob
/// that stopped half way is not taken for a short one.
pub(crate) async fn send_blob(
    repository: &Repository,
    digest: &Digest,
    size: u64,
    begun: u64,
    out: Outgoing,
    mut seen: impl FnMut(u64),
) -> Result<(), Error> {
    let mut done = begun;
    let mut failures = 0;
    while done < size {
        let before = done;
        let interrupted = match send_from(repository, digest, size, &out, &mut done, &mut seen).await {
            Ok(End::Whole) => break,
            Ok(End::Interrupted(error)) => error,
            Err(error) => {
                drop(out.send(Err(error.to_string())).await);
                return Err(error);
            }
        };
        failures = if done > before { 1 } else { failures + 1 };
        if failures > RETRIES_MAX {
            let why = format!("after {done} of {size} bytes: {interrupted}");
            drop(out.send(Err(why.clone())).await);
            return Err(Error::Unreachable { registry: repository.registry.clone(), source: why.into() });
        }
        tracing::debug!(%digest, done, error = %interrupted, "a blob was interrupted: going on");
        tokio::time::sleep(RETRY_WAIT * 2u32.saturating_pow(failures - 1)).await;
    }
    drop(out.send(Ok(Bytes::new())).await);
    Ok(())
}

enum End {
    /// All is sent, or nobody wants more.
    Whole,
    Interrupted(String),
}

async fn send_from(
    repository: &Repository,
    digest: &Digest,
    size: u64,
    out: &Outgoing,
    done: &mut u64,
    seen: &mut impl FnMut(u64),
) -> Result<End, Error> {
    let mut response = repository.blob(digest, *done).await?;
    // A registry that cannot begin in the middle begins at the start.
    let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { *done };
    loop {
        let mut chunk = match response.chunk().await {
            // Fewer bytes than promised with a clean end are the digest's business.
            Ok(None) => return Ok(End::Whole),
            Ok(Some(chunk)) => chunk,
            Err(error) => return Ok(End::Interrupted(error.to_string())),
        };
        let skipped = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
        drop(chunk.split_to(skipped));
        skip -= skipped as u64;
        if chunk.is_empty() {
            continue;
        }
        *done += chunk.len() as u64;
        seen((*done).min(size));
        // One byte too many is enough to know: an endless blob is not read to its end.
        if out.send(Ok(chunk)).await.is_err() || *done > size {
            return Ok(End::Whole);
        }
    }
}
