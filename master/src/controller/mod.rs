//! The controllers: each a pure plan, all driven by one loop. Ordinary API clients.

use ipnetwork::IpNetwork;
use tokio_util::sync::CancellationToken;

/// Runs all controllers until stopped. Node pod networks are cut from `cluster_cidr`.
pub async fn run(_client: kube::Client, _cluster_cidr: IpNetwork, stop: CancellationToken) {
    stop.cancelled().await;
}
