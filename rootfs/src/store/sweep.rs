//! What nobody needs any more goes: unfinished things of dead processes, layers and blobs that no image and no snapshot
//! has. Only while nobody works in the store, which each worker's lease tells; else it is left to the next sweep.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use berth_sys::file::is_temporary;

use super::index::{Index, Records};
use super::layer;
use super::place::{Place, names, remove_tree};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::PART_AGE_MAX;
use crate::snapshot;

/// Sweeps, if nobody works in the store; else whoever does will when done.
pub(crate) fn sweep(place: &Place, index: &Index) -> Result<(), Error> {
    let alone = match place.exclusive()? {
        Some(alone) => alone,
        None => {
            want(place)?;
            // Whoever was done just before that saw no wish.
            let Some(alone) = place.exclusive()? else { return Ok(()) };
            alone
        }
    };
    put_aside(place, index)?;
    berth_sys::file::remove(&place.unswept()).map_err(Error::file("remove", place.unswept()))?;
    let doomed = names(&place.temporaries())?;
    // Nobody else knows these names; removing them may take long and must not keep others waiting.
    drop(alone);
    for name in doomed {
        remove_tree(&place.temporaries().join(name))?;
    }
    Ok(())
}

/// Sweeps if somebody wanted to and could not.
pub(crate) fn sweep_if_wanted(place: &Place, index: &Index) -> Result<(), Error> {
    if place.unswept().exists() { sweep(place, index) } else { Ok(()) }
}

/// Lets the next who is done with the store sweep it.
pub(crate) fn want(place: &Place) -> Result<(), Error> {
    let unswept = place.unswept();
    fs::write(&unswept, "").map_err(Error::file("write", unswept))
}

/// Moves what goes to the unfinished things, at once each: no half-removed layer is ever seen.
fn put_aside(place: &Place, index: &Index) -> Result<(), Error> {
    let boot_id = layer::boot_id()?;
    let whole = |name: &str| {
        let folder = place.layers().join(name);
        folder.join(layer::TREE).is_dir() && !layer::is_doubtful(&folder, &boot_id)
    };
    let layers: HashSet<String> = names(&place.layers())?.into_iter().filter(|name| whole(name)).collect();
    index.change(|records| Ok(drop_incomplete(records, &layers)))?;
    let records = index.load()?;
    let used = |digests: &mut dyn Iterator<Item = &String>| -> HashSet<String> {
        digests.filter_map(|digest| digest.parse().ok().map(|digest: Digest| digest.hex().to_owned())).collect()
    };
    let of_snapshots = snapshot::layers_in_use(place)?;
    let layers_used = used(&mut records.images.iter().flat_map(|record| &record.layers).chain(&of_snapshots));
    let mut blobs_used = used(&mut records.images.iter().flat_map(|record| [&record.id, &record.manifest]));
    let blob = |layer: &String| layer::Note::of(place, &layer.parse().ok()?)?.blob.digest().as_ref().parse().ok();
    let of_layers = records.images.iter().flat_map(|record| &record.layers).chain(&of_snapshots).filter_map(blob);
    blobs_used.extend(of_layers.map(|digest: Digest| digest.hex().to_owned()));
    let idle_layer = |name: &String| !(layers.contains(name) && layers_used.contains(name));
    for name in names(&place.layers())?.into_iter().filter(idle_layer) {
        aside(place, place.layers().join(name))?;
    }
    for name in names(&place.blobs())?.into_iter().filter(|name| is_temporary(name) || !blobs_used.contains(name)) {
        aside(place, place.blobs().join(name))?;
    }
    for name in names(&place.uses())?.into_iter().filter(|name| !blobs_used.contains(name)) {
        aside(place, place.uses().join(name))?;
    }
    for name in names(&place.parts())?.into_iter().filter(|name| is_forgotten(&place.parts().join(name))) {
        aside(place, place.parts().join(name))?;
    }
    // A living writer of the index has its lock.
    let _lock = place.index_lock()?;
    for name in names(place.top())?.into_iter().filter(|name| is_temporary(name)) {
        aside(place, place.top().join(name))?;
    }
    Ok(())
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

fn aside(place: &Place, path: PathBuf) -> Result<(), Error> {
    fs::rename(&path, place.temporary()).map_err(Error::file("put aside", path))
}

/// Whether nobody went on with what a pull left of a blob.
fn is_forgotten(part: &Path) -> bool {
    let age = fs::metadata(part).and_then(|status| status.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age > PART_AGE_MAX)
}
