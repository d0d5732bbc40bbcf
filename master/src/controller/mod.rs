//! The controllers: each a pure plan over one view of the cluster, all driven by one loop. Ordinary API clients.
//!
//! ```text
//!  watches ──▶ observe ──▶ plan: node_ipam, node_life, namespace, service_account, pod_gc ──▶ apply ──▶ API
//! ```
//!
//! Nothing is remembered that a restart must not lose: what the view holds beyond the watches are times at which this
//! process first saw something, and they start again.

mod action;
mod apply;
mod namespace;
mod node_ipam;
mod node_life;
mod observe;
mod pod_gc;
mod service_account;

use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use action::Plan;
use apply::Applier;
use observe::{Observer, World};

/// How long the next pass waits at first when the API refused something, and at most.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Changes often come together; so long they are waited for.
const SETTLE: Duration = Duration::from_millis(10);

/// Runs all controllers until stopped. Node pod networks are cut from `cluster_cidr`.
pub async fn run(client: Client, cluster_cidr: IpNetwork, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = control(client, cluster_cidr) => {}
    }
}

async fn control(client: Client, cluster_cidr: IpNetwork) {
    let changed = Arc::new(Notify::new());
    // Dropped, and so ended, with this future.
    let mut tasks = JoinSet::new();
    let Ok(mut observer) = Observer::start(&mut tasks, &client, &changed).await else {
        tracing::error!("the controllers' watches ended");
        return;
    };
    let applier = Applier::new(client);
    let mut retry_after = RETRY_AFTER_MIN;
    loop {
        let now = Timestamp::now();
        let (plan, mut has_failed) = match observer.observe(now).await {
            Ok(world) => (plan(&world, cluster_cidr, now), false),
            Err(error) => {
                tracing::warn!(%error, "cannot see what namespaces hold, trying again");
                (Plan::default(), true)
            }
        };
        let wake_at = plan.wake_at;
        let applied = applier.apply(plan.actions).await;
        has_failed |= applied.has_failed;
        applied.networks.into_iter().for_each(|(node, network)| observer.assume(node, network));

        let wait = if has_failed {
            retry_after = (retry_after * 2).min(RETRY_AFTER_MAX);
            Some(retry_after)
        } else {
            retry_after = RETRY_AFTER_MIN;
            wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or(RETRY_AFTER_MIN))
        };
        match wait {
            Some(wait) => {
                let _elapsed = tokio::time::timeout(wait, changed.notified()).await;
            }
            None => changed.notified().await,
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// What all controllers want done.
fn plan(world: &World, cluster_cidr: IpNetwork, now: Timestamp) -> Plan {
    let mut all = Plan::default();
    for plan in [
        node_ipam::plan(world, cluster_cidr),
        node_life::plan(world, now),
        namespace::plan(world, now),
        service_account::plan(world),
        pod_gc::plan(world, now),
    ] {
        all.merge(plan);
    }
    all
}
