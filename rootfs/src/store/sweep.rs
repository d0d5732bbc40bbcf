//! What nobody needs any more goes: unfinished things of dead processes, layers and blobs that no image, no snapshot and no
//! living pull has, snapshots of an earlier run of the machine. Done in a moment in which nobody is about to use what seems
//! idle; what is claimed by a worker goes when he is done.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use berth_sys::file::{is_temporary, remove};
use nix::fcntl::{Flock, FlockArg};

use super::index::{Index, Records};
use super::layer;
use super::place::{Place, names};
use super::worker;
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::PART_AGE_MAX;
use crate::snapshot;

/// What becomes of that which a pull that was cut off left: whole layers, and the beginnings of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// The next try is spared them while they are young.
    Keep,
    /// Their room is needed more.
    Remove,
}

/// Sweeps; if others do not let it, whoever ends his work next will.
pub(crate) fn sweep(place: &Place, index: &Index, leftovers: Leftovers) -> Result<(), Error> {
    let swept = match place.exclusive()? {
        Some(_alone) => put_aside(place, index, leftovers)?,
        None => Swept::InPart,
    };
    match swept {
        Swept::Whole => remove(&place.unswept()).map_err(Error::file("remove", place.unswept()))?,
        Swept::InPart => want(place),
    }
    // May take long and must not keep others waiting.
    place.bury()?;
    index.keep_reserve();
    Ok(())
}

/// Sweeps if somebody wanted to and could not.
pub(crate) fn sweep_if_wanted(place: &Place, index: &Index) -> Result<(), Error> {
    if place.unswept().exists() { sweep(place, index, Leftovers::Keep) } else { Ok(()) }
}

/// Lets the next who is done with the store sweep it.
pub(crate) fn want(place: &Place) {
    let unswept = place.unswept();
    if let Err(error) = fs::write(&unswept, "") {
        tracing::warn!(path = %unswept.display(), %error, "what nobody needs any more stays until the store is opened again");
    }
}

/// How far a sweep came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swept {
    Whole,
    /// Somebody who works has something that nobody needs otherwise.
    InPart,
}

/// Takes out of sight what goes, at once each: no half-removed layer is ever seen. The caller is alone.
fn put_aside(place: &Place, index: &Index, leftovers: Leftovers) -> Result<Swept, Error> {
    worker::doom_of_dead(place)?;
    let claimed = worker::claims(place)?;
    snapshot::doom_of_earlier_boots(place)?;
    let boot_id = layer::boot_id()?;
    let whole = |name: &str| {
        let folder = place.layers().join(name);
        folder.join(layer::TREE).is_dir() && !layer::is_doubtful(&folder, &boot_id)
    };
    let layers: HashSet<String> = names(&place.layers())?.into_iter().filter(|name| whole(name)).collect();
    index.change(|records| Ok(drop_incomplete(records, &layers)))?;
    let records = index.load()?;

    let of_snapshots = snapshot::layers_in_use(place)?;
    let used = hexes(records.images.iter().flat_map(|record| &record.layers).chain(&of_snapshots));
    let mut swept = Swept::Whole;
    let mut stays = |name: &str| {
        if used.contains(name) {
            layer::note_claimed(place, name);
            return true;
        }
        if claimed.contains(name) {
            swept = Swept::InPart;
            return true;
        }
        leftovers == Leftovers::Keep && layer::is_left_over(place, name)
    };
    let kept: HashSet<String> = layers.into_iter().filter(|name| stays(name)).collect();
    for name in names(&place.layers())?.iter().filter(|name| !kept.contains(*name)) {
        place.doom(&place.layers().join(name))?;
    }

    let mut blobs = hexes(records.images.iter().flat_map(|record| [&record.id, &record.manifest]));
    let blob = |layer: &String| {
        let note = layer::Note::of(place, &layer.parse().ok()?)?;
        note.blob.digest().as_ref().parse().ok().map(|digest: Digest| digest.hex().to_owned())
    };
    blobs.extend(kept.iter().map(|hex| format!("sha256:{hex}")).filter_map(|layer| blob(&layer)));
    for folder in [place.blobs(), place.uses()] {
        for name in names(&folder)?.iter().filter(|name| !blobs.contains(*name)) {
            place.doom(&folder.join(name))?;
        }
    }
    for name in names(&place.parts())? {
        let part = place.parts().join(name);
        if is_idle(&part) && (leftovers == Leftovers::Remove || is_old(&part)) {
            place.doom(&part)?;
        }
    }
    // A living writer of the index has its lock.
    let _lock = place.index_lock()?;
    for name in names(place.top())?.iter().filter(|name| is_temporary(name)) {
        place.doom(&place.top().join(name))?;
    }
    Ok(swept)
}

/// The names that the store's folders have for digests.
fn hexes<'d>(digests: impl Iterator<Item = &'d String>) -> HashSet<String> {
    digests.filter_map(|digest| digest.parse().ok().map(|digest: Digest| digest.hex().to_owned())).collect()
}

/// Forgets images that lost a layer; true if there was one.
fn drop_incomplete(records: &mut Records, layers: &HashSet<String>) -> bool {
    let before = records.images.len();
    records.images.retain(|record| {
        let has = |digest: &String| digest.parse().is_ok_and(|digest: Digest| layers.contains(digest.hex()));
        let complete = record.layers.iter().all(has);
        if !complete {
            tracing::warn!(image = %record.id, tags = ?record.tags, "forgetting an image that lost a layer");
        }
        complete
    });
    records.images.len() != before
}

/// Whether no pull writes this beginning of a blob.
fn is_idle(part: &Path) -> bool {
    File::open(part).is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok())
}

/// Whether nobody went on for long with what a pull left.
pub(super) fn is_old(leftover: &Path) -> bool {
    let changed = fs::metadata(leftover).and_then(|status| status.modified());
    let age = |changed: std::time::SystemTime| changed.elapsed().unwrap_or(Duration::ZERO);
    changed.is_ok_and(|changed| age(changed) > PART_AGE_MAX)
}
