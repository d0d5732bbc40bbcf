//! Which sandbox is whose: so that the engine's news wakes one worker and not all.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_api::id::PodUid;
use berth_engine::SandboxId;

/// Which sandbox is whose.
#[derive(Debug, Default)]
pub(super) struct Routes {
    owners: Mutex<HashMap<SandboxId, PodUid>>,
}

impl Routes {
    /// A sandbox is this pod's.
    pub(super) fn add(&self, id: SandboxId, uid: &PodUid) {
        self.lock().insert(id, uid.clone());
    }

    /// A sandbox is no more.
    pub(super) fn remove(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    /// Whose a sandbox is.
    pub(super) fn owner(&self, id: &SandboxId) -> Option<PodUid> {
        self.lock().get(id).cloned()
    }

    /// A pod's sandboxes, in no order.
    pub(super) fn of(&self, uid: &PodUid) -> Vec<SandboxId> {
        self.lock().iter().filter(|(_, owner)| *owner == uid).map(|(id, _)| id.clone()).collect()
    }

    /// All pods that have a sandbox.
    pub(super) fn owners(&self) -> Vec<PodUid> {
        self.lock().values().cloned().collect()
    }

    /// A panic of a former holder has left the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, PodUid>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
