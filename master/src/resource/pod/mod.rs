//! Pods: what they start with, what an update may change, and how a binding gives them a node.

mod container;
mod default;
mod probe;
mod spec;
mod update;
mod volume;

use berth_api::resource::qos_class;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::FieldError;
use super::meta;
use super::strategy::Strategy;
pub(super) use spec::check_choice;

/// The behaviour of pods.
pub(super) struct PodStrategy;

impl Strategy for PodStrategy {
    fn default(&self, pod: &mut Value) {
        default::pod(pod);
    }

    fn prepare_create(&self, pod: &mut Value) {
        let qos = serde_json::from_value::<Pod>(pod.clone()).ok().and_then(|p| qos_class(&p).ok());
        let Some(members) = pod.as_object_mut() else { return };
        let mut status = json!({"phase": "Pending"});
        if let Some(qos) = qos {
            status["qosClass"] = qos.as_str().into();
        }
        members.insert("status".to_owned(), status);
        if let Some(metadata) = meta::child(members, "metadata") {
            metadata.insert("generation".to_owned(), 1.into());
        }
    }

    fn prepare_update(&self, old: &Value, new: &mut Value, _sub: Option<&str>) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
        let next = generation.saturating_add(i64::from(old["spec"] != new["spec"]));
        if let Some(metadata) = new.as_object_mut().and_then(|m| meta::child(m, "metadata")) {
            metadata.insert("generation".to_owned(), next.into());
        }
    }

    fn validate(&self, pod: &Value, errors: &mut Vec<FieldError>) {
        spec::validate(&pod["spec"], errors);
    }

    fn validate_update(&self, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
        update::validate(&old["spec"], &new["spec"], errors);
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    }
}

/// Why a pod cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The binding itself is broken; HTTP 422.
    #[error("{0}")]
    Invalid(FieldError),
    /// The pod has a node already or is going away; HTTP 409.
    #[error("{detail}")]
    Conflict {
        /// In Kubernetes' words.
        detail: String,
    },
}

/// Puts a pod onto the node that a `Binding` names: sets `spec.nodeName`, condition PodScheduled, and the binding's
/// annotations and labels.
///
/// # Errors
/// When the binding names no node, or the pod has another node already or is going away.
pub fn bind(pod: &Value, binding: &Value, now: Timestamp) -> Result<Value, BindError> {
    let target = &binding["target"];
    match target["kind"].as_str() {
        None | Some("" | "Node") => {}
        Some(_) => {
            return Err(BindError::Invalid(FieldError::not_supported("target.kind", &target["kind"], &["Node"])));
        }
    }
    let node = target["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(BindError::Invalid(FieldError::required("target.name", "")));
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(BindError::Conflict {
            detail: format!("pod {name} is being deleted, cannot be assigned to a host"),
        });
    }
    if let Some(assigned) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return Err(BindError::Conflict { detail: format!("pod {name} is already assigned to node {assigned:?}") });
    }
    let mut bound = pod.clone();
    let Some(members) = bound.as_object_mut() else { return Ok(bound) };
    if let Some(spec) = meta::child(members, "spec") {
        spec.insert("nodeName".to_owned(), node.into());
    }
    if let Some(metadata) = meta::child(members, "metadata") {
        for field in ["annotations", "labels"] {
            for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
                if let Some(kept) = meta::child(metadata, field) {
                    kept.insert(key.clone(), value.clone());
                }
            }
        }
    }
    if let Some(status) = meta::child(members, "status") {
        set_scheduled(status, now);
    }
    Ok(bound)
}

fn set_scheduled(status: &mut serde_json::Map<String, Value>, now: Timestamp) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    conditions.retain(|c| c["type"] != "PodScheduled");
    let seconds = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": seconds}));
}

#[cfg(test)]
mod tests;
