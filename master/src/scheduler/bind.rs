//! Tells the API what was decided: bindings, conditions of pods that fit nowhere, events for both.

use std::time::SystemTime;

use berth_api::condition::POD_SCHEDULED;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::SCHEDULER_NAME;
use super::plan::{Decision, Outcome};

/// How many pods are told of at a time.
const AT_ONCE_MAX: usize = 16;
const UNSCHEDULABLE: &str = "Unschedulable";

/// Carries out decisions.
pub(super) struct Binder {
    client: Client,
}

/// What came of the decisions.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Uid and node of what was bound.
    pub(super) bound: Vec<(String, String)>,
    /// Whether something should be tried again soon.
    pub(super) has_failed: bool,
}

impl Binder {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Carries out all decisions.
    pub(super) async fn carry_out(&self, decisions: Vec<Decision>) -> Carried {
        let each = stream::iter(decisions).map(|decision| async move {
            let result = match &decision.outcome {
                Outcome::Bind { node } => self.bind(&decision.pod, node).await.map(|()| Some(node.clone())),
                Outcome::Unschedulable { message } => self.explain(&decision.pod, message).await.map(|()| None),
            };
            (decision.pod, result)
        });
        let mut carried = Carried::default();
        let mut results = each.buffer_unordered(AT_ONCE_MAX);
        while let Some((pod, result)) = results.next().await {
            match result {
                Ok(Some(node)) => carried.bound.extend(pod.uid().map(|uid| (uid, node))),
                Ok(None) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    // Gone, or somebody else was faster: the watch will tell.
                    tracing::debug!(pod = %pod.name_any(), reason = %status.message, "pod changed meanwhile");
                }
                Err(error) => {
                    tracing::warn!(pod = %pod.name_any(), %error, "scheduling failed, trying again");
                    carried.has_failed = true;
                }
            }
        }
        carried
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": pod.namespace(), "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let _status: Value =
            self.pods(pod).create_subresource("binding", &name, &PostParams::default(), &binding).await?;
        let namespace = pod.namespace().unwrap_or_default();
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.record(pod, "Normal", "Scheduled", "Binding", &message).await;
        Ok(())
    }

    /// Says in the pod's condition why it waits; once, until the reason changes.
    async fn explain(&self, pod: &Pod, message: &str) -> Result<(), kube::Error> {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let before = conditions.into_iter().find(|c| c.type_ == POD_SCHEDULED && c.status == "False");
        if before.is_some_and(|c| c.reason.as_deref() == Some(UNSCHEDULABLE) && c.message.as_deref() == Some(message)) {
            return Ok(());
        }
        let since = before.and_then(|c| c.last_transition_time.as_ref()).map_or_else(Timestamp::now, |time| time.0);
        let condition = json!({
            "type": POD_SCHEDULED,
            "status": "False",
            "reason": UNSCHEDULABLE,
            "message": message,
            "lastTransitionTime": seconds(since),
        });
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        self.pods(pod).patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
        self.record(pod, "Warning", "FailedScheduling", "Scheduling", message).await;
        Ok(())
    }

    /// Makes an event about a pod. Events are for people to read: one that is lost stops nothing.
    async fn record(&self, pod: &Pod, kind: &str, reason: &str, action: &str, message: &str) {
        let namespace = pod.namespace().unwrap_or_default();
        let now = Timestamp::now();
        let event = json!({
            "metadata": {"name": format!("{}.{:x}", pod.name_any(), nanos()), "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod.name_any(),
                "namespace": namespace,
                "uid": pod.uid(),
                "resourceVersion": pod.resource_version(),
            },
            "type": kind,
            "reason": reason,
            "action": action,
            "message": message,
            "source": {"component": SCHEDULER_NAME},
            "reportingComponent": SCHEDULER_NAME,
            "reportingInstance": "",
            "firstTimestamp": seconds(now),
            "lastTimestamp": seconds(now),
            "count": 1,
        });
        let event: Event = match serde_json::from_value(event) {
            Ok(event) => event,
            Err(error) => return tracing::debug!(%error, "event does not fit its type"),
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(pod = %pod.name_any(), %error, "event was not recorded");
        }
    }
}

/// RFC 3339 with whole seconds, as Kubernetes writes times.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A number that makes an event's name its own.
fn nanos() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
