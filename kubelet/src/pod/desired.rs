//! What a pod should be: its object, checked once, and whether anybody still wants it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use berth_api::id::{IdError, PodId, PodUid, dns_label};
use berth_api::pod::{RestartPolicy, is_sidecar};
use berth_api::resource::{QosClass, ResourceError, pod_limits, pod_requests, qos_class};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};

/// Most containers that a pod may have, init containers included.
const CONTAINERS_MAX: usize = 256;

/// Whether anybody still wants the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is to run.
    Wanted,
    /// Its object has a deletion timestamp and waits for us to let it go.
    Deleted,
    /// Its object is gone.
    Removed,
}

/// The part that a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// Stands among the init containers, and runs on beside the app containers (KEP-753).
    Sidecar,
    /// What the pod is for.
    App,
}

/// A pod as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    /// The object, in the newest version that the source has given.
    pub pod: Arc<Pod>,
    /// Its identity.
    pub id: PodId,
    /// Whether anybody wants it.
    pub presence: Presence,
    /// Who is starved first when the node is short.
    pub qos: QosClass,
    /// The longest wait before a container that ends again and again is started.
    pub backoff_max: Duration,
}

/// Why a pod cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidPod {
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] IdError),
    /// A quantity that is none.
    #[error("{0}: {source}", source = .0.source)]
    Quantity(#[from] ResourceError),
    /// A field that makes no sense.
    #[error("{field}: {message}")]
    Field {
        /// Which.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

impl InvalidPod {
    fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { field: field.into(), message: message.into() }
    }
}

impl Desired {
    /// Reads a pod. What the API server has checked already is checked again: a manifest's folder has not.
    pub(crate) fn parse(pod: Arc<Pod>, presence: Presence, backoff_max: Duration) -> Result<Self, InvalidPod> {
        let id = PodId::of(&pod)?;
        let Some(spec) = &pod.spec else { return Err(InvalidPod::field("spec", "is missing")) };
        check_names(spec)?;
        check_mounts(spec)?;
        pod_requests(&pod)?;
        pod_limits(&pod)?;
        let qos = qos_class(&pod)?;
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let presence = if deleted && presence == Presence::Wanted { Presence::Deleted } else { presence };
        Ok(Self { pod, id, presence, qos, backoff_max })
    }

    /// A pod that nobody knows any more, and of which something is left on this machine.
    pub(crate) fn leftover(pod: Arc<Pod>, uid: PodUid) -> Self {
        let name = |given: &Option<String>| given.clone().unwrap_or_else(|| "unknown".to_owned());
        let id = PodId { namespace: name(&pod.metadata.namespace), name: name(&pod.metadata.name), uid };
        let qos = QosClass::BestEffort;
        Self { pod, id, presence: Presence::Removed, qos, backoff_max: Duration::ZERO }
    }

    /// The pod's spec.
    pub(crate) fn spec(&self) -> &PodSpec {
        // `parse` has seen to it that there is one; of a leftover nothing is known.
        static NONE: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&NONE)
    }

    /// All containers in the order of the spec, init containers first.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (Role, &Container)> {
        let init = self.spec().init_containers.iter().flatten();
        let init = init.map(|container| (if is_sidecar(container) { Role::Sidecar } else { Role::Init }, container));
        init.chain(self.apps().map(|container| (Role::App, container)))
    }

    /// The app containers.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &Container> {
        self.spec().containers.iter()
    }

    /// One container with its role.
    pub(crate) fn container(&self, name: &str) -> Option<(Role, &Container)> {
        self.containers().find(|(_, container)| container.name == name)
    }

    /// What happens when a container of this role ends.
    pub(crate) fn restart_policy(&self, role: Role) -> RestartPolicy {
        match role {
            Role::Init => RestartPolicy::of_init(self.spec()),
            Role::Sidecar => RestartPolicy::Always,
            Role::App => RestartPolicy::of(self.spec()),
        }
    }

    /// What the pod's own status says of a container: told by us, perhaps before a restart.
    pub(crate) fn told(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        let all = [&status.init_container_statuses, &status.container_statuses];
        all.into_iter().flatten().flatten().find(|told| told.name == name)
    }
}

fn check_names(spec: &PodSpec) -> Result<(), InvalidPod> {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if spec.containers.is_empty() {
        return Err(InvalidPod::field("spec.containers", "needs at least one container"));
    }
    if init.len() + spec.containers.len() > CONTAINERS_MAX {
        return Err(InvalidPod::field("spec.containers", format!("has more than {CONTAINERS_MAX} containers")));
    }
    let mut seen = BTreeSet::new();
    for (list, containers) in [("initContainers", init), ("containers", &spec.containers)] {
        for (index, container) in containers.iter().enumerate() {
            let field = format!("spec.{list}[{index}].name");
            dns_label(&field, &container.name)?;
            if !seen.insert(container.name.as_str()) {
                return Err(InvalidPod::field(field, format!("{:?} is there twice", container.name)));
            }
        }
    }
    Ok(())
}

fn check_mounts(spec: &PodSpec) -> Result<(), InvalidPod> {
    let mut volumes = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let field = format!("spec.volumes[{index}].name");
        dns_label(&field, &volume.name)?;
        if !volumes.insert(volume.name.as_str()) {
            return Err(InvalidPod::field(field, format!("{:?} is there twice", volume.name)));
        }
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for mount in container.volume_mounts.iter().flatten() {
            let field = || format!("containers[{}].volumeMounts[{}]", container.name, mount.name);
            if !volumes.contains(mount.name.as_str()) {
                return Err(InvalidPod::field(field(), "names no volume of the pod"));
            }
            if !mount.mount_path.starts_with('/') || mount.mount_path.contains(':') {
                return Err(InvalidPod::field(field(), "mountPath must be an absolute path without a colon"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &str) {
        let pod = json!({ "metadata": { "name": "p", "uid": "u" }, "spec": spec });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let error = Desired::parse(Arc::new(pod), Presence::Wanted, Duration::from_secs(300)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} lacks {expected:?}");
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_field() {
        check(json!({ "containers": [] }), "spec.containers: needs");
        check(json!({ "containers": [{ "name": "../x" }] }), "spec.containers[0].name");
        check(json!({ "initContainers": [{ "name": "a" }], "containers": [{ "name": "a" }] }), "there twice");
        let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
        let with = |mount: Value| json!({ "volumes": [{ "name": "v" }], "containers": [{ "name": "a", "volumeMounts": [mount] }] });
        check(with(mount("w", "/w")), "containers[a].volumeMounts[w]: names no volume");
        check(with(mount("v", "w")), "must be an absolute path");
        check(json!({ "containers": [{ "name": "a", "resources": { "limits": { "cpu": "lots" } } }] }), "limits[cpu]");
    }
}
