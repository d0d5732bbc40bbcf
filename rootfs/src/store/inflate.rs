//! A blob inflated in a thread of its own, which hands it on in pieces; the other side reads them as one stream.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::error::UnpackError;

/// Inflated bytes in one piece, and how many pieces inflating may be ahead of unpacking.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_AHEAD: usize = 4;

/// First bytes of a blob by which its compression is told.
pub(crate) const HEAD_BYTES: usize = 10;

/// The end that pieces go into.
type Sender = SyncSender<io::Result<Vec<u8>>>;

/// A way for pieces, of bounded length.
pub(crate) fn way() -> (Sender, Pieces) {
    let (sender, receiver) = sync_channel(PIECES_AHEAD);
    (sender, Pieces { receiver, piece: Vec::new(), at: 0 })
}

/// Inflates a blob, by what its first bytes say it is, and hands it on piece by piece until nobody wants more.
pub(crate) fn inflate(blob: &mut (impl Read + Send), limit: u64, sender: Sender) -> Compression {
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match blob.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                drop(sender.send(Err(error)));
                return Compression::None;
            }
        }
    }
    let head = head.get(..filled).unwrap_or_default();
    let decoder = decoder(head, head.chain(&mut *blob));
    let result = match decoder.and_then(|decoder| hand_on(decoder, limit, &sender)) {
        Ok(Wanted::No) => Ok(()),
        // A decoder may stop before its blob does.
        Ok(Wanted::Yes) => io::copy(blob, &mut io::sink()).map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        drop(sender.send(Err(error)));
    }
    compression(head)
}

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    /// One that no image has by its specification, and that is not inflated.
    Other(&'static str),
}

fn compression(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or one to be skipped, with which some writers begin.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Other("xz"),
        // And the digits of pi.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Compression::Other("bzip2"),
        _ => Compression::None,
    }
}

/// Whether something that begins with these bytes is compressed.
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    !matches!(compression(head), Compression::None)
}

/// Inflates `whole`, which begins with `head`.
pub(crate) fn decoder<'r>(head: &[u8], whole: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match compression(head) {
        Compression::None => Box::new(whole),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(PIECE_BYTES, whole)))
        }
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
        Compression::Other(name) => {
            let why = format!("it is compressed with {name}, which images are not: use gzip, zstd or nothing");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
    })
}

/// Whether the other side took all that there was.
enum Wanted {
    Yes,
    No,
}

fn hand_on(mut reader: impl Read, limit: u64, sender: &Sender) -> io::Result<Wanted> {
    let mut total = 0u64;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut reader).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        total += piece.len() as u64;
        if total > limit {
            return Err(io::Error::other(UnpackError::Limit { what: "bytes for so small a blob", max: limit }));
        }
        if piece.is_empty() {
            return Ok(Wanted::Yes);
        }
        if sender.send(Ok(piece)).is_err() {
            return Ok(Wanted::No);
        }
    }
}

/// The pieces as one stream again.
pub(crate) struct Pieces {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            match self.receiver.recv() {
                // The other side is done.
                Err(_) => return Ok(0),
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
            }
        }
        let count = self.piece.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_grows_without_measure_is_stopped() {
        let (sender, mut pieces) = way();
        let limit = 20 * PIECE_BYTES as u64;
        std::thread::scope(|scope| {
            let inflating = scope.spawn(|| hand_on(io::repeat(0), limit, &sender).map(drop));
            let mut begin = vec![1; 20 * PIECE_BYTES];
            pieces.read_exact(&mut begin).unwrap();
            let error = inflating.join().unwrap().unwrap_err().downcast::<UnpackError>().unwrap();
            assert!(matches!(error, UnpackError::Limit { max, .. } if max == limit), "{error}");
        });
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        assert!(is_compressed(&[0x1f, 0x8b, 8, 0]));
        assert!(is_compressed(&[0x28, 0xb5, 0x2f, 0xfd]));
        assert!(is_compressed(&[0x53, 0x2a, 0x4d, 0x18]));
        assert!(is_compressed(b"\xfd7zXZ\0\0\x04") && is_compressed(b"BZh91AY&SY"));
        assert!(!is_compressed(b"BZh9/file"));
        assert!(!is_compressed(b"etc/") && !is_compressed(b"") && !is_compressed(&[0x1f]));
    }
}
