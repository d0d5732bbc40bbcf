//! The Node on the master, kept: registered, its lease renewed, its status told when it is news or due.

use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, timeout};

use super::machine::Readings;
use super::status::{self, Facts};
use super::{NodeAgent, lease, register};
use crate::recorder::EventType;
use crate::status::patch::{Lists, difference};

/// How long the master has for one beat.
const BEAT_DEADLINE: Duration = Duration::from_secs(8);

/// What the task knows.
pub(super) struct Life<'a> {
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

impl<'a> Life<'a> {
    /// Nothing is known yet.
    pub(super) fn new(agent: &'a NodeAgent, client: Client) -> Self {
        let ranges = agent.config.pod_cidrs.clone();
        Self { agent, client, node: None, written_at: None, ranges, in_force: None }
    }

    /// Whether the master is known to have the Node.
    pub(super) fn is_registered(&self) -> bool {
        self.node.is_some()
    }

    /// Takes in a version of the Node from the master; says whether there is something to do about it.
    pub(super) fn take(&mut self, node: Node) -> bool {
        let is_new = self.choose_ranges(pod_ranges(&node));
        // A Node of that name that is another is registered anew, with its status.
        let is_another = self.node.as_ref().is_some_and(|known| known.uid() != node.uid());
        if is_another {
            self.node = None;
        } else if self.node.as_ref().is_some_and(|known| version(&node) >= version(known)) {
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
    pub(super) fn lost(&mut self) {
        tracing::warn!(
            node = self.agent.config.node_name,
            "the Node was deleted on the master; it is registered again"
        );
        self.node = None;
    }

    /// One beat: registered, lease renewed, status as it is. Says whether the node is registered.
    pub(super) async fn beat(&mut self) -> bool {
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

/// Versions of one master are numbers that grow: what the watch tells may be older than what a write was answered with.
fn version(node: &Node) -> Option<u64> {
    node.resource_version()?.parse().ok()
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
