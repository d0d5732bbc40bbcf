//! Reads the world into a value: nodes, pods that have one, pods that want one.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::pod::is_terminal;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;

use super::SCHEDULER_NAME;

/// What the plan is made from.
#[derive(Debug, Default)]
pub(super) struct World {
    /// All nodes.
    pub(super) nodes: Vec<Arc<Node>>,
    /// Pods that take room, with the name of their node.
    pub(super) placed: Vec<(Arc<Pod>, String)>,
    /// Pods without a node, the most urgent first.
    pub(super) pending: Vec<Arc<Pod>>,
}

/// Sees pods and nodes through their watches, and remembers what was bound but has not come back yet.
pub(super) struct Observer {
    pods: Store<Pod>,
    nodes: Store<Node>,
    assumed: BTreeMap<String, String>,
}

impl Observer {
    pub(super) fn new(pods: Store<Pod>, nodes: Store<Node>) -> Self {
        Self { pods, nodes, assumed: BTreeMap::new() }
    }

    /// Remembers the node of a pod until the watch shows it.
    pub(super) fn assume(&mut self, uid: String, node: String) {
        self.assumed.insert(uid, node);
    }

    pub(super) fn observe(&mut self) -> World {
        let pods = self.pods.state();
        let waiting = |uid: &String| pods.iter().any(|p| p.metadata.uid.as_ref() == Some(uid) && node_of(p).is_none());
        self.assumed.retain(|uid, _| waiting(uid));
        let mut world = World { nodes: self.nodes.state(), ..World::default() };
        for pod in pods {
            let assumed = pod.metadata.uid.as_ref().and_then(|uid| self.assumed.get(uid));
            match node_of(&pod).or(assumed.map(String::as_str)) {
                Some(_) if is_terminal(&pod) => {}
                Some(node) => {
                    let node = node.to_owned();
                    world.placed.push((pod, node));
                }
                None if wants_node(&pod) => world.pending.push(pod),
                None => {}
            }
        }
        world.nodes.sort_by_key(|node| node.name_any());
        world.pending.sort_by_cached_key(urgency);
        world
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn wants_node(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let is_ours = spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME;
    let has_gates = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    is_ours && !has_gates && pod.metadata.deletion_timestamp.is_none() && !is_terminal(pod)
}

/// Higher priority first, then who came first.
fn urgency(pod: &Arc<Pod>) -> impl Ord + use<> {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (std::cmp::Reverse(priority), created, pod.metadata.namespace.clone(), pod.metadata.name.clone())
}
