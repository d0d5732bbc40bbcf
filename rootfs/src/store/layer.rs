//! One layer on its way into the store: blob > hash > inflate > hash > untar, in one pass; no blob is kept.
//!
//! It is unpacked below `tmp/` and becomes `layers/<diff id>` by one rename, when size, digest and diff id are what they
//! must be. Nothing waits for the disk: a layer carries a mark with the machine's boot id until it was written out, and
//! one that still has another boot's mark was overtaken by a loss of power and is swept away.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use berth_sys::beneath::Root;

use super::place::{Place, names, remove_tree};
use crate::digest::{Digest, Hasher, Hashing};
use crate::error::{Error, UnpackError};
use crate::limits::{EXPANSION_FREE_BYTES, EXPANSION_MAX, LAYER_BYTES_MAX};
use crate::unpack::unpack;

/// The unpacked tree in a layer's folder.
pub(crate) const TREE: &str = "diff";
/// Folders of the tree that its archive did not describe, each ended by a NUL.
pub(crate) const IMPLICIT: &str = "implicit";
const UNWRITTEN: &str = "unwritten";

/// Inflated bytes in one piece, and how many pieces inflating may be ahead of unpacking.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_AHEAD: usize = 8;

/// What is known of a layer before it is here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Digest and size of the blob, if a manifest tells them.
    pub(crate) blob: Option<(Digest, u64)>,
    /// The digest of the archive in it, if a configuration tells it.
    pub(crate) diff_id: Option<Digest>,
}

/// What a layer was.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) diff_id: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
}

/// Whether the store has a layer.
pub(crate) fn is_present(place: &Place, diff_id: &Digest) -> bool {
    place.layer(diff_id).join(TREE).is_dir()
}

/// Brings the layer in `blob` into the store. Another that brings in the same layer at the same time does no harm: the
/// first one's stays.
pub(crate) fn bring_in(
    place: &Place,
    label: &str,
    blob: impl Read + Send,
    expected: &Expected,
) -> Result<Arrived, Error> {
    let temporary = place.temporary();
    fs::DirBuilder::new().mode(0o700).create(&temporary).map_err(Error::file("make", &temporary))?;
    let result = arrive(place, label, blob, expected, &temporary);
    // After success it is only what another was faster with.
    let removed = remove_tree(&temporary);
    result.and_then(|arrived| removed.map(|()| arrived))
}

fn arrive(
    place: &Place,
    label: &str,
    blob: impl Read + Send,
    expected: &Expected,
    temporary: &Path,
) -> Result<Arrived, Error> {
    let above = Root::open(temporary).map_err(Error::file("open", temporary))?;
    let (limit, most, hasher) = match &expected.blob {
        None => (LAYER_BYTES_MAX, u64::MAX, Hasher::sha256()),
        Some((digest, size)) => (expansion_limit(*size), size.saturating_add(1), Hasher::new(digest)),
    };
    let mut blob = Hashing::new(blob.take(most), hasher);
    let diff_hasher = expected.diff_id.as_ref().map_or_else(Hasher::sha256, Hasher::new);

    let (sender, receiver) = sync_channel(PIECES_AHEAD);
    let unpacked = std::thread::scope(|scope| {
        scope.spawn(|| inflate(&mut blob, limit, sender));
        let archive = Hashing::new(Pieces { receiver, piece: Vec::new(), at: 0 }, diff_hasher);
        let (mut archive, unpacked) = unpack(archive, above.folder(), OsStr::new(TREE))?;
        // What comes after the archive's end belongs to the digests too.
        io::copy(&mut archive, &mut io::sink()).map_err(|source| UnpackError::Read { source })?;
        Ok((archive.finish().0, unpacked))
    });
    let (diff_id, unpacked) = match unpacked.map_err(innermost) {
        Ok(done) => done,
        // The stream itself failed, or the disk did, or the entry is refused: the blob has no part in it.
        Err(error) if !is_about_content(&error) => return Err(Error::Layer { layer: label.to_owned(), source: error }),
        Err(error) => {
            // Broken content may be that of another blob than the one asked for, which is then the thing to tell.
            let _ = io::copy(&mut blob, &mut io::sink());
            check_blob(label, blob, expected)?;
            return Err(Error::Layer { layer: label.to_owned(), source: error });
        }
    };
    let size = check_blob(label, blob, expected)?;
    if let Some(wanted) = expected.diff_id.as_ref().filter(|wanted| **wanted != diff_id) {
        let what = format!("the archive in layer {label}");
        return Err(Error::Mismatch { what, expected: wanted.to_string(), got: diff_id.to_string() });
    }
    if unpacked.devices > 0 {
        tracing::warn!(layer = label, devices = unpacked.devices, "device files in a layer were left out");
    }
    publish(place, temporary, &diff_id, &unpacked.implicit)?;
    Ok(Arrived { diff_id, size })
}

/// Compares a blob that was read to its end with what it should be, and gives its size.
fn check_blob(label: &str, blob: Hashing<impl Read>, expected: &Expected) -> Result<u64, Error> {
    let (digest, size) = blob.finish();
    let Some((wanted, wanted_size)) = &expected.blob else { return Ok(size) };
    let what = format!("layer {label}");
    match size.cmp(wanted_size) {
        std::cmp::Ordering::Equal if digest == *wanted => Ok(size),
        std::cmp::Ordering::Equal => {
            Err(Error::Mismatch { what, expected: wanted.to_string(), got: digest.to_string() })
        }
        std::cmp::Ordering::Less => {
            Err(Error::Mismatch { what, expected: format!("{wanted_size} bytes"), got: format!("{size} bytes") })
        }
        std::cmp::Ordering::Greater => {
            Err(Error::Mismatch { what, expected: format!("{wanted_size} bytes"), got: "more".to_owned() })
        }
    }
}

/// An error of ours that travelled through a reader.
fn innermost(error: UnpackError) -> UnpackError {
    match error {
        UnpackError::Read { source } => match source.downcast::<UnpackError>() {
            Ok(inner) => inner,
            Err(source) => UnpackError::Read { source },
        },
        other => other,
    }
}

/// Whether other bytes would have helped.
fn is_about_content(error: &UnpackError) -> bool {
    match error {
        UnpackError::Damaged { .. } => true,
        UnpackError::Read { source } => !source.get_ref().is_some_and(|inner| inner.is::<TransferFailed>()),
        UnpackError::Entry { .. } | UnpackError::Write { .. } | UnpackError::Limit { .. } => false,
    }
}

/// A blob that stopped coming.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TransferFailed(pub(crate) String);

fn publish(place: &Place, temporary: &Path, diff_id: &Digest, implicit: &[Vec<u8>]) -> Result<(), Error> {
    let mut list = Vec::new();
    for path in implicit {
        list.extend_from_slice(path);
        list.push(0);
    }
    let write = |name: &str, content: &[u8]| {
        let path = temporary.join(name);
        fs::write(&path, content).map_err(Error::file("write", path))
    };
    write(IMPLICIT, &list)?;
    write(UNWRITTEN, boot_id()?.as_bytes())?;
    let target = place.layer(diff_id);
    match fs::rename(temporary, &target) {
        Err(_) if is_present(place, diff_id) => Ok(()),
        other => other.map_err(Error::file("publish", target)),
    }
}

fn expansion_limit(blob: u64) -> u64 {
    blob.saturating_mul(EXPANSION_MAX).clamp(EXPANSION_FREE_BYTES, LAYER_BYTES_MAX)
}

/// Inflates a blob, by what its first bytes say it is, and hands it on piece by piece until nobody wants more.
fn inflate(blob: &mut (impl Read + Send), limit: u64, sender: SyncSender<io::Result<Vec<u8>>>) {
    let mut head = [0; 4];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match blob.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return drop(sender.send(Err(error))),
        }
    }
    let head = head.get(..filled).unwrap_or_default();
    let decoder = decoder(head, head.chain(&mut *blob));
    let result = match decoder.and_then(|decoder| hand_on(decoder, limit, &sender)) {
        Ok(Wanted::No) => return,
        // A decoder may stop before its blob does.
        Ok(Wanted::Yes) => io::copy(blob, &mut io::sink()).map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        drop(sender.send(Err(error)));
    }
}

/// How a blob is compressed, by its first four bytes.
enum Compression {
    None,
    Gzip,
    Zstd,
}

fn compression(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or one to be skipped, with which some writers begin.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
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
    })
}

/// Whether the other side took all that there was.
enum Wanted {
    Yes,
    No,
}

fn hand_on(mut reader: impl Read, limit: u64, sender: &SyncSender<io::Result<Vec<u8>>>) -> io::Result<Wanted> {
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
struct Pieces {
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

/// Writes out what is not on disk yet, and takes the marks off. Long: seconds on a slow disk.
pub(crate) fn write_out(place: &Place) -> Result<(), Error> {
    let layers = place.layers();
    let marked: Vec<_> = names(&layers)?.into_iter().map(|name| layers.join(name).join(UNWRITTEN)).collect();
    let marked: Vec<_> = marked.into_iter().filter(|mark| mark.exists()).collect();
    if marked.is_empty() {
        return Ok(());
    }
    let folder = File::open(&layers).map_err(Error::file("open", &layers))?;
    berth_sys::overlay::sync_filesystem(&folder).map_err(Error::file("write out", &layers))?;
    for mark in marked {
        berth_sys::file::remove(&mark).map_err(Error::file("remove", &mark))?;
    }
    Ok(())
}

/// Whether a layer may have been cut off by a loss of power.
pub(crate) fn is_doubtful(layer: &Path, boot_id: &str) -> bool {
    match fs::read_to_string(layer.join(UNWRITTEN)) {
        Ok(mark) => mark != boot_id,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What tells this run of the machine from all others.
pub(crate) fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(Error::file("read", path))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_grows_without_measure_is_stopped() {
        let (sender, receiver) = sync_channel(PIECES_AHEAD);
        let limit = 20 * PIECE_BYTES as u64;
        let result = std::thread::scope(|scope| {
            let inflating = scope.spawn(|| hand_on(io::repeat(0), limit, &sender).map(drop));
            for _ in 0..20 {
                assert!(receiver.recv().unwrap().is_ok());
            }
            inflating.join().unwrap()
        });
        let error = innermost(UnpackError::Read { source: result.unwrap_err() });
        assert!(matches!(error, UnpackError::Limit { max, .. } if max == limit), "{error}");
        assert!(!is_about_content(&error));
    }

    #[test]
    fn small_blobs_may_grow_and_large_ones_by_a_ratio() {
        assert_eq!(expansion_limit(100), EXPANSION_FREE_BYTES);
        assert_eq!(expansion_limit(100 << 20), (100 << 20) * EXPANSION_MAX);
        assert_eq!(expansion_limit(u64::MAX), LAYER_BYTES_MAX);
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        assert!(is_compressed(&[0x1f, 0x8b, 8, 0]));
        assert!(is_compressed(&[0x28, 0xb5, 0x2f, 0xfd]));
        assert!(is_compressed(&[0x53, 0x2a, 0x4d, 0x18]));
        assert!(!is_compressed(b"etc/") && !is_compressed(b"") && !is_compressed(&[0x1f]));
    }
}
