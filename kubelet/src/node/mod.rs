//! The node as the master knows it: its Node object, its Lease, and the pod range that the master gives it.
//!
//! One task with one clock: each beat renews the lease and looks whether the status has changed. Between beats it sleeps,
//! unless the master changes the Node.

mod lease;
mod life;
mod machine;
mod register;
mod status;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use berth_engine::{Engine, PodNetwork};
use futures::StreamExt;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::life::Life;
use self::machine::Machine;
use crate::config::Config;
use crate::recorder::{EventType, Recorder};

/// How often a lease is renewed while it lasts.
const BEATS_PER_LEASE: u32 = 4;
/// The pause before another try while the node is not registered.
const REGISTER_RETRY: Duration = Duration::from_secs(1);
/// The pause before another try to set the network of a node without a master.
const NETWORK_RETRY: Duration = Duration::from_secs(5);

/// What a pod may learn about its node (`status.hostIPs`, `resourceFieldRef` without limits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// The node's own addresses, the first one the preferred.
    pub addresses: Vec<IpAddr>,
    /// What all pods together may use: thousandths of a processor.
    pub allocatable_cpu_millis: u64,
    /// What all pods together may use: bytes of memory.
    pub allocatable_memory_bytes: u64,
}

/// The addresses of the node: those that it was told, or else those from which the machine reaches others.
pub fn node_addresses(config: &Config) -> Vec<IpAddr> {
    if config.node_ips.is_empty() { machine::addresses() } else { config.node_ips.clone() }
}

/// The node's own side of it.
pub(crate) struct NodeAgent {
    config: Arc<Config>,
    engine: Engine,
    recorder: Recorder,
    machine: Machine,
    addresses: Vec<IpAddr>,
}

impl NodeAgent {
    /// Looks at the machine.
    pub(crate) fn new(config: Arc<Config>, engine: Engine, recorder: Recorder) -> std::io::Result<Self> {
        let machine = Machine::read(&config.state_dir)?;
        let addresses = node_addresses(&config);
        Ok(Self { config, engine, recorder, machine, addresses })
    }

    /// What pods may learn.
    pub(crate) fn facts(&self) -> NodeFacts {
        let allocatable = status::allocatable(&self.config, &self.machine);
        NodeFacts {
            addresses: self.addresses.clone(),
            allocatable_cpu_millis: allocatable.cpu_millis,
            allocatable_memory_bytes: allocatable.memory_bytes,
        }
    }

    /// Sets the pod network that the configuration names, for a node without a master, and stays.
    pub(crate) async fn run_alone(self) {
        while !self.config.pod_cidrs.is_empty() && !self.set_network(&self.config.pod_cidrs).await {
            sleep(NETWORK_RETRY).await;
        }
        std::future::pending().await
    }

    async fn set_network(&self, pod_cidrs: &[IpNetwork]) -> bool {
        tracing::info!(ranges = ?pod_cidrs, bridge = self.config.bridge, "pod network");
        let network = PodNetwork { bridge: self.config.bridge.clone(), pod_cidrs: pod_cidrs.to_vec(), mtu: None };
        let result = self.engine.set_pod_network(network).await;
        if let Err(error) = &result {
            tracing::error!(%error, "the pod network cannot be set; trying on");
        }
        result.is_ok()
    }

    /// Keeps the Node and its Lease for ever.
    pub(crate) async fn run(self, client: Client) {
        self.recorder.node_event(
            &self.config.node_name,
            EventType::Normal,
            "Starting",
            format!("berth {} starts", env!("CARGO_PKG_VERSION")),
        );
        let watch_config = watcher::Config::default().fields(&format!("metadata.name={}", self.config.node_name));
        let mut changes = pin!(watcher(Api::<Node>::all(client.clone()), watch_config).default_backoff());
        let mut beat = interval(self.config.lease_duration / BEATS_PER_LEASE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut life = Life::new(&self, client);
        let mut is_listed = false;
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    if !life.beat().await {
                        beat.reset_after(REGISTER_RETRY);
                    }
                }
                Some(change) = changes.next() => match change {
                    Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => {
                        is_listed = true;
                        if life.take(node) {
                            beat.reset_immediately();
                        }
                    }
                    Ok(watcher::Event::Delete(_)) => life.lost(),
                    Ok(watcher::Event::Init) => is_listed = false,
                    // Deleted while nobody watched.
                    Ok(watcher::Event::InitDone) if !is_listed && life.is_registered() => life.lost(),
                    Ok(watcher::Event::InitDone) => {}
                    Err(error) => tracing::debug!(%error, "watch of this node failed"),
                },
            }
        }
    }
}
