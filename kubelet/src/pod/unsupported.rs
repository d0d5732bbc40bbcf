//! What a pod asks for and this node does not do: told, never dropped in silence. Pure.

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};

use super::desired::Desired;

/// One sentence for each field that is set and has no effect here.
pub(crate) fn unsupported(desired: &Desired) -> Vec<String> {
    let mut found = Found::default();
    let spec = desired.spec();
    pod(spec, &mut found);
    for (_, container) in desired.containers() {
        of_container(container, &mut found);
    }
    found.sentences.extend(spec.volumes.iter().flatten().flat_map(crate::volume::left_out));
    found.sentences
}

#[derive(Default)]
struct Found {
    sentences: Vec<String>,
}

impl Found {
    fn when(&mut self, set: bool, field: &str) {
        if set {
            self.sentences.push(format!("{field} is not supported on this node and has no effect"));
        }
    }
}

fn pod(spec: &PodSpec, found: &mut Found) {
    found.when(spec.host_users == Some(false), "spec.hostUsers: false");
    found.when(spec.runtime_class_name.is_some(), "spec.runtimeClassName");
    found.when(spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()), "spec.resourceClaims");
    found.when(spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()), "spec.ephemeralContainers");
    let fqdn_only = spec.subdomain.as_ref().is_some_and(|name| !name.is_empty());
    found.when(fqdn_only && spec.set_hostname_as_fqdn != Some(true), "spec.subdomain (in the pod's /etc/hosts)");
    let Some(context) = &spec.security_context else { return };
    found.when(context.se_linux_options.is_some(), "spec.securityContext.seLinuxOptions");
    found.when(context.app_armor_profile.is_some(), "spec.securityContext.appArmorProfile");
    found.when(context.windows_options.is_some(), "spec.securityContext.windowsOptions");
    let strict = context.supplemental_groups_policy.as_deref() == Some("Strict");
    found.when(strict, "spec.securityContext.supplementalGroupsPolicy: Strict");
}

fn of_container(container: &Container, found: &mut Found) {
    let mut when = |set: bool, field: &str| found.when(set, &format!("containers[{}].{field}", container.name));
    when(container.stdin == Some(true), "stdin");
    when(container.tty == Some(true), "tty");
    when(container.volume_devices.as_ref().is_some_and(|list| !list.is_empty()), "volumeDevices");
    when(container.restart_policy_rules.as_ref().is_some_and(|list| !list.is_empty()), "restartPolicyRules");
    let own_policy = container.restart_policy.as_deref().is_some_and(|policy| policy != "Always");
    when(own_policy, "restartPolicy");
    for (probe, name) in [
        (&container.startup_probe, "startupProbe.grpc"),
        (&container.readiness_probe, "readinessProbe.grpc"),
        (&container.liveness_probe, "livenessProbe.grpc"),
    ] {
        when(probe.as_ref().is_some_and(is_grpc), name);
    }
    let mounts = || container.volume_mounts.iter().flatten();
    when(
        mounts().any(|mount| mount.recursive_read_only.as_deref() == Some("Enabled")),
        "volumeMounts.recursiveReadOnly",
    );
    when(mounts().any(|mount| mount.bind_mount_options.is_some()), "volumeMounts.bindMountOptions");
    let limits = container.resources.iter().filter_map(|resources| resources.limits.as_ref()).flatten();
    for (name, _) in limits {
        when(!matches!(name.as_str(), "cpu" | "memory"), &format!("resources.limits[{name}]"));
    }
    let Some(context) = &container.security_context else { return };
    when(context.se_linux_options.is_some(), "securityContext.seLinuxOptions");
    when(context.app_armor_profile.is_some(), "securityContext.appArmorProfile");
    when(context.windows_options.is_some(), "securityContext.windowsOptions");
    when(context.proc_mount.as_deref().is_some_and(|kind| kind != "Default"), "securityContext.procMount");
}

fn is_grpc(probe: &Probe) -> bool {
    probe.grpc.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::desired::Presence;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn each_field_without_effect_is_named() {
        let spec = json!({
            "hostUsers": false,
            "containers": [{ "name": "c", "tty": true, "livenessProbe": { "grpc": { "port": 1 } } }],
        });
        let pod = json!({ "metadata": { "name": "p", "uid": "u" }, "spec": spec });
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        let desired = Desired::parse(pod, Presence::Wanted, Duration::from_secs(300)).unwrap();
        let sentences = unsupported(&desired);
        assert_eq!(sentences.len(), 3);
        assert!(sentences.iter().any(|text| text.starts_with("containers[c].livenessProbe.grpc")));
    }
}
