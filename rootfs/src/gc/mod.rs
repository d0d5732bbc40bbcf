//! Collecting images that nobody uses: observe, plan (pure), apply.

mod plan;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use self::plan::{Candidate, Disk, Observed};
pub use self::plan::{GcPolicy, GcReason, Removal, Thresholds};
use crate::digest::Digest;
use crate::error::Error;
use crate::snapshot;
use crate::store::Shared;
use crate::store::index::Record;
use crate::store::layer::Note;
use crate::store::sweep::{self, Leftovers};
use crate::store::worker;

/// What a collection came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The images that went.
    pub removed: Vec<Removal>,
    /// What is still missing for the disk to be as empty as the policy wants it: nothing else may go.
    pub missing_bytes: u64,
}

/// Lets images go as `policy` says. Blocking.
pub(crate) fn collect(store: &Shared, policy: &GcPolicy) -> Result<Collected, Error> {
    let observed = observe(store)?;
    let plan = plan::plan(&observed, policy, Timestamp::now());
    let mut removed = Vec::new();
    for removal in plan.removals {
        if is_gone(store, &observed, &removal.id)? {
            tracing::info!(image = %removal.id, reason = ?removal.reason, bytes = removal.freed_bytes, "an image goes");
            removed.push(removal);
        }
    }
    let needed = policy.untagged || plan.missing_bytes > 0;
    sweep::sweep(&store.place, &store.index, if needed { Leftovers::Remove } else { Leftovers::Keep })?;
    Ok(Collected { removed, missing_bytes: plan.missing_bytes })
}

/// Forgets an image, unless somebody used it since it was looked at. Whoever is about to mount it is waited for.
fn is_gone(store: &Shared, observed: &Observed, id: &str) -> Result<bool, Error> {
    let Some(_alone) = store.place.exclusive()? else { return Ok(false) };
    let seen = observed.images.iter().find(|image| image.id == id).map(|image| image.last_used);
    store.index.change(|records| {
        let now = records.images.iter().find(|record| record.id == id).map(|record| last_used(store, record));
        let used = now > seen || snapshot::images_in_use(&store.place)?.contains(id);
        Ok(!used && records.remove_unpinned(id))
    })
}

fn last_used(store: &Shared, record: &Record) -> Timestamp {
    store.place.last_used(&record.id).unwrap_or(record.created_at).max(record.created_at)
}

fn observe(store: &Shared) -> Result<Observed, Error> {
    let top = store.place.top();
    let disk = statvfs(top).map_err(|errno| Error::file("look at the disk of", top)(errno.into()))?;
    let (block, total, available) = (disk.fragment_size(), disk.blocks(), disk.blocks_available());
    let in_use = snapshot::images_in_use(&store.place)?;
    let mut held: HashSet<String> = snapshot::layers_in_use(&store.place)?.into_iter().collect();
    held.extend(worker::claims(&store.place)?.into_iter().map(|hex| format!("sha256:{hex}")));
    let records = store.index.load()?;
    let mut layer_bytes = HashMap::new();
    for layer in records.images.iter().flat_map(|record| &record.layers) {
        let note = layer.parse().ok().and_then(|digest: Digest| Note::of(&store.place, &digest));
        layer_bytes.insert(layer.clone(), note.map_or(0, |note| note.bytes.saturating_add(note.blob.size())));
    }
    let image = |record: Record| Candidate {
        last_used: last_used(store, &record),
        is_tagged: !record.tags.is_empty(),
        pinned: record.pinned,
        in_use: in_use.contains(&record.id),
        layers: record.layers,
        id: record.id,
    };
    Ok(Observed {
        images: records.images.into_iter().map(image).collect(),
        held,
        layer_bytes,
        disk: Disk { capacity_bytes: total.saturating_mul(block), available_bytes: available.saturating_mul(block) },
    })
}
