//! Mirror pods: objects on the master that stand for the pods of the folder, so that people see them there. Pure, but for
//! the last function, which does one step.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};

/// Where a pod comes from; `file` for those of the folder.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
/// The digest of a static pod.
pub(crate) const HASH: &str = "kubernetes.io/config.hash";
/// When a pod was first seen.
pub(crate) const SEEN: &str = "kubernetes.io/config.seen";
/// On a mirror: the [`HASH`] of the pod that it stands for.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// The value of [`SOURCE`] for pods of the folder.
pub(crate) const FROM_FILE: &str = "file";

type FullName = (String, String);

/// Whether a pod comes from the folder.
pub(crate) fn is_static(pod: &Pod) -> bool {
    pod.annotations().get(SOURCE).is_some_and(|source| source == FROM_FILE)
}

/// Whether an object on the master stands for a static pod.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    pod.annotations().contains_key(MIRROR)
}

/// The mirrors that the master has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mirrors {
    by_name: HashMap<FullName, Arc<Pod>>,
}

impl Mirrors {
    /// All of `pods`, which are mirrors.
    pub(crate) fn new(pods: impl Iterator<Item = Arc<Pod>>) -> Self {
        Self { by_name: pods.map(|pod| (full_name(&pod), pod)).collect() }
    }

    /// What stands for a static pod, in this very version of it.
    pub(crate) fn of(&self, pod: &Pod) -> Option<&Arc<Pod>> {
        self.by_name.get(&full_name(pod)).filter(|mirror| stands_for(mirror, pod))
    }
}

fn stands_for(mirror: &Pod, pod: &Pod) -> bool {
    mirror.metadata.deletion_timestamp.is_none() && mirror.annotations().get(MIRROR) == pod.annotations().get(HASH)
}

/// One thing to do on the master.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Make a mirror.
    Create(Box<Pod>),
    /// Take one away that stands for nothing, or for another version.
    Delete(Arc<Pod>),
}

/// What has to be done so that each static pod has its mirror, and each mirror its pod. A mirror in place of another is
/// made once the other is gone.
pub(crate) fn plan<'a>(statics: impl Iterator<Item = &'a Arc<Pod>>, mirrors: &Mirrors) -> Vec<Step> {
    let statics: HashMap<FullName, &Arc<Pod>> = statics.map(|pod| (full_name(pod), pod)).collect();
    let wrong =
        mirrors.by_name.iter().filter(|(name, mirror)| !statics.get(*name).is_some_and(|pod| stands_for(mirror, pod)));
    let missing = statics.iter().filter(|(name, _)| !mirrors.by_name.contains_key(*name));
    wrong
        .map(|(_, mirror)| Step::Delete(Arc::clone(mirror)))
        .chain(missing.map(|(_, pod)| Step::Create(Box::new(mirror_of(pod)))))
        .collect()
}

fn mirror_of(pod: &Pod) -> Pod {
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    mirror.metadata.resource_version = None;
    mirror.metadata.creation_timestamp = None;
    mirror.status = None;
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    let hash = annotations.get(HASH).cloned().unwrap_or_default();
    annotations.insert(MIRROR.to_owned(), hash);
    mirror
}

fn full_name(pod: &Pod) -> FullName {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// Does one step.
pub(crate) async fn apply(client: &Client, step: &Step) -> Result<(), kube::Error> {
    let pods = |pod: &Pod| Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let result = match step {
        Step::Create(mirror) => pods(mirror).create(&PostParams::default(), mirror).await.map(|_| ()),
        Step::Delete(mirror) => {
            let preconditions = Some(Preconditions { uid: mirror.uid(), resource_version: None });
            let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
            pods(mirror).delete(&mirror.name_any(), &params).await.map(|_| ())
        }
    };
    match (step, result) {
        // It is there already, and the watch will tell.
        (Step::Create(_), Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
        (Step::Delete(_), Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        (_, result) => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stat(name: &str, hash: &str) -> Arc<Pod> {
        let annotations = json!({SOURCE: FROM_FILE, HASH: hash});
        let metadata = json!({"name": name, "namespace": "ns", "uid": hash, "annotations": annotations});
        Arc::new(serde_json::from_value(json!({ "metadata": metadata, "spec": {"containers": []} })).unwrap())
    }

    fn mirror(pod: &Pod) -> Arc<Pod> {
        let mut mirror = mirror_of(pod);
        mirror.metadata.uid = Some("on-the-master".to_owned());
        Arc::new(mirror)
    }

    fn words(steps: &[Step]) -> Vec<String> {
        let mut words: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Create(pod) => format!("create {}", pod.name_any()),
                Step::Delete(pod) => format!("delete {}", pod.name_any()),
            })
            .collect();
        words.sort();
        words
    }

    #[test]
    fn each_static_pod_gets_its_mirror_and_no_other_stays() {
        let (a, b, old_b, c) = (stat("a", "1"), stat("b", "2"), stat("b", "1"), stat("c", "3"));
        let mirrors = Mirrors::new([mirror(&old_b), mirror(&c)].into_iter());
        let steps = plan([&a, &b].into_iter(), &mirrors);
        assert_eq!(words(&steps), ["create a", "delete b", "delete c"]);
        assert!(mirrors.of(&b).is_none() && mirrors.of(&old_b).is_some());
        let settled = Mirrors::new([mirror(&a), mirror(&b)].into_iter());
        assert!(plan([&a, &b].into_iter(), &settled).is_empty());
    }

    #[test]
    fn a_mirror_has_the_masters_uid_and_not_the_pods() {
        let made = mirror_of(&stat("a", "1"));
        assert!(made.metadata.uid.is_none() && is_mirror(&made));
        assert_eq!(made.annotations()[MIRROR], "1");
    }
}
