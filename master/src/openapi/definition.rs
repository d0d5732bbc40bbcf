//! The schema definitions as clients expect them: with group, version and kind, patch strategies and merge keys.

use serde_json::{Map, Value, json};

use super::{Edition, group_version_kind};
use crate::resource::kinds;
use crate::schema::definition::{REFERENCE_PREFIX, definitions};
use crate::schema::merge::merge;
use crate::schema::shape::QUANTITY;

const V3_REFERENCE_PREFIX: &str = "#/components/schemas/";

/// What patches of every kind may hold: anything.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
/// What every server answers when something is wrong or deleted.
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// What a delete may ask for.
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// A reference to a definition.
pub(super) fn reference(definition: &str, edition: Edition) -> Value {
    let prefix = match edition {
        Edition::V2 => REFERENCE_PREFIX,
        Edition::V3 => V3_REFERENCE_PREFIX,
    };
    json!({"$ref": format!("{prefix}{definition}")})
}

/// All definitions.
pub(super) fn annotated(edition: Edition) -> Map<String, Value> {
    let mut all = definitions();
    for (name, definition) in &mut all {
        translate(definition, edition);
        annotate(name, definition);
        if let Some(schema) = plain_schema(name, edition) {
            replace_type(definition, schema);
        }
    }
    for kind in kinds() {
        if let Some(definition) = all.get_mut(kind.definition) {
            definition["x-kubernetes-group-version-kind"] = json!([group_version_kind(kind)]);
        }
    }
    for (name, group, kind) in [("io.k8s.api.core.v1.Binding", "", "Binding"), (STATUS, "", "Status")] {
        if let Some(definition) = all.get_mut(name) {
            definition["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": "v1", "kind": kind}]);
        }
    }
    let words = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
    all.insert(PATCH.to_owned(), json!({"description": words, "type": "object"}));
    all
}

/// Definitions that are a number or a text, whatever the generated types say.
fn plain_schema(name: &str, edition: Edition) -> Option<Value> {
    let either = |number: &str| json!({"oneOf": [{"type": "string"}, {"type": number}]});
    match (name, edition) {
        (QUANTITY, Edition::V2) => Some(json!({"type": "string"})),
        (QUANTITY, Edition::V3) => Some(either("number")),
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Edition::V2) => {
            Some(json!({"type": "string", "format": "int-or-string"}))
        }
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Edition::V3) => {
            let mut schema = either("integer");
            schema["format"] = "int-or-string".into();
            Some(schema)
        }
        _ => None,
    }
}

fn replace_type(definition: &mut Value, schema: Value) {
    let description = definition["description"].take();
    *definition = schema;
    definition["description"] = description;
}

/// Adds patch strategies and merge keys to the fields of a definition.
fn annotate(name: &str, definition: &mut Value) {
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, schema) in properties {
        let merge = merge(name, field);
        if let Some(strategy) = merge.strategy() {
            schema["x-kubernetes-patch-strategy"] = strategy.into();
        }
        if let Some(key) = merge.key() {
            schema["x-kubernetes-patch-merge-key"] = key.into();
        }
    }
}

/// Rewrites references: version 3 knows no siblings of `$ref`, so that a description needs an `allOf`.
fn translate(schema: &mut Value, edition: Edition) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| translate(item, edition)),
        Value::Object(members) => {
            members.values_mut().for_each(|value| translate(value, edition));
            members.remove("x-kubernetes-int-or-string");
            if edition == Edition::V2 {
                return;
            }
            let Some(target) = members.get("$ref").and_then(Value::as_str) else { return };
            let target = reference(target.strip_prefix(REFERENCE_PREFIX).unwrap_or(target), edition);
            members.remove("$ref");
            if members.is_empty() {
                *schema = target;
            } else {
                members.insert("allOf".to_owned(), json!([target]));
            }
        }
        _ => {}
    }
}

/// The definitions that a document's paths lead to, directly or not.
pub(super) fn reachable(all: &Map<String, Value>, paths: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    let mut open = vec![paths];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                open.extend(members.values());
                let target = members.get("$ref").and_then(Value::as_str);
                let name = target.and_then(|t| t.strip_prefix(V3_REFERENCE_PREFIX));
                if let Some((name, definition)) = name.and_then(|name| all.get_key_value(name))
                    && !found.contains_key(name)
                {
                    found.insert(name.clone(), definition.clone());
                    open.push(definition);
                }
            }
            _ => {}
        }
    }
    found
}
