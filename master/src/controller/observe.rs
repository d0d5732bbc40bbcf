//! One view of the cluster for all controllers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::WriterDropped;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::action::KindRef;
use crate::follow::follow;
use crate::resource::{Kind, kinds};

/// Where the leases of nodes are.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What plans are made from.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) namespaces: Vec<Arc<Namespace>>,
    /// Namespace and name.
    pub(super) service_accounts: BTreeSet<(String, String)>,
    /// When each node was last heard of, by the clock of this process.
    pub(super) heard_of: BTreeMap<String, Timestamp>,
    /// Since when pods have been on nodes that do not exist.
    pub(super) missing_since: BTreeMap<String, Timestamp>,
    /// Networks that were given but have not come back by the watch yet.
    pub(super) assumed_networks: BTreeMap<String, IpNetwork>,
    /// What the namespaces hold that are going away.
    pub(super) contents: BTreeMap<String, Vec<KindRef>>,
}

/// Sees the cluster through watches, and remembers when it first saw what.
pub(super) struct Observer {
    client: Client,
    nodes: Store<Node>,
    pods: Store<Pod>,
    namespaces: Store<Namespace>,
    service_accounts: Store<ServiceAccount>,
    leases: Store<Lease>,
    /// The last renewal of each node's lease, and when it was seen here: clocks of machines differ.
    renewals: BTreeMap<String, (Option<Timestamp>, Timestamp)>,
    missing_since: BTreeMap<String, Timestamp>,
    assumed_networks: BTreeMap<String, IpNetwork>,
}

impl Observer {
    /// Starts the watches and waits until they have seen everything once.
    pub(super) async fn start(
        tasks: &mut JoinSet<()>,
        client: &Client,
        changed: &Arc<Notify>,
    ) -> Result<Self, WriterDropped> {
        let observer = Self {
            nodes: follow(tasks, Api::all(client.clone()), changed.clone()),
            pods: follow(tasks, Api::all(client.clone()), changed.clone()),
            namespaces: follow(tasks, Api::all(client.clone()), changed.clone()),
            service_accounts: follow(tasks, Api::all(client.clone()), changed.clone()),
            leases: follow(tasks, Api::namespaced(client.clone(), LEASE_NAMESPACE), changed.clone()),
            client: client.clone(),
            renewals: BTreeMap::new(),
            missing_since: BTreeMap::new(),
            assumed_networks: BTreeMap::new(),
        };
        observer.nodes.wait_until_ready().await?;
        observer.pods.wait_until_ready().await?;
        observer.namespaces.wait_until_ready().await?;
        observer.service_accounts.wait_until_ready().await?;
        observer.leases.wait_until_ready().await?;
        Ok(observer)
    }

    /// Remembers a node's network until the watch shows it.
    pub(super) fn assume(&mut self, node: String, network: IpNetwork) {
        self.assumed_networks.insert(node, network);
    }

    /// The cluster as it is now. Only what namespaces hold that are going away must be asked for.
    pub(super) async fn observe(&mut self, now: Timestamp) -> Result<World, kube::Error> {
        let mut world = World {
            nodes: self.nodes.state(),
            pods: self.pods.state(),
            namespaces: self.namespaces.state(),
            ..World::default()
        };
        world.nodes.sort_by_key(|node| node.name_any());
        let accounts = self.service_accounts.state();
        world.service_accounts = accounts.iter().map(|a| (a.namespace().unwrap_or_default(), a.name_any())).collect();
        self.listen(&mut world, now);
        self.miss(&mut world, now);
        let waits = |name: &str| {
            world.nodes.iter().any(|n| n.name_any() == name && n.spec.as_ref().is_none_or(|s| s.pod_cidr.is_none()))
        };
        self.assumed_networks.retain(|name, _| waits(name));
        world.assumed_networks.clone_from(&self.assumed_networks);
        for namespace in &world.namespaces {
            if namespace.metadata.deletion_timestamp.is_some() {
                let name = namespace.name_any();
                world.contents.insert(name.clone(), contents(&self.client, &name).await?);
            }
        }
        Ok(world)
    }

    /// Notes which nodes have renewed their lease since last time.
    fn listen(&mut self, world: &mut World, now: Timestamp) {
        let leases = self.leases.state();
        let mut renewals = BTreeMap::new();
        for node in &world.nodes {
            let name = node.name_any();
            let lease = leases.iter().find(|lease| lease.name_any() == name);
            let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref()).map(|time| time.0);
            let seen = match self.renewals.get(&name) {
                Some((before, seen)) if *before == renewed => *seen,
                _ => now,
            };
            world.heard_of.insert(name.clone(), seen);
            renewals.insert(name, (renewed, seen));
        }
        self.renewals = renewals;
    }

    /// Notes since when nodes have been missing that pods are bound to.
    fn miss(&mut self, world: &mut World, now: Timestamp) {
        let nodes: BTreeSet<String> = world.nodes.iter().map(|node| node.name_any()).collect();
        let wanted = world.pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
        let missing: BTreeSet<String> = wanted.filter(|name| !name.is_empty() && !nodes.contains(name)).collect();
        let since = |name: String| {
            let since = self.missing_since.get(&name).copied().unwrap_or(now);
            (name, since)
        };
        self.missing_since = missing.into_iter().map(since).collect();
        world.missing_since.clone_from(&self.missing_since);
    }
}

/// The kinds of which a namespace holds at least one object.
async fn contents(client: &Client, namespace: &str) -> Result<Vec<KindRef>, kube::Error> {
    let mut found = Vec::new();
    for kind in kinds().iter().filter(|kind| kind.namespaced) {
        let one = ListParams::default().limit(1);
        if !api(client, kind, namespace).list_metadata(&one).await?.items.is_empty() {
            found.push(KindRef(kind));
        }
    }
    Ok(found)
}

/// The objects of any kind in a namespace.
pub(super) fn api(client: &Client, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}
