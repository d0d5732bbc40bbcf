//! One pod's status to the master: what changed, then, for a pod that has ended and is to go, its deletion.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::patch::{Lists, difference};
use crate::pod::StatusUpdate;
use crate::source::mirror;

/// How long the master has for one request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

const LISTS: Lists<'static> = Lists { merged_by_type: &["conditions"], replaced: &["podIPs", "hostIPs"] };

/// The status as the master gave it back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub target_uid: Option<String>,
    resource_version: Option<String>,
    status: Value,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The master has it.
    Written(Known),
    /// The pod is not there any more.
    Gone,
    /// To be tried again.
    Failed,
}

/// Writes one update. `target` is the object on the master: the pod itself, or what stands for it there.
pub(super) async fn write(client: &Client, target: &Pod, update: &StatusUpdate, known: Option<Known>) -> Outcome {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &target.namespace().unwrap_or_default());
    let name = target.name_any();
    let base = newest(target, known);
    let wanted = serde_json::to_value(&update.status).unwrap_or_default();
    let written = match difference(&base.status, &wanted, &LISTS) {
        None => Ok(base),
        Some(changed) => patch(&pods, target, changed).await,
    };
    let result = match written {
        Ok(known) if must_go(target, update) => delete(&pods, target).await.map(|()| {
            tracing::debug!(pod = name, ?known.resource_version, "deleted");
            Outcome::Gone
        }),
        Ok(known) => Ok(Outcome::Written(known)),
        Err(failure) => Err(failure),
    };
    result.unwrap_or_else(|failure| match failure {
        Failure::Gone => Outcome::Gone,
        Failure::Other(message) => {
            tracing::warn!(namespace = target.namespace(), pod = name, message, "status not written; trying on");
            Outcome::Failed
        }
    })
}

/// Whether the object has to be deleted: the master waits for that word. What stands for a static pod goes with its file.
fn must_go(target: &Pod, update: &StatusUpdate) -> bool {
    update.finished
        && !mirror::is_static(&update.pod)
        && (target.metadata.deletion_timestamp.is_some() || update.pod.metadata.deletion_timestamp.is_some())
}

enum Failure {
    Gone,
    Other(String),
}

async fn patch(pods: &Api<Pod>, target: &Pod, changed: Value) -> Result<Known, Failure> {
    let body = json!({ "metadata": { "uid": target.uid() }, "status": changed });
    let patch = Patch::Strategic(body);
    let (params, name) = (PatchParams::default(), target.name_any());
    let request = pods.patch_status(&name, &params, &patch);
    let pod = answer(timeout(REQUEST_DEADLINE, request).await)?;
    let status = serde_json::to_value(&pod.status).unwrap_or_default();
    Ok(Known { target_uid: pod.uid(), resource_version: pod.resource_version(), status })
}

async fn delete(pods: &Api<Pod>, target: &Pod) -> Result<(), Failure> {
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: target.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match answer(timeout(REQUEST_DEADLINE, pods.delete(&target.name_any(), &params)).await) {
        Ok(_) | Err(Failure::Gone) => Ok(()),
        Err(other) => Err(other),
    }
}

fn answer<T>(result: Result<Result<T, kube::Error>, tokio::time::error::Elapsed>) -> Result<T, Failure> {
    match result {
        Ok(Ok(value)) => Ok(value),
        // Not there, or another of that name (its uid differs): in both cases this one is gone.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Failure::Gone),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 && is_about_uid(&status.message) => Err(Failure::Gone),
        Ok(Err(error)) => Err(Failure::Other(error.to_string())),
        Err(_) => Err(Failure::Other(format!("no answer within {REQUEST_DEADLINE:?}"))),
    }
}

fn is_about_uid(message: &str) -> bool {
    message.to_ascii_lowercase().contains("uid")
}

/// What the master has: what it answered last, or what it sent since.
fn newest(target: &Pod, known: Option<Known>) -> Known {
    let sent = Known {
        target_uid: target.uid(),
        resource_version: target.resource_version(),
        status: serde_json::to_value(&target.status).unwrap_or_default(),
    };
    match known {
        Some(known)
            if known.target_uid == sent.target_uid
                && version(&known.resource_version) >= version(&sent.resource_version) =>
        {
            known
        }
        _ => sent,
    }
}

/// Resource versions of one master are numbers that grow; where they are not, what was sent is believed.
fn version(text: &Option<String>) -> Option<u64> {
    text.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(version: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": version}, "status": {"phase": phase}
        }))
        .unwrap()
    }

    #[test]
    fn the_newer_of_two_versions_is_the_base() {
        let known = |version: &str| {
            Some(Known {
                target_uid: Some("u".to_owned()),
                resource_version: Some(version.to_owned()),
                status: json!({"phase": "known"}),
            })
        };
        for (sent, known, expected) in
            [("5", known("9"), "known"), ("10", known("9"), "sent"), ("9", known("9"), "known"), ("9", None, "sent")]
        {
            assert_eq!(newest(&pod(sent, "sent"), known).status["phase"], expected);
        }
    }

    #[test]
    fn only_what_is_finished_and_to_go_is_deleted() {
        let mut target = pod("1", "Succeeded");
        let update = |finished| StatusUpdate { pod: pod("1", "Running").into(), status: Default::default(), finished };
        assert!(!must_go(&target, &update(true)));
        target.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(must_go(&target, &update(true)));
        assert!(!must_go(&target, &update(false)));
    }
}
