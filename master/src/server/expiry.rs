//! Events are told for an hour after they were last written, then forgotten, as in every Kubernetes cluster.

use std::collections::HashMap;

use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::limits::{EVENT_LIFETIME, EVENT_SWEEP_EVERY, LIST_STEP_MAX};
use crate::store::{Key, PageStart, Prefix, Revision, StoreError, Write};

/// When each event was first seen at its revision. After a restart, an event gets its hour anew.
type Seen = HashMap<Key, (Revision, Instant)>;

/// Forgets old events until stopped.
pub(super) async fn run(api: &Api, stop: CancellationToken) {
    let mut seen = Seen::new();
    let mut ticks = interval(EVENT_SWEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match sweep(api, &mut seen, Instant::now()).await {
            Ok(()) | Err(StoreError::Closed) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot forget old events"),
        }
    }
}

async fn sweep(api: &Api, seen: &mut Seen, now: Instant) -> Result<(), StoreError> {
    let prefix = Prefix::new("", "events", None);
    let mut start = PageStart::default();
    let mut still = Seen::new();
    loop {
        let page = api.store.page(&prefix, &start, LIST_STEP_MAX).await?;
        for (key, stored) in page.items {
            start.after = Some(key.clone());
            let since = match seen.get(&key) {
                Some((revision, since)) if *revision == stored.revision => *since,
                _ => now,
            };
            if now.duration_since(since) < EVENT_LIFETIME {
                still.insert(key, (stored.revision, since));
                continue;
            }
            let write = Write::Delete { key, expected: stored.revision, last: stored.text };
            match api.store.write(write).await {
                // Written or deleted meanwhile: the next sweep sees.
                Ok(_) | Err(StoreError::Conflict { .. } | StoreError::Missing { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        if !page.more {
            *seen = still;
            return Ok(());
        }
    }
}
