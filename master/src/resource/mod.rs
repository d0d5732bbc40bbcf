//! The one table of kinds: names, scope, verbs, subresources, schema and strategy. Serving a new kind is one row here,
//! and a strategy where Kubernetes defaults, checks or protects some of its fields.

mod config;
mod coordination;
mod event;
mod field_error;
mod meta;
mod namespace;
mod node;
pub mod pod;
mod strategy;
#[cfg(test)]
mod strategy_tests;

use std::sync::LazyLock;

pub use field_error::{FieldError, FieldReason};
use k8s_openapi::api::coordination::v1 as coordination_v1;
use k8s_openapi::api::core::v1 as core_v1;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use strategy::Strategy;

use crate::schema;

/// What can be done with a collection that holds ordinary objects.
const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One kind of object that the master serves.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// CamelCase name, `Pod`.
    pub kind: &'static str,
    /// Name in paths, `pods`.
    pub plural: &'static str,
    /// Name on command lines, `pod`.
    pub singular: &'static str,
    /// Abbreviations, `po`.
    pub short_names: &'static [&'static str],
    /// Groups of kinds such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether there is a `status` subresource, which alone may change `status`.
    pub has_status: bool,
    /// What can be done with the objects themselves.
    pub verbs: &'static [&'static str],
    /// What can be done below an object.
    pub subresources: &'static [Subresource],
    /// Name of the schema definition, `io.k8s.api.core.v1.Pod`.
    pub definition: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    strategy: &'static (dyn Strategy + Sync),
}

/// A path below an object, for discovery.
pub struct Subresource {
    /// Name in paths, `status`.
    pub name: &'static str,
    /// Kind of what is sent and answered, `Pod` or `Binding`.
    pub kind: &'static str,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    vec![
        Kind {
            short_names: &["po"],
            categories: &["all"],
            has_status: true,
            subresources: &[
                Subresource { name: "binding", kind: "Binding", verbs: &["create"] },
                Subresource { name: "log", kind: "Pod", verbs: &["get"] },
                Subresource { name: "status", kind: "Pod", verbs: STATUS_VERBS },
            ],
            strategy: &pod::PodStrategy,
            ..core::<core_v1::Pod>("Pod", "pods", "pod", "io.k8s.api.core.v1.Pod")
        },
        Kind {
            short_names: &["no"],
            namespaced: false,
            has_status: true,
            subresources: &[Subresource { name: "status", kind: "Node", verbs: STATUS_VERBS }],
            strategy: &node::NodeStrategy,
            ..core::<core_v1::Node>("Node", "nodes", "node", "io.k8s.api.core.v1.Node")
        },
        Kind {
            short_names: &["ns"],
            namespaced: false,
            has_status: true,
            // Kubernetes has no deletecollection here, so that nobody deletes everything by a slip.
            verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
            subresources: &[
                Subresource { name: "finalize", kind: "Namespace", verbs: &["update"] },
                Subresource { name: "status", kind: "Namespace", verbs: STATUS_VERBS },
            ],
            strategy: &namespace::NamespaceStrategy,
            ..core::<core_v1::Namespace>("Namespace", "namespaces", "namespace", "io.k8s.api.core.v1.Namespace")
        },
        Kind {
            short_names: &["cm"],
            strategy: &config::ConfigMapStrategy,
            ..core::<core_v1::ConfigMap>("ConfigMap", "configmaps", "configmap", "io.k8s.api.core.v1.ConfigMap")
        },
        Kind {
            strategy: &config::SecretStrategy,
            ..core::<core_v1::Secret>("Secret", "secrets", "secret", "io.k8s.api.core.v1.Secret")
        },
        Kind {
            short_names: &["sa"],
            strategy: &config::ServiceAccountStrategy,
            ..core::<core_v1::ServiceAccount>(
                "ServiceAccount",
                "serviceaccounts",
                "serviceaccount",
                "io.k8s.api.core.v1.ServiceAccount",
            )
        },
        Kind {
            short_names: &["ev"],
            strategy: &event::EventStrategy,
            ..core::<core_v1::Event>("Event", "events", "event", "io.k8s.api.core.v1.Event")
        },
        Kind {
            group: "coordination.k8s.io",
            strategy: &coordination::LeaseStrategy,
            ..core::<coordination_v1::Lease>("Lease", "leases", "lease", "io.k8s.api.coordination.v1.Lease")
        },
    ]
});

/// A row for a namespaced core/v1 kind with all verbs and nothing special; the table overrides what differs.
fn core<T: JsonSchema>(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    definition: &'static str,
) -> Kind {
    Kind {
        group: "",
        version: "v1",
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: true,
        has_status: false,
        verbs: ALL_VERBS,
        subresources: &[],
        definition,
        schema: SchemaGenerator::subschema_for::<T>,
        strategy: &strategy::Plain,
    }
}

/// All kinds, in the order in which discovery lists them.
pub fn kinds() -> &'static [Kind] {
    &KINDS
}

/// The kind that is served at a path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    kinds().iter().find(|k| k.group == group && k.version == version && k.plural == plural)
}

impl Kind {
    /// `v1` or `coordination.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Adds the schema definitions of this kind to a generator.
    pub(crate) fn add_schema(&self, generator: &mut SchemaGenerator) {
        let _reference = (self.schema)(generator);
    }

    /// Makes an object that a client wants created ready to be checked and stored: defaults are filled in, and what a
    /// client may not set is reset. Names, uid, timestamps and versions are the server's.
    pub fn prepare_create(&self, object: &mut Value) {
        schema::normalise(self, object);
        if self.has_status
            && !self.strategy.keeps_status_on_create()
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        self.strategy.default(object);
        self.strategy.prepare_create(object);
    }

    /// Makes an object that a client wants stored in place of `old` ready to be checked: defaults are filled in, and
    /// what this subresource (or the object itself, for `None`) may not change is kept as it was.
    pub fn prepare_update(&self, old: &Value, new: &mut Value, sub: Option<&str>) {
        schema::normalise(self, new);
        match sub {
            None if self.has_status => meta::keep(old, new, "status"),
            None => {}
            Some("status") => meta::keep_all_but(old, new, &["metadata", "status"]),
            Some(_) => {}
        }
        meta::protect(old, new);
        self.strategy.default(new);
        self.strategy.prepare_update(old, new, sub);
    }

    /// What is wrong with an object that is about to be created.
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = meta::validate(self, object, self.strategy.name_form());
        self.strategy.validate(object, &mut errors);
        errors
    }

    /// What is wrong with an object that is about to replace another.
    pub fn validate_update(&self, old: &Value, new: &Value) -> Vec<FieldError> {
        let mut errors = meta::validate(self, new, self.strategy.name_form());
        meta::validate_update(old, new, &mut errors);
        self.strategy.validate(new, &mut errors);
        self.strategy.validate_update(old, new, &mut errors);
        errors
    }

    /// The value of a field that field selectors may name; `None` for a path that they may not. An absent value is the
    /// empty text.
    pub fn field(&self, object: &Value, path: &str) -> Option<String> {
        let selectable = path == "metadata.name"
            || (path == "metadata.namespace" && self.namespaced)
            || self.strategy.selectable_fields().contains(&path);
        if !selectable {
            return None;
        }
        Some(meta::text_at(object, path))
    }
}
