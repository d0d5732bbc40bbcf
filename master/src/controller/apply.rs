//! Performs one action after another through the API.

use futures::{StreamExt as _, stream};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::action::Action;
use super::observe::api;
use super::service_account::DEFAULT;

/// How many actions are under way at a time.
const AT_ONCE_MAX: usize = 8;

/// Performs actions.
pub(super) struct Applier {
    client: Client,
}

/// What came of the actions.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Networks that were given, by node.
    pub(super) networks: Vec<(String, IpNetwork)>,
    /// Whether something should be tried again soon.
    pub(super) has_failed: bool,
}

impl Applier {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Performs all actions. One that fails keeps none of the others from being done.
    pub(super) async fn apply(&self, actions: Vec<Action>) -> Applied {
        let each = stream::iter(actions).map(|action| async move {
            let result = self.perform(&action).await;
            (action, result)
        });
        let mut applied = Applied::default();
        let mut results = each.buffer_unordered(AT_ONCE_MAX);
        while let Some((action, result)) = results.next().await {
            match result {
                Ok(()) => {
                    tracing::info!(?action, "done");
                    if let Action::GiveNetwork { node, network } = action {
                        applied.networks.push((node, network));
                    }
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    // Done already, gone, or changed meanwhile: the watch will tell.
                    tracing::debug!(?action, reason = %status.message, "object changed meanwhile");
                }
                Err(error) => {
                    tracing::warn!(?action, %error, "cannot be done, trying again");
                    applied.has_failed = true;
                }
            }
        }
        applied
    }

    async fn perform(&self, action: &Action) -> Result<(), kube::Error> {
        match action {
            Action::GiveNetwork { node, network } => {
                let network = network.to_string();
                let patch = json!({"spec": {"podCIDR": network, "podCIDRs": [network]}});
                self.patch_node(node, patch).await
            }
            Action::SetTaints { node, resource_version, taints, .. } => {
                let patch = json!({"metadata": {"resourceVersion": resource_version}, "spec": {"taints": taints}});
                self.patch_node(node, patch).await
            }
            Action::MarkUnknown { node, since } => self.mark_unknown(node, *since).await,
            Action::MakeServiceAccount { namespace } => {
                let metadata = ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() };
                let account = ServiceAccount { metadata, ..ServiceAccount::default() };
                let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
                accounts.create(&PostParams::default(), &account).await.map(drop)
            }
            Action::DeleteAll { namespace, kind } => {
                let objects = api(&self.client, kind.0, namespace);
                objects.delete_collection(&DeleteParams::default(), &ListParams::default()).await.map(drop)
            }
            Action::Finalize { namespace } => self.finalize(namespace).await,
            Action::DeletePod { namespace, name, uid, .. } => {
                let same = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let at_once = DeleteParams { preconditions: Some(same), ..DeleteParams::default() }.grace_period(0);
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                pods.delete(name, &at_once).await.map(drop)
            }
        }
    }

    async fn patch_node(&self, node: &str, patch: serde_json::Value) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn mark_unknown(&self, node: &str, since: Timestamp) -> Result<(), kube::Error> {
        let condition = json!({
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        nodes.patch_status(node, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Takes the controller's finalizer away, against the namespace as it is now.
    async fn finalize(&self, name: &str) -> Result<(), kube::Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let mut namespace = namespaces.get(name).await?;
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != "kubernetes");
        }
        namespaces.replace_subresource("finalize", name, &PostParams::default(), &namespace).await.map(drop)
    }
}
