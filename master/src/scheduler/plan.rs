//! Decides for every waiting pod where it goes, or why it cannot go anywhere. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::fit::{preference, refusals};
use super::observe::World;
use super::room::{Need, Room, rooms};

/// What is to happen to one pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    /// The pod.
    pub(super) pod: Arc<Pod>,
    /// Where it goes, or why nowhere.
    pub(super) outcome: Outcome,
}

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// To this node.
    Bind {
        /// Its name.
        node: String,
    },
    /// Nowhere.
    Unschedulable {
        /// Why, as Kubernetes' scheduler says it.
        message: String,
    },
}

/// Decides for all waiting pods in turn; each takes its room before the next is looked at.
pub(super) fn plan(world: &World) -> Vec<Decision> {
    let nodes = world.nodes.iter().filter_map(|node| Some((node.metadata.name.as_deref()?, node.as_ref())));
    let placed = world.placed.iter().map(|(pod, node)| (node.as_str(), Need::of(pod)));
    let mut rooms = rooms(nodes, placed);
    let mut decisions = Vec::with_capacity(world.pending.len());
    for pod in &world.pending {
        let need = Need::of(pod);
        let outcome = decide(pod, &need, &rooms);
        if let Outcome::Bind { node } = &outcome
            && let Some(room) = rooms.get_mut(node.as_str())
        {
            room.take(&need);
        }
        decisions.push(Decision { pod: pod.clone(), outcome });
    }
    decisions
}

fn decide(pod: &Pod, need: &Need, rooms: &BTreeMap<&str, Room<'_>>) -> Outcome {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for (name, room) in rooms {
        let refused = refusals(pod, need, room);
        if refused.is_empty() {
            fitting.push((name, room));
        }
        for reason in refused {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    // Of equals the first by name, so that the same world always gives the same plan.
    match fitting.into_iter().max_by_key(|(name, room)| (preference(pod, need, room), Reverse(**name))) {
        Some((node, _)) => Outcome::Bind { node: (*node).to_owned() },
        None => Outcome::Unschedulable { message: explain(rooms.len(), &reasons) },
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn explain(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut told: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    told.sort();
    format!("0/{nodes} nodes are available: {}.", told.join(", "))
}

#[cfg(test)]
mod tests;
