//! One layer on its way into the store: blob > hash > inflate > hash > untar, in one pass, the blob written down beside it.
//!
//! It is unpacked below `tmp/` and becomes `layers/<diff id>` by one rename, when size, digest and diff id are what they
//! must be, and after its blob became one of the store. Nothing waits for the disk: a layer carries a mark with the
//! machine's boot id until it was written out, and one that still has another boot's mark was overtaken by a loss of power
//! and is swept away.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread;

use berth_sys::beneath::Root;
use oci_spec::image::{Descriptor, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::inflate::{self, Compression};
use super::part::Part;
use super::place::{Place, names, remove_tree};
use super::sweep::is_old;
use super::worker::Claim;
use crate::digest::{Digest, Hasher, Hashing};
use crate::error::{Error, UnpackError};
use crate::limits::{EXPANSION_FREE_BYTES, EXPANSION_MAX, LAYER_BYTES_MAX, NOTE_BYTES_MAX};
use crate::unpack::{Devices, Unpacked, unpack};

/// The unpacked tree in a layer's folder.
pub(crate) const TREE: &str = "diff";
/// Folders of the tree that its archive did not describe, each ended by a NUL.
pub(crate) const IMPLICIT: &str = "implicit";
/// Hard links of the archive to files of layers below: name and target, each ended by a NUL.
pub(crate) const LINKS: &str = "links";
/// Folders with whiteouts in them, each ended by a NUL, if there are any.
pub(crate) const HIDING: &str = "hiding";
const UNWRITTEN: &str = "unwritten";
/// Empty, and there until an image has the layer; its age is that of the layer.
const UNCLAIMED: &str = "unclaimed";
/// A [`Note`].
const NOTE: &str = "layer.json";

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
    pub(crate) blob: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
    compression: Compression,
    unpacked: Unpacked,
}

/// What is known of a layer that is here.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The blob that it came from, as a manifest describes it.
    pub(crate) blob: Descriptor,
    /// Bytes of the files in it.
    pub(crate) bytes: u64,
}

impl Note {
    /// Of a layer of the store; `None` if nobody noted anything.
    pub(crate) fn of(place: &Place, diff_id: &Digest) -> Option<Self> {
        let bytes = berth_sys::file::read_limited(&place.layer(diff_id).join(NOTE), NOTE_BYTES_MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Whether the store has a layer.
pub(crate) fn is_present(place: &Place, diff_id: &Digest) -> bool {
    place.layer(diff_id).join(TREE).is_dir()
}

/// Brings a layer into the store, where `claim` keeps it: the `part` of its blob that is here, then `rest`. Another that
/// brings in the same layer at the same time does no harm: the first one's stays.
pub(crate) fn bring_in(
    place: &Place,
    claim: &Claim,
    label: &str,
    part: Part,
    rest: impl Read + Send,
    expected: &Expected,
) -> Result<Arrived, Error> {
    let temporary = place.temporary()?;
    fs::DirBuilder::new().mode(0o700).create(&temporary).map_err(Error::file("make", &temporary))?;
    let result = match arrive(label, part.then(rest), expected, &temporary, place.devices()) {
        Ok(arrived) => publish(place, claim, part, &temporary, &arrived).map(|()| arrived),
        // What came is right as far as it goes.
        Err(error) if error.is_interruption() => part.leave().and(Err(error)),
        Err(error) => part.discard().and(Err(error)),
    };
    // After success it is only what another was faster with.
    let removed = remove_tree(&temporary);
    result.and_then(|arrived| removed.map(|()| arrived))
}

/// Unpacks a blob below `temporary`.
fn arrive(
    label: &str,
    blob: impl Read + Send,
    expected: &Expected,
    temporary: &Path,
    devices: Devices,
) -> Result<Arrived, Error> {
    let above = Root::open(temporary).map_err(Error::file("open", temporary))?;
    let (limit, most, hasher) = match &expected.blob {
        None => (LAYER_BYTES_MAX, u64::MAX, Hasher::sha256()),
        Some((digest, size)) => (expansion_limit(*size), size.saturating_add(1), Hasher::new(digest)),
    };
    let mut blob = Hashing::new(blob.take(most), hasher);
    let diff_hasher = expected.diff_id.as_ref().map_or_else(Hasher::sha256, Hasher::new);

    let (sender, pieces) = inflate::way();
    let unpacked = thread::scope(|scope| {
        let inflating = thread::Builder::new().spawn_scoped(scope, || inflate::inflate(&mut blob, limit, sender));
        let inflating = inflating.map_err(|source| UnpackError::Keep { source })?;
        let archive = Hashing::new(pieces, diff_hasher);
        let unpacked =
            unpack(archive, above.folder(), OsStr::new(TREE), devices).and_then(|(mut archive, unpacked)| {
                // What comes after the archive's end belongs to the digests too.
                io::copy(&mut archive, &mut io::sink()).map_err(|source| UnpackError::Read { source })?;
                Ok((archive.finish().0, unpacked))
            });
        let ended = |_| UnpackError::Read { source: io::Error::other("inflating it ended in a panic") };
        let compression = inflating.join().map_err(ended);
        let (diff_id, unpacked) = unpacked?;
        Ok((diff_id, compression?, unpacked))
    });
    let (diff_id, compression, unpacked) = match unpacked.map_err(innermost) {
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
    let (blob, size) = check_blob(label, blob, expected)?;
    if let Some(wanted) = expected.diff_id.as_ref().filter(|wanted| **wanted != diff_id) {
        let what = format!("the archive in layer {label}");
        return Err(Error::Mismatch { what, expected: wanted.to_string(), got: diff_id.to_string() });
    }
    if unpacked.devices > 0 {
        tracing::warn!(layer = label, devices = unpacked.devices, "device files in a layer were left out");
    }
    Ok(Arrived { diff_id, blob, size, compression, unpacked })
}

/// Compares a blob that was read to its end with what it should be, and gives its digest and size.
fn check_blob(label: &str, blob: Hashing<impl Read>, expected: &Expected) -> Result<(Digest, u64), Error> {
    let (digest, size) = blob.finish();
    let Some((wanted, wanted_size)) = &expected.blob else { return Ok((digest, size)) };
    let what = format!("layer {label}");
    match size.cmp(wanted_size) {
        std::cmp::Ordering::Equal if digest == *wanted => Ok((digest, size)),
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
        UnpackError::Entry { .. }
        | UnpackError::Write { .. }
        | UnpackError::Keep { .. }
        | UnpackError::Limit { .. } => false,
    }
}

/// A blob that stopped coming.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TransferFailed(pub(crate) String);

fn publish(place: &Place, claim: &Claim, part: Part, temporary: &Path, arrived: &Arrived) -> Result<(), Error> {
    let write = |name: &str, content: &[u8]| {
        let path = temporary.join(name);
        fs::write(&path, content).map_err(Error::file("write", path))
    };
    let unpacked = &arrived.unpacked;
    write(IMPLICIT, &ended(&unpacked.implicit))?;
    if !unpacked.links.is_empty() {
        write(LINKS, &ended(unpacked.links.iter().flat_map(|(name, target)| [name, target])))?;
    }
    if !unpacked.hiding.is_empty() {
        write(HIDING, &ended(&unpacked.hiding))?;
    }
    let media_type = match arrived.compression {
        Compression::None | Compression::Other(_) => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    };
    let blob = json!({ "mediaType": media_type, "digest": arrived.blob.to_string(), "size": arrived.size });
    write(NOTE, json!({ "blob": blob, "bytes": unpacked.bytes }).to_string().as_bytes())?;
    write(UNWRITTEN, boot_id()?.as_bytes())?;
    write(UNCLAIMED, b"")?;
    // A sweep between the blob and its layer would take the blob for one that nobody needs.
    let lease = place.lease()?;
    claim.add([&arrived.diff_id], &lease)?;
    part.publish(place, &arrived.blob)?;
    let target = place.layer(&arrived.diff_id);
    match fs::rename(temporary, &target) {
        Err(_) if is_present(place, &arrived.diff_id) => Ok(()),
        other => other.map_err(Error::file("publish", target)),
    }
}

/// Paths in a row, each ended by a NUL.
fn ended<'p>(paths: impl IntoIterator<Item = &'p Vec<u8>>) -> Vec<u8> {
    paths.into_iter().flat_map(|path| path.iter().copied().chain([0])).collect()
}

/// What a blob of that many bytes may grow to.
pub(crate) fn expansion_limit(blob: u64) -> u64 {
    blob.saturating_mul(EXPANSION_MAX).clamp(EXPANSION_FREE_BYTES, LAYER_BYTES_MAX)
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

/// Notes that an image has this layer; `name` is its folder's. A mark that stays only lets the layer stay longer.
pub(crate) fn note_claimed(place: &Place, name: &str) {
    let _ = fs::remove_file(place.layers().join(name).join(UNCLAIMED));
}

/// Marks all layers as if they had just come: nobody knows any more which images they are of.
pub(crate) fn note_unclaimed(place: &Place) -> Result<(), Error> {
    for name in names(&place.layers())? {
        let mark = place.layers().join(name).join(UNCLAIMED);
        fs::write(&mark, "").map_err(Error::file("write", mark))?;
    }
    Ok(())
}

/// Whether a layer came lately and no image has it yet.
pub(crate) fn is_left_over(place: &Place, name: &str) -> bool {
    let mark = place.layers().join(name).join(UNCLAIMED);
    mark.exists() && !is_old(&mark)
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
    fn small_blobs_may_grow_and_large_ones_by_a_ratio() {
        assert_eq!(expansion_limit(100), EXPANSION_FREE_BYTES);
        assert_eq!(expansion_limit(100 << 20), (100 << 20) * EXPANSION_MAX);
        assert_eq!(expansion_limit(u64::MAX), LAYER_BYTES_MAX);
    }
}
