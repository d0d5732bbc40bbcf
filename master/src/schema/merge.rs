//! How lists merge: the patch strategies and merge keys of the Kubernetes API types, in one table of facts.
//!
//! The generated types do not carry them. A list that is not named here is replaced as a whole.

/// How a patch's value for a field meets the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Merge {
    /// Lists are replaced, objects merge field by field.
    #[default]
    Whole,
    /// A list of objects that are the same when this field is.
    ByKey(&'static str),
    /// Like `ByKey`, and a patch may name the only fields that an item keeps.
    ByKeyRetainingKeys(&'static str),
    /// A set of texts.
    Set,
}

impl Merge {
    /// The field that tells items apart, where there is one.
    pub(crate) fn key(self) -> Option<&'static str> {
        match self {
            Self::ByKey(key) | Self::ByKeyRetainingKeys(key) => Some(key),
            Self::Whole | Self::Set => None,
        }
    }

    /// The words of `x-kubernetes-patch-strategy`.
    pub(crate) fn strategy(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::ByKey(_) | Self::Set => Some("merge"),
            Self::ByKeyRetainingKeys(_) => Some("merge,retainKeys"),
        }
    }
}

const CORE: &str = "io.k8s.api.core.v1.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Package, type, field, and how it merges.
const FACTS: &[(&str, &str, &str, Merge)] = &[
    (META, "ObjectMeta", "finalizers", Merge::Set),
    (META, "ObjectMeta", "ownerReferences", Merge::ByKey("uid")),
    (CORE, "Container", "env", Merge::ByKey("name")),
    (CORE, "Container", "ports", Merge::ByKey("containerPort")),
    (CORE, "Container", "volumeDevices", Merge::ByKey("devicePath")),
    (CORE, "Container", "volumeMounts", Merge::ByKey("mountPath")),
    (CORE, "ContainerStatus", "volumeMounts", Merge::ByKey("mountPath")),
    (CORE, "EphemeralContainer", "env", Merge::ByKey("name")),
    (CORE, "EphemeralContainer", "ports", Merge::ByKey("containerPort")),
    (CORE, "EphemeralContainer", "volumeDevices", Merge::ByKey("devicePath")),
    (CORE, "EphemeralContainer", "volumeMounts", Merge::ByKey("mountPath")),
    (CORE, "NamespaceStatus", "conditions", Merge::ByKey("type")),
    (CORE, "NodeSpec", "podCIDRs", Merge::Set),
    (CORE, "NodeStatus", "addresses", Merge::ByKey("type")),
    (CORE, "NodeStatus", "conditions", Merge::ByKey("type")),
    (CORE, "PodSpec", "containers", Merge::ByKey("name")),
    (CORE, "PodSpec", "ephemeralContainers", Merge::ByKey("name")),
    (CORE, "PodSpec", "hostAliases", Merge::ByKey("ip")),
    (CORE, "PodSpec", "imagePullSecrets", Merge::ByKey("name")),
    (CORE, "PodSpec", "initContainers", Merge::ByKey("name")),
    (CORE, "PodSpec", "resourceClaims", Merge::ByKeyRetainingKeys("name")),
    (CORE, "PodSpec", "schedulingGates", Merge::ByKey("name")),
    (CORE, "PodSpec", "topologySpreadConstraints", Merge::ByKey("topologyKey")),
    (CORE, "PodSpec", "volumes", Merge::ByKeyRetainingKeys("name")),
    (CORE, "PodStatus", "conditions", Merge::ByKey("type")),
    (CORE, "PodStatus", "podIPs", Merge::ByKey("ip")),
    (CORE, "PodStatus", "resourceClaimStatuses", Merge::ByKeyRetainingKeys("name")),
    (CORE, "ServiceAccount", "secrets", Merge::ByKey("name")),
];

/// How a field of a definition (`io.k8s.api.core.v1.PodSpec`) merges.
pub(crate) fn merge(definition: &str, field: &str) -> Merge {
    FACTS
        .iter()
        .find(|(package, name, f, _)| *f == field && definition.strip_prefix(package) == Some(name))
        .map_or(Merge::Whole, |(_, _, _, merge)| *merge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::definition::definitions;

    #[test]
    fn every_fact_names_a_list_that_exists() {
        let definitions = definitions();
        for (package, name, field, _) in FACTS {
            let kind = &definitions[&format!("{package}{name}")]["properties"][field]["type"];
            assert_eq!(kind, "array", "{name}.{field}");
        }
    }
}
