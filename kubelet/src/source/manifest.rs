//! One manifest of the folder: from its text to a pod as this node runs it, or to what is wrong with it. Pure.

use berth_api::id::{dns_label, dns_subdomain};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, Toleration};
use sha2::{Digest, Sha256};

use super::mirror::{FROM_FILE, HASH, SEEN, SOURCE};
use crate::document::{self, DocumentError};

/// A uid made of a digest has this many hexadecimal digits.
const UID_DIGITS: usize = 32;

/// Where a manifest was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub path: &'a str,
    pub node: &'a str,
    pub seen: jiff::Timestamp,
}

/// Reads a manifest. The pod has all that the master would have given it.
pub(super) fn pod(text: &str, origin: Origin<'_>) -> Result<Pod, DocumentError> {
    let document = document::read(text)?;
    expect(&document, "apiVersion", "v1")?;
    expect(&document, "kind", "Pod")?;
    let mut pod: Pod = document::typed(&document)?;
    check(&pod)?;
    let uid = uid(&document, origin);
    give_identity(&mut pod, uid, origin);
    if let Some(spec) = &mut pod.spec {
        give_defaults(spec, origin.node);
    }
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
    Ok(pod)
}

fn expect(document: &serde_json::Value, field: &str, wanted: &str) -> Result<(), DocumentError> {
    match document.get(field).and_then(serde_json::Value::as_str) {
        Some(value) if value == wanted => Ok(()),
        Some(value) => Err(DocumentError::field(field, format!("must be {wanted:?}, not {value:?}"))),
        None => Err(DocumentError::field(field, format!("is missing; must be {wanted:?}"))),
    }
}

/// What must hold before anything can be made of a pod. More is said by those who make it.
fn check(pod: &Pod) -> Result<(), DocumentError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    named(dns_subdomain("metadata.name", name))?;
    if let Some(namespace) = &pod.metadata.namespace {
        named(dns_label("metadata.namespace", namespace))?;
    }
    let Some(spec) = &pod.spec else { return Err(DocumentError::field("spec", "is missing")) };
    if spec.containers.is_empty() {
        return Err(DocumentError::field("spec.containers", "must have at least one container"));
    }
    let mut volumes = Vec::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let field = format!("spec.volumes[{index}].name");
        named(dns_label(&field, &volume.name))?;
        unique(&mut volumes, &volume.name, &field)?;
    }
    let init = spec.init_containers.iter().flatten().enumerate().map(|(i, c)| (format!("spec.initContainers[{i}]"), c));
    let apps = spec.containers.iter().enumerate().map(|(i, c)| (format!("spec.containers[{i}]"), c));
    let mut names = Vec::new();
    for (field, container) in init.chain(apps) {
        check_container(container, &field, &volumes)?;
        unique(&mut names, &container.name, &format!("{field}.name"))?;
    }
    match spec.restart_policy.as_deref() {
        None | Some("Always" | "OnFailure" | "Never") => Ok(()),
        Some(other) => {
            let message = format!("{other:?} must be \"Always\", \"OnFailure\" or \"Never\"");
            Err(DocumentError::field("spec.restartPolicy", message))
        }
    }
}

fn check_container(container: &Container, field: &str, volumes: &[String]) -> Result<(), DocumentError> {
    named(dns_label(&format!("{field}.name"), &container.name))?;
    if container.image.as_deref().unwrap_or_default().is_empty() {
        return Err(DocumentError::field(format!("{field}.image"), "is missing"));
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if !volumes.contains(&mount.name) {
            let message = format!("{:?} is no volume of this pod", mount.name);
            return Err(DocumentError::field(format!("{field}.volumeMounts[{index}].name"), message));
        }
    }
    match container.image_pull_policy.as_deref() {
        None | Some("Always" | "IfNotPresent" | "Never") => Ok(()),
        Some(other) => {
            let message = format!("{other:?} must be \"Always\", \"IfNotPresent\" or \"Never\"");
            Err(DocumentError::field(format!("{field}.imagePullPolicy"), message))
        }
    }
}

fn named(result: Result<&str, berth_api::id::IdError>) -> Result<(), DocumentError> {
    result.map(|_| ()).map_err(|error| {
        let message = format!("{:?} must be {}", error.value, error.expected);
        DocumentError::field(error.field, message)
    })
}

fn unique(seen: &mut Vec<String>, name: &str, field: &str) -> Result<(), DocumentError> {
    if seen.iter().any(|other| other == name) {
        return Err(DocumentError::field(field, format!("{name:?} is there twice")));
    }
    seen.push(name.to_owned());
    Ok(())
}

/// The same file with the same content on the same node is the same pod, also after a restart; a changed one is another.
fn uid(document: &serde_json::Value, origin: Origin<'_>) -> String {
    let mut digest = Sha256::new();
    for part in [origin.node, origin.path, &document.to_string()] {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        digest.update(part.as_bytes());
    }
    let mut text = hex::encode(digest.finalize());
    text.truncate(UID_DIGITS);
    text
}

fn give_identity(pod: &mut Pod, uid: String, origin: Origin<'_>) {
    let metadata = &mut pod.metadata;
    metadata.name = Some(format!("{}-{}", metadata.name.as_deref().unwrap_or_default(), origin.node));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.generate_name = None;
    metadata.resource_version = None;
    metadata.deletion_timestamp = None;
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE.to_owned(), FROM_FILE.to_owned());
    annotations.insert(HASH.to_owned(), uid.clone());
    annotations.insert(SEEN.to_owned(), origin.seen.to_string());
    metadata.uid = Some(metadata.uid.take().filter(|given| !given.is_empty()).unwrap_or(uid));
}

fn give_defaults(spec: &mut PodSpec, node: &str) {
    spec.node_name = Some(node.to_owned());
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(berth_api::pod::GRACE_SECS_DEFAULT);
    spec.enable_service_links.get_or_insert(true);
    // It stays as long as its file: nothing drives it away.
    let stays = Toleration {
        effect: Some("NoExecute".to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&stays) {
        tolerations.push(stays);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> Result<Pod, String> {
        let origin = Origin { path: "/m/web.yaml", node: "node-1", seen: jiff::Timestamp::UNIX_EPOCH };
        pod(text, origin).map_err(|error| error.to_string())
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let web = check_text(WEB).unwrap();
        assert_eq!(web.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(web.metadata.namespace.as_deref(), Some("default"));
        let uid = web.metadata.uid.clone().unwrap();
        assert_eq!(uid.len(), UID_DIGITS);
        let annotations = web.metadata.annotations.clone().unwrap();
        assert_eq!((annotations[SOURCE].as_str(), annotations[HASH].as_str()), ("file", uid.as_str()));
        let spec = web.spec.unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("node-1"), Some("Always")));
    }

    #[test]
    fn the_uid_follows_the_content_and_not_its_layout() {
        let uid = |text: &str| check_text(text).unwrap().metadata.uid.unwrap();
        assert_eq!(uid(WEB), uid(&format!("# a comment\n{WEB}")));
        assert_ne!(uid(WEB), uid(&WEB.replace("image: b", "image: c")));
    }

    #[test]
    fn errors_name_the_field() {
        for (from, to, expected) in [
            ("kind: Pod", "kind: Deployment", "field kind: must be \"Pod\", not \"Deployment\""),
            ("name: web", "labels: {}", "field metadata.name: "),
            ("name: web", "name: Web", "field metadata.name: \"Web\" must be "),
            ("[{name: a, image: b}]", "[]", "field spec.containers: must have at least one container"),
            ("image: b", "imgae: b", "field spec.containers[0].imgae: there is no such field"),
            ("image: b", "tty: true", "field spec.containers[0].image: is missing"),
            (
                "{name: a, image: b}",
                "{name: a, image: b}, {name: a, image: b}",
                "field spec.containers[1].name: \"a\" is there twice",
            ),
            (
                "image: b",
                "image: b, volumeMounts: [{name: v, mountPath: /v}]",
                "field spec.containers[0].volumeMounts[0].name: \"v\" is no volume of this pod",
            ),
            ("spec: {", "spec: {restartPolicy: Sometimes, ", "field spec.restartPolicy: \"Sometimes\" must be "),
            (
                "image: b",
                "image: b, ports: [{containerPort: http}]",
                "field spec.containers[0].ports[0].containerPort: invalid type",
            ),
        ] {
            let error = check_text(&WEB.replace(from, to)).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        for garbage in ["", "-", "{", "a: b: c", "\u{0}", "[1, 2]"] {
            assert!(check_text(garbage).is_err(), "{garbage:?}");
        }
    }
}
