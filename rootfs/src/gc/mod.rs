//! Collecting images that nobody uses: observe, plan (pure), apply.

mod plan;

use std::collections::HashMap;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use self::plan::{Candidate, Disk, Observed};
pub use self::plan::{GcPolicy, GcReason, Removal, Thresholds};
use crate::digest::Digest;
use crate::error::Error;
use crate::snapshot;
use crate::store::Shared;
use crate::store::layer::Note;
use crate::store::sweep;

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
    let plan = plan::plan(&observe(store)?, policy, Timestamp::now());
    let mut removed = Vec::new();
    for removal in plan.removals {
        // A container may have begun to use it since it was looked at.
        let gone = store.index.change(|records| {
            let used = snapshot::images_in_use(&store.place)?.contains(&removal.id);
            Ok(!used && records.remove_unpinned(&removal.id))
        })?;
        if gone {
            tracing::info!(image = %removal.id, reason = ?removal.reason, bytes = removal.freed_bytes, "an image goes");
            removed.push(removal);
        }
    }
    sweep::sweep(&store.place, &store.index)?;
    Ok(Collected { removed, missing_bytes: plan.missing_bytes })
}

fn observe(store: &Shared) -> Result<Observed, Error> {
    let top = store.place.top();
    let disk = statvfs(top).map_err(|errno| Error::file("look at the disk of", top)(errno.into()))?;
    let (block, total, available) = (disk.fragment_size(), disk.blocks(), disk.blocks_available());
    let in_use = snapshot::images_in_use(&store.place)?;
    let records = store.index.load()?;
    let mut layer_bytes = HashMap::new();
    for layer in records.images.iter().flat_map(|record| &record.layers) {
        let note = layer.parse().ok().and_then(|digest: Digest| Note::of(&store.place, &digest));
        layer_bytes.insert(layer.clone(), note.map_or(0, |note| note.bytes.saturating_add(note.blob.size())));
    }
    let image = |record: crate::store::index::Record| Candidate {
        last_used: store.place.last_used(&record.id).unwrap_or(record.created_at).max(record.created_at),
        is_tagged: !record.tags.is_empty(),
        pinned: record.pinned,
        in_use: in_use.contains(&record.id),
        layers: record.layers,
        id: record.id,
    };
    Ok(Observed {
        images: records.images.into_iter().map(image).collect(),
        held: snapshot::layers_in_use(&store.place)?.into_iter().collect(),
        layer_bytes,
        disk: Disk { capacity_bytes: total.saturating_mul(block), available_bytes: available.saturating_mul(block) },
    })
}
