//! Gives every pod a node: observe, plan, bind. An ordinary API client.
//!
//! ```text
//!  watches ──▶ observe ──▶ plan (pure) ──▶ bind ──▶ API
//!     ▲                                              │
//!     └──────────── the next change wakes it ◀───────┘
//! ```
//!
//! Every change of a pod or a node starts a pass over the pods that have no node, so that what did not fit is tried
//! again exactly when something may have changed.

mod bind;
mod fit;
mod observe;
mod plan;
mod room;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::follow::follow;
use bind::Binder;
use observe::Observer;

/// The scheduler that pods are given to unless they name another one.
const SCHEDULER_NAME: &str = "default-scheduler";
/// How long the next pass waits when the API refused something.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Schedules until stopped.
pub async fn run(client: Client, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = schedule(client) => {}
    }
}

async fn schedule(client: Client) {
    let changed = Arc::new(Notify::new());
    // Dropped, and so ended, with this future.
    let mut tasks = JoinSet::new();
    let pods = follow(&mut tasks, Api::<Pod>::all(client.clone()), changed.clone());
    let nodes = follow(&mut tasks, Api::<Node>::all(client.clone()), changed.clone());
    if pods.wait_until_ready().await.is_err() || nodes.wait_until_ready().await.is_err() {
        tracing::error!("the scheduler's watches ended");
        return;
    }
    let mut observer = Observer::new(pods, nodes);
    let binder = Binder::new(client);
    loop {
        let decisions = plan::plan(&observer.observe());
        let outcome = binder.carry_out(decisions).await;
        outcome.bound.into_iter().for_each(|(uid, node)| observer.assume(uid, node));
        if outcome.has_failed {
            let _elapsed = tokio::time::timeout(RETRY_AFTER, changed.notified()).await;
        } else {
            changed.notified().await;
        }
    }
}
