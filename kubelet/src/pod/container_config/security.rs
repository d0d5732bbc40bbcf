//! Who a container's process is and what it may do: the container's own word before the pod's.

use std::path::{Component, Path};

use berth_engine::config::{Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use super::ConfigFault;

/// What the node says where the pod is silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeSecurity<'a> {
    /// Whether pods that say nothing get the runtime's filter.
    pub seccomp_default: bool,
    /// The folder of the profiles that pods may name.
    pub seccomp_dir: &'a Path,
}

/// The security of one container.
pub(crate) fn security(spec: &PodSpec, container: &Container, node: NodeSecurity<'_>) -> Result<Security, ConfigFault> {
    let (no_pod, none) = (PodSecurityContext::default(), SecurityContext::default());
    let pod = spec.security_context.as_ref().unwrap_or(&no_pod);
    let own = container.security_context.as_ref().unwrap_or(&none);
    let privileged = own.privileged == Some(true);
    let id = |field: &str, value: Option<i64>| -> Result<Option<u32>, ConfigFault> {
        let narrow = |value| u32::try_from(value).map_err(|_| ConfigFault::field(container, field, "is no uid or gid"));
        value.map(narrow).transpose()
    };
    let run_as_user = id("runAsUser", own.run_as_user.or(pod.run_as_user))?;
    let run_as_non_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    if run_as_non_root && run_as_user == Some(0) {
        return Err(ConfigFault::field(container, "runAsUser", "is 0, but runAsNonRoot is set"));
    }
    if own.allow_privilege_escalation == Some(false) && privileged {
        return Err(ConfigFault::field(container, "allowPrivilegeEscalation", "is false, but privileged is set"));
    }
    let mut supplemental_groups = Vec::new();
    for group in pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group) {
        supplemental_groups.extend(id("supplementalGroups", Some(group))?);
    }
    let capabilities = own.capabilities.clone().unwrap_or_default();
    Ok(Security {
        privileged,
        run_as_user,
        run_as_group: id("runAsGroup", own.run_as_group.or(pod.run_as_group))?,
        run_as_non_root,
        supplemental_groups,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        read_only_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp: seccomp(container, own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()), privileged, node)?,
    })
}

fn seccomp(
    container: &Container,
    profile: Option<&SeccompProfile>,
    privileged: bool,
    node: NodeSecurity<'_>,
) -> Result<Seccomp, ConfigFault> {
    if privileged {
        return Ok(Seccomp::Unconfined);
    }
    let Some(profile) = profile else {
        return Ok(if node.seccomp_default { Seccomp::RuntimeDefault } else { Seccomp::Unconfined });
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            let name = Path::new(profile.localhost_profile.as_deref().unwrap_or_default());
            let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
            if name.as_os_str().is_empty() || !inside {
                let wrong = "must be a relative path without \"..\"";
                return Err(ConfigFault::field(container, "seccompProfile.localhostProfile", wrong));
            }
            Ok(Seccomp::Localhost(node.seccomp_dir.join(name)))
        }
        _ => {
            let wrong = "must be RuntimeDefault, Unconfined or Localhost";
            Err(ConfigFault::field(container, "seccompProfile.type", wrong))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn build(pod: Value, own: Value) -> Result<Security, ConfigFault> {
        let spec: PodSpec = serde_json::from_value(json!({ "securityContext": pod, "containers": [] })).unwrap();
        let container: Container = serde_json::from_value(json!({ "name": "c", "securityContext": own })).unwrap();
        security(&spec, &container, NodeSecurity { seccomp_default: true, seccomp_dir: Path::new("/s") })
    }

    #[test]
    fn the_containers_word_beats_the_pods() {
        let pod = json!({ "runAsUser": 1, "runAsGroup": 2, "fsGroup": 7, "supplementalGroups": [5] });
        let got = build(pod, json!({ "runAsUser": 3 })).unwrap();
        assert_eq!((got.run_as_user, got.run_as_group), (Some(3), Some(2)));
        assert_eq!(got.supplemental_groups, [5, 7]);
        assert_eq!(got.seccomp, Seccomp::RuntimeDefault);
    }

    #[test]
    fn a_privileged_container_has_no_filter() {
        let pod = json!({ "seccompProfile": { "type": "RuntimeDefault" } });
        assert_eq!(build(pod, json!({ "privileged": true })).unwrap().seccomp, Seccomp::Unconfined);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(build(json!({ "runAsNonRoot": true }), json!({ "runAsUser": 0 })).is_err());
        assert!(build(json!({}), json!({ "runAsUser": -1 })).is_err());
        assert!(build(json!({}), json!({ "runAsUser": 1_i64 << 32 })).is_err());
        assert!(build(json!({}), json!({ "privileged": true, "allowPrivilegeEscalation": false })).is_err());
        let local = |path: &str| json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": path } });
        assert!(build(json!({}), local("../etc/x")).is_err());
        assert!(build(json!({}), local("/etc/x")).is_err());
        assert_eq!(build(json!({}), local("a/b.json")).unwrap().seccomp, Seccomp::Localhost("/s/a/b.json".into()));
    }
}
