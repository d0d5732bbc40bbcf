//! The end of a node: all pods that run here are ended as if nobody wanted them any more, and what they had is freed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use berth_engine::Engine;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::error::Error;
use crate::node::NodeAgent;
use crate::objects::Objects;
use crate::pod::{Workers, World};
use crate::recorder::recorder;
use crate::status::QUEUE_MAX;

/// How long all pods together may take to end; beyond it, who is left is told of.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);

/// How long to wait for news before looking again whether anybody is left: the last news of a pod comes a moment before
/// its worker is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Ends every pod that runs here, with its grace period, and frees what it had. No agent may be running.
///
/// # Errors
/// The machine cannot be looked at, or pods are left after two minutes.
pub async fn drain(config: Config, engine: Engine) -> Result<(), Error> {
    let config = Arc::new(config);
    // Nobody hears of events any more: without their outbox they are dropped.
    let (recorder, _) = recorder();
    let node = NodeAgent::new(Arc::clone(&config), engine.clone(), recorder.clone()).map_err(Error::Machine)?;
    let (_facts, node) = watch::channel(node.facts());
    let (statuses, mut updates) = mpsc::channel(QUEUE_MAX);
    let workers = Workers::new(World { engine, config, statuses, recorder, objects: Objects::new(None), node });
    workers.end_leftovers(&HashSet::new()).await;
    let deadline = Instant::now() + DRAIN_DEADLINE;
    loop {
        let left = workers.pods();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let names = left.iter().filter_map(|(pod, _)| pod.metadata.name.clone()).collect::<Vec<_>>();
            return Err(Error::Left { pods: names.join(", "), waited: DRAIN_DEADLINE });
        }
        // News or not, the look is the same.
        let _ = timeout(LOOK_AGAIN, updates.recv()).await;
    }
}
