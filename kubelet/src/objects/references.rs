//! Which config maps and secrets a pod names. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use kube::ResourceExt;

use super::{ObjectKey, ObjectKind};

/// All config maps and secrets that a pod names: in volumes, environments, and as credentials of images.
pub(crate) fn references(pod: &Pod) -> Vec<ObjectKey> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut found = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut found);
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        of_container(container, &mut found);
    }
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.push((ObjectKind::Secret, secret.name.clone()));
    }
    let namespace = pod.namespace().unwrap_or_default();
    found.into_iter().map(|(kind, name)| ObjectKey { kind, namespace: namespace.clone(), name }).collect()
}

fn of_volume(volume: &Volume, found: &mut Vec<(ObjectKind, String)>) {
    if let Some(map) = &volume.config_map {
        found.push((ObjectKind::ConfigMap, map.name.clone()));
    }
    if let Some(name) = volume.secret.as_ref().and_then(|secret| secret.secret_name.clone()) {
        found.push((ObjectKind::Secret, name));
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(map) = &source.config_map {
            found.push((ObjectKind::ConfigMap, map.name.clone()));
        }
        if let Some(secret) = &source.secret {
            found.push((ObjectKind::Secret, secret.name.clone()));
        }
    }
}

fn of_container(container: &Container, found: &mut Vec<(ObjectKind, String)>) {
    for source in container.env_from.iter().flatten() {
        if let Some(map) = &source.config_map_ref {
            found.push((ObjectKind::ConfigMap, map.name.clone()));
        }
        if let Some(secret) = &source.secret_ref {
            found.push((ObjectKind::Secret, secret.name.clone()));
        }
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(map) = &source.config_map_key_ref {
            found.push((ObjectKind::ConfigMap, map.name.clone()));
        }
        if let Some(secret) = &source.secret_key_ref {
            found.push((ObjectKind::Secret, secret.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_looked_at() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {
                "imagePullSecrets": [{"name": "s1"}],
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s2"}}]}],
                "containers": [{"name": "c",
                    "env": [
                        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}},
                        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}}],
                    "envFrom": [{"configMapRef": {"name": "m2"}}]}],
                "volumes": [
                    {"name": "v", "configMap": {"name": "m3"}},
                    {"name": "w", "secret": {"secretName": "s4"}},
                    {"name": "x", "projected": {"sources": [
                        {"configMap": {"name": "m4"}}, {"secret": {"name": "s5"}}]}}]
            }
        }))
        .unwrap();
        let mut names: Vec<_> = references(&pod).iter().map(ToString::to_string).collect();
        names.sort();
        let expected = ["m1", "m2", "m3", "m4"].iter().map(|name| format!("configmap ns/{name}"));
        let expected: Vec<_> = expected.chain((1..=5).map(|n| format!("secret ns/s{n}"))).collect();
        assert_eq!(names, expected);
    }
}
