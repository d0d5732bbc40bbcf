//! From the pods' workers to the master: one task that keeps the newest status of each pod, sends what changed, and
//! deletes the objects of pods that have ended.
//!
//! It holds nothing that could be lost: a status that was not sent is kept until it is, and after a restart the workers
//! make all of them again.

pub(crate) mod patch;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use berth_api::backoff::Curve;
use berth_api::id::PodUid;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::write::{Known, Outcome, write};
use crate::pod::StatusUpdate;
use crate::source::mirror::{self, Mirrors};

/// How many updates wait in the queue; workers wait when it is full.
pub(crate) const QUEUE_MAX: usize = 1024;
/// How many writes are under way at once.
const WRITES_MAX: usize = 16;
/// The pause after writes that failed.
const RETRY: Curve = Curve { first: Duration::from_millis(500), most: Duration::from_secs(10) };

/// The newest status of one pod, on its way.
struct Pending {
    update: StatusUpdate,
    failures: u32,
    not_before: Instant,
}

/// Writes statuses. Without a client, takes and forgets them.
pub(crate) struct StatusWriter {
    client: Option<Client>,
    updates: mpsc::Receiver<StatusUpdate>,
    mirrors: watch::Receiver<Arc<Mirrors>>,
    pending: HashMap<PodUid, Pending>,
    /// What the master has, for pods that are not gone.
    known: HashMap<PodUid, Known>,
    writes: JoinSet<(PodUid, StatusUpdate, u32, Outcome)>,
    under_way: HashSet<PodUid>,
    /// The newest status of each static pod: written again when its mirror is another object.
    statics: HashMap<PodUid, StatusUpdate>,
}

impl StatusWriter {
    /// `mirrors` are the objects that stand for static pods.
    pub(crate) fn new(
        client: Option<Client>,
        updates: mpsc::Receiver<StatusUpdate>,
        mirrors: watch::Receiver<Arc<Mirrors>>,
    ) -> Self {
        Self {
            client,
            updates,
            mirrors,
            pending: HashMap::new(),
            known: HashMap::new(),
            writes: JoinSet::new(),
            under_way: HashSet::new(),
            statics: HashMap::new(),
        }
    }

    /// Runs until the workers are gone.
    pub(crate) async fn run(mut self) {
        loop {
            self.start_writes();
            let wake_at = self.pending.values().map(|pending| pending.not_before).min();
            let wake_at = wake_at.filter(|at| *at > Instant::now());
            tokio::select! {
                update = self.updates.recv() => match update {
                    Some(update) => self.take(update),
                    None => return,
                },
                Some(done) = self.writes.join_next() => match done {
                    Ok((uid, update, failures, outcome)) => self.finish(uid, update, failures, outcome),
                    Err(error) => tracing::error!(%error, "a status write was lost"),
                },
                Ok(()) = self.mirrors.changed() => self.write_to_new_mirrors(),
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
        }
    }

    fn take(&mut self, update: StatusUpdate) {
        if self.client.is_none() {
            return;
        }
        let Ok(uid) = PodUid::try_from(update.pod.uid().unwrap_or_default()) else { return };
        if mirror::is_static(&update.pod) {
            if update.finished {
                self.statics.remove(&uid);
            } else {
                self.statics.insert(uid.clone(), update.clone());
            }
        }
        let failures = self.pending.get(&uid).map_or(0, |pending| pending.failures);
        let not_before = self.pending.get(&uid).map_or_else(Instant::now, |pending| pending.not_before);
        self.pending.insert(uid, Pending { update, failures, not_before });
    }

    fn write_to_new_mirrors(&mut self) {
        let mirrors = Arc::clone(&self.mirrors.borrow_and_update());
        for (uid, update) in &self.statics {
            let mirror_uid = mirrors.of(&update.pod).and_then(|mirror| mirror.uid());
            let is_new = self.known.get(uid).is_none_or(|known| known.target_uid != mirror_uid);
            if mirror_uid.is_some() && is_new && !self.under_way.contains(uid) {
                let pending = Pending { update: update.clone(), failures: 0, not_before: Instant::now() };
                self.pending.entry(uid.clone()).or_insert(pending);
            }
        }
    }

    /// Starts what may start: one write per pod at a time, and only so many in all.
    fn start_writes(&mut self) {
        let Some(client) = self.client.clone() else { return };
        let now = Instant::now();
        let mirrors = Arc::clone(&self.mirrors.borrow_and_update());
        let lacks_mirror = |pod: &Pod| mirror::is_static(pod) && mirrors.of(pod).is_none();
        // A static pod that is gone, and its mirror too: nobody is left to be told.
        self.pending.retain(|_, pending| !(pending.update.finished && lacks_mirror(&pending.update.pod)));
        let ready = self.pending.iter().filter(|(uid, pending)| {
            pending.not_before <= now && !self.under_way.contains(*uid) && !lacks_mirror(&pending.update.pod)
        });
        let free = WRITES_MAX.saturating_sub(self.writes.len());
        let ready: Vec<PodUid> = ready.map(|(uid, _)| uid.clone()).take(free).collect();
        for uid in ready {
            let Some(Pending { update, failures, .. }) = self.pending.remove(&uid) else { continue };
            let known = self.known.get(&uid).cloned();
            let target = mirrors.of(&update.pod).cloned().unwrap_or_else(|| Arc::clone(&update.pod));
            let client = client.clone();
            self.under_way.insert(uid.clone());
            self.writes.spawn(async move {
                let outcome = write(&client, &target, &update, known).await;
                (uid, update, failures, outcome)
            });
        }
    }

    fn finish(&mut self, uid: PodUid, update: StatusUpdate, failures: u32, outcome: Outcome) {
        self.under_way.remove(&uid);
        match outcome {
            Outcome::Written(known) => {
                self.known.insert(uid, known);
            }
            Outcome::Gone => {
                self.known.remove(&uid);
            }
            Outcome::Failed => {
                self.known.remove(&uid);
                let not_before = Instant::now() + RETRY.delay(failures + 1);
                // A newer status that came meanwhile stands for this one too.
                let pending = self.pending.entry(uid).or_insert(Pending { update, failures, not_before });
                pending.failures = failures + 1;
                pending.not_before = not_before;
            }
        }
    }
}
