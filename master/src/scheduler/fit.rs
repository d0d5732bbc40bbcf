//! Whether a node would do for a pod at all, and if not, why, in the words of Kubernetes' scheduler.

use std::collections::BTreeMap;

use berth_api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use super::room::{Need, Room};

/// Why a node will not do. The first kind of reason ends the search; shortages are all told.
pub(super) fn refusals(pod: &Pod, need: &Need, room: &Room<'_>) -> Vec<String> {
    let Some(spec) = &pod.spec else { return vec!["pod has no spec".to_owned()] };
    let node = room.node;
    let one = |words: &str| vec![words.to_owned()];
    if is_unschedulable(node) && !tolerates_unschedulable(spec) {
        return one("node(s) were unschedulable");
    }
    if let Some(taint) = taints(node).find(|t| t.effect != "PreferNoSchedule" && !is_tolerated(spec, t)) {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
    }
    if !is_ready(node) {
        return one("node(s) were not ready");
    }
    if !matches_selector(spec, node) || !matches_affinity(spec, node) {
        return one("node(s) didn't match Pod's node affinity/selector");
    }
    if room.has_port_conflict(need) {
        return one("node(s) didn't have free ports for the requested pod ports");
    }
    room.shortages(need)
}

/// How well a node suits a pod that it would do for: higher is better.
pub(super) fn preference(pod: &Pod, need: &Need, room: &Room<'_>) -> impl Ord + use<> {
    let spec = pod.spec.as_ref();
    let disliked = spec.map_or(0, |spec| {
        taints(room.node).filter(|t| t.effect == "PreferNoSchedule" && !is_tolerated(spec, t)).count()
    });
    let liked: i64 = spec.map_or(0, |spec| preferred_weight(spec, room.node));
    (std::cmp::Reverse(disliked), liked, room.leftover_percent(need), std::cmp::Reverse(room.pods))
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn tolerates_unschedulable(spec: &PodSpec) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    is_tolerated(spec, &taint)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten()
}

fn is_tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |asked: &Option<String>, value: &str| asked.as_deref().is_none_or(|a| a.is_empty() || a == value);
    let key_fits = is(&toleration.key, &taint.key);
    let value_fits = match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    };
    key_fits && value_fits && is(&toleration.effect, &taint.effect)
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn matches_selector(spec: &PodSpec, node: &Node) -> bool {
    let wanted: &BTreeMap<String, String> = match &spec.node_selector {
        Some(wanted) => wanted,
        None => return true,
    };
    wanted.iter().all(|(key, value)| label(node, key) == Some(value))
}

fn matches_affinity(spec: &PodSpec, node: &Node) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|NodeSelector { node_selector_terms }| node_selector_terms.iter().any(|t| matches(t, node)))
}

fn preferred_weight(spec: &PodSpec, node: &Node) -> i64 {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let matching = preferred.into_iter().flatten().filter(|term| matches(&term.preference, node));
    matching.map(|term| i64::from(term.weight)).sum()
}

/// A term without any requirement matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |path: &str| if path == "metadata.name" { node.metadata.name.as_deref() } else { None };
    !(labels.is_empty() && fields.is_empty())
        && requirements(labels).is_some_and(|wanted| wanted.matches_with(|key| label(node, key)))
        && requirements(fields).is_some_and(|wanted| wanted.matches_with(field))
}

/// Requirements as a selector; nothing for broken ones, which match nothing.
fn requirements(list: &[NodeSelectorRequirement]) -> Option<LabelSelector> {
    let mut selector = LabelSelector::default();
    for one in list {
        selector.require(&one.key, &one.operator, one.values.as_deref().unwrap_or_default()).ok()?;
    }
    Some(selector)
}
