//! The node as the master knows it: its Node object, its Lease, and the pod range that the master gives it.
//!
//! One task with one clock: each beat renews the lease and looks whether the status has changed. Between beats it sleeps,
//! unless the master changes the Node.

mod lease;
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
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use self::machine::{Machine, Readings};
use self::status::Facts;
use crate::config::Config;
use crate::recorder::{EventType, Recorder};
use crate::status::patch::{Lists, difference};

/// How often a lease is renewed while it lasts.
const BEATS_PER_LEASE: u32 = 4;
/// How long the master has for one beat.
const BEAT_DEADLINE: Duration = Duration::from_secs(8);
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
        let addresses = if config.node_ips.is_empty() { machine::addresses() } else { config.node_ips.clone() };
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
        let mut life = Life {
            agent: &self,
            client,
            node: None,
            written_at: None,
            ranges: self.config.pod_cidrs.clone(),
            in_force: None,
        };
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
                    Ok(watcher::Event::InitDone) if !is_listed && life.node.is_some() => life.lost(),
                    Ok(watcher::Event::InitDone) => {}
                    Err(error) => tracing::debug!(%error, "watch of this node failed"),
                },
            }
        }
    }
}

/// What the task knows.
struct Life<'a> {
    agent: &'a NodeAgent,
    client: Client,
    /// As the master last had it.
    node: Option<Node>,
    /// When the status was last written.
    written_at: Option<Instant>,
    /// The pod ranges that are to be.
    ranges: Vec<IpNetwork>,
    /// Those that are.
    in_force: Option<Vec<IpNetwork>>,
}

impl Life<'_> {
    /// Takes in a version of the Node from the master; says whether there is something to do about it.
    fn take(&mut self, node: Node) -> bool {
        let is_new = self.choose_ranges(pod_ranges(&node));
        // A Node of that name that is another is registered anew, with its status.
        let is_another = self.node.as_ref().is_some_and(|known| known.uid() != node.uid());
        if is_another {
            self.node = None;
        } else if self.node.is_some() {
            self.node = Some(node);
        }
        is_new || is_another
    }

    /// The configuration's ranges are used if it has some, the master's otherwise. Says whether there are new ones.
    fn choose_ranges(&mut self, given: Vec<IpNetwork>) -> bool {
        let configured = &self.agent.config.pod_cidrs;
        if given.is_empty() || given == self.ranges {
            return false;
        }
        if configured.is_empty() {
            self.ranges = given;
            return true;
        }
        tracing::warn!(master = ?given, ?configured, "the configured pod ranges are used, the master's are not");
        false
    }

    async fn ensure_network(&mut self) {
        let is_set = self.ranges.is_empty() || self.in_force.as_ref() == Some(&self.ranges);
        if !is_set && self.agent.set_network(&self.ranges).await {
            self.in_force = Some(self.ranges.clone());
        }
    }

    /// Somebody deleted the Node. It comes back with the next beat: a node that is to go is stopped first.
    fn lost(&mut self) {
        tracing::warn!(
            node = self.agent.config.node_name,
            "the Node was deleted on the master; it is registered again"
        );
        self.node = None;
    }

    /// One beat: registered, lease renewed, status as it is. Says whether the node is registered.
    async fn beat(&mut self) -> bool {
        self.ensure_network().await;
        let node = match timeout(BEAT_DEADLINE, self.registered()).await {
            Ok(Ok(node)) => node,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot register this node; trying on");
                return false;
            }
            Err(_) => {
                tracing::warn!("cannot register this node: no answer within {BEAT_DEADLINE:?}; trying on");
                return false;
            }
        };
        let uid = node.uid().unwrap_or_default();
        let lease = lease::renew(&self.client, &self.agent.config, &uid, Timestamp::now());
        let status = write_status(self.agent, &self.client, &node, self.written_at);
        let (lease, status) = tokio::join!(timeout(BEAT_DEADLINE, lease), timeout(BEAT_DEADLINE, status));
        tell_failure("lease", lease);
        if let Some(Some(node)) = tell_failure("status of this node", status) {
            self.node = Some(node);
            self.written_at = Some(Instant::now());
        }
        true
    }

    async fn registered(&mut self) -> Result<Node, kube::Error> {
        if let Some(node) = &self.node {
            return Ok(node.clone());
        }
        let node = if self.agent.config.register_node {
            register::register(&self.client, &self.agent.config, &self.agent.machine).await?
        } else {
            Api::<Node>::all(self.client.clone()).get(&self.agent.config.node_name).await?
        };
        self.choose_ranges(pod_ranges(&node));
        self.ensure_network().await;
        self.node = Some(node.clone());
        self.written_at = None;
        Ok(node)
    }
}

/// Writes the status if it is news or due; gives the Node that came back.
async fn write_status(
    agent: &NodeAgent,
    client: &Client,
    node: &Node,
    written_at: Option<Instant>,
) -> Result<Option<Node>, kube::Error> {
    let old = node.status.clone().unwrap_or_default();
    let is_due = written_at.is_none_or(|at| at.elapsed() >= agent.config.status_report_interval);
    let Some(mut facts) = observe(agent).await else { return Ok(None) };
    // Images are news for the master, but not for the sake of which it is told at once.
    let now = Timestamp::now();
    let mut new = status::status(&facts, &old, now);
    new.images.clone_from(&old.images);
    if !is_due && status::same(&old, &new) {
        return Ok(None);
    }
    facts.images = agent.engine.images().await.unwrap_or_default();
    let new = status::status(&facts, &old, now);
    tell_readiness(agent, &old, &new);
    let Some(patch) = status_patch(node, &old, &new) else { return Ok(None) };
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(&agent.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(Some)
}

async fn observe(agent: &NodeAgent) -> Option<Facts<'_>> {
    let readings = match Readings::read(&agent.config.state_dir) {
        Ok(readings) => readings,
        Err(error) => {
            tracing::warn!(%error, "this machine cannot be read");
            return None;
        }
    };
    let not_ready = agent.engine.network_ready().await.err().map(|error| format!("the network is not ready: {error}"));
    let (config, machine, addresses) = (&*agent.config, &agent.machine, &*agent.addresses);
    Some(Facts { config, machine, readings, addresses, not_ready, images: Vec::new() })
}

fn status_patch(node: &Node, old: &NodeStatus, new: &NodeStatus) -> Option<serde_json::Value> {
    let json = |status: &NodeStatus| serde_json::to_value(status).unwrap_or_default();
    let lists = Lists { merged_by_type: &["conditions"], replaced: &["addresses"] };
    let changed = difference(&json(old), &json(new), &lists)?;
    Some(serde_json::json!({ "metadata": { "uid": node.uid() }, "status": changed }))
}

fn tell_readiness(agent: &NodeAgent, old: &NodeStatus, new: &NodeStatus) {
    let name = &agent.config.node_name;
    match (status::is_ready(old), status::is_ready(new)) {
        (before, after) if before == after => {}
        (_, Some(true)) => {
            let message = format!("node {name} is ready");
            agent.recorder.node_event(name, EventType::Normal, "NodeReady", message);
        }
        (_, _) => {
            let message = format!("node {name} is not ready");
            agent.recorder.node_event(name, EventType::Normal, "NodeNotReady", message);
        }
    }
}

fn pod_ranges(node: &Node) -> Vec<IpNetwork> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let ranges = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let mut parsed: Vec<IpNetwork> = Vec::new();
    for range in ranges {
        match range.parse() {
            Ok(range) if !parsed.contains(&range) => parsed.push(range),
            Ok(_) => {}
            Err(error) => tracing::warn!(range, %error, "spec.podCIDRs of this node: not a range"),
        }
    }
    parsed
}

fn tell_failure<T>(what: &str, result: Result<Result<T, kube::Error>, tokio::time::error::Elapsed>) -> Option<T> {
    match result {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "{what} not written; trying on");
            None
        }
        Err(_) => {
            tracing::warn!("{what} not written within {BEAT_DEADLINE:?}; trying on");
            None
        }
    }
}
