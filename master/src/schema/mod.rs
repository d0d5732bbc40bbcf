//! The shape of every kind, from the generated types: what a field is called, what it holds, how it merges.

pub(crate) mod definition;
pub(crate) mod merge;
pub(crate) mod shape;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use berth_api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use crate::resource::{FieldError, Kind};
use shape::{ObjectShape, Shape};

/// How many findings are collected of one object; what is beyond is not looked for.
pub const FINDINGS_MAX: usize = 50;

/// What does not fit the schema.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SchemaFindings {
    /// Paths of fields that the kind does not have, `spec.containers[0].foo`.
    pub unknown: Vec<String>,
    /// Fields that hold another type than they should.
    pub wrong_type: Vec<FieldError>,
}

impl SchemaFindings {
    /// Whether the object fits.
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.wrong_type.is_empty()
    }

    fn is_full(&self) -> bool {
        self.unknown.len() + self.wrong_type.len() >= FINDINGS_MAX
    }
}

/// Compares an object with the schema of its kind. `null` stands for an absent field and fits everywhere.
pub fn check(kind: &Kind, object: &Value) -> SchemaFindings {
    let mut findings = SchemaFindings::default();
    check_value(shape::of_kind(kind), object, &mut String::new(), &mut findings);
    findings
}

/// Writes an object as a server does that keeps typed objects: without what the kind does not have, without `null`s, and
/// with quantities in their canonical form.
pub fn normalise(kind: &Kind, object: &mut Value) {
    normalise_value(shape::of_kind(kind), object);
}

fn check_value(shape: &Shape, value: &Value, path: &mut String, findings: &mut SchemaFindings) {
    if value.is_null() || findings.is_full() {
        return;
    }
    match (shape, value) {
        (Shape::Object(id), Value::Object(members)) => {
            if let Some(object) = shape::object(*id) {
                check_object(object, members, path, findings);
            }
        }
        (Shape::List(item), Value::Array(values)) => {
            for (at, value) in values.iter().enumerate() {
                within(path, &format!("[{at}]"), |path| check_value(item, value, path, findings));
            }
        }
        (Shape::Map(item), Value::Object(members)) => {
            for (key, value) in members {
                within(path, &format!("[{key}]"), |path| check_value(item, value, path, findings));
            }
        }
        _ => {
            if let Some(expected) = mismatch(shape, value) {
                let at = if path.is_empty() { "<object>" } else { path.as_str() };
                findings.wrong_type.push(FieldError::type_invalid(at, value, &format!("must be {expected}")));
            }
        }
    }
}

fn check_object(
    object: &ObjectShape,
    members: &serde_json::Map<String, Value>,
    path: &mut String,
    findings: &mut SchemaFindings,
) {
    for (name, value) in members {
        let dot = if path.is_empty() { "" } else { "." };
        within(path, &format!("{dot}{name}"), |path| match object.field(name) {
            Some(field) => check_value(&field.shape, value, path, findings),
            None if findings.is_full() => {}
            None => findings.unknown.push(path.clone()),
        });
    }
}

/// Lengthens the path for the duration of a call.
fn within(path: &mut String, step: &str, call: impl FnOnce(&mut String)) {
    let before = path.len();
    path.push_str(step);
    call(path);
    path.truncate(before);
}

/// What should be there instead, when a plain value is not what it should be.
fn mismatch(shape: &Shape, value: &Value) -> Option<&'static str> {
    let (fits, expected) = match shape {
        Shape::Any => (true, "anything"),
        Shape::Bool => (value.is_boolean(), "true or false"),
        Shape::Text => (value.is_string(), "a string"),
        Shape::Bytes => (value.as_str().is_some_and(|t| BASE64.decode(t).is_ok()), "a string of base64 encoded bytes"),
        Shape::Time => {
            (value.as_str().is_some_and(|t| t.parse::<Timestamp>().is_ok()), "a time such as 2026-01-31T12:00:00Z")
        }
        Shape::Int32 => (value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()), "a 32 bit integer"),
        Shape::Int64 => (value.is_i64(), "a 64 bit integer"),
        Shape::Number => (value.is_number(), "a number"),
        Shape::Quantity => (quantity(value).is_some(), "a quantity such as 500m, 2 or 1Gi"),
        Shape::IntOrText => (value.is_number() || value.is_string(), "an integer or a string"),
        Shape::List(_) => (false, "a list"),
        Shape::Map(_) | Shape::Object(_) => (false, "an object"),
    };
    (!fits).then_some(expected)
}

/// A quantity as a text or, as manifests often have it, as a number.
fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn normalise_value(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Object(id), Value::Object(members)) => {
            let Some(object) = shape::object(*id) else { return };
            members.retain(|name, value| match object.field(name) {
                Some(field) if !value.is_null() => {
                    normalise_value(&field.shape, value);
                    true
                }
                _ => false,
            });
        }
        (Shape::List(item), Value::Array(values)) => values.iter_mut().for_each(|v| normalise_value(item, v)),
        (Shape::Map(item), Value::Object(members)) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(|v| normalise_value(item, v));
        }
        (Shape::Quantity, value) => {
            if let Some(quantity) = quantity(value) {
                *value = quantity.to_string().into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::find;

    fn findings(object: &Value) -> (Vec<String>, Vec<String>) {
        let found = check(find("", "v1", "pods").unwrap(), object);
        (found.unknown, found.wrong_type.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let pod = json!({"spec": {"containers": [{"name": "a", "foo": 1, "env": [{"nam": "x"}]}], "bar": null},
                         "metadata": {"labels": {"any": "thing"}}, "extra": {}});
        let (mut unknown, wrong) = findings(&pod);
        unknown.sort();
        assert_eq!(unknown, ["extra", "spec.bar", "spec.containers[0].env[0].nam", "spec.containers[0].foo"]);
        assert_eq!(wrong, [""; 0]);
    }

    #[test]
    fn wrong_types_are_named_by_their_path() {
        let pod = json!({"metadata": {"labels": {"a": 1}, "creationTimestamp": "yesterday"},
            "spec": {"hostNetwork": "yes", "containers": [{"name": "a", "ports": [{"containerPort": "80"}],
                     "resources": {"limits": {"cpu": 1, "memory": true}}, "command": "sh"}]}});
        let (unknown, mut wrong) = findings(&pod);
        wrong.sort();
        assert_eq!(unknown, [""; 0]);
        assert_eq!(
            wrong,
            [
                r#"metadata.creationTimestamp: Invalid value: "yesterday": must be a time such as 2026-01-31T12:00:00Z"#,
                r#"metadata.labels[a]: Invalid value: 1: must be a string"#,
                r#"spec.containers[0].command: Invalid value: "sh": must be a list"#,
                r#"spec.containers[0].ports[0].containerPort: Invalid value: "80": must be a 32 bit integer"#,
                r#"spec.containers[0].resources.limits[memory]: Invalid value: true: must be a quantity such as 500m, 2 or 1Gi"#,
                r#"spec.hostNetwork: Invalid value: "yes": must be true or false"#,
            ]
        );
    }

    #[test]
    fn objects_that_are_none_are_found() {
        assert_eq!(findings(&json!([])).1, ["<object>: Invalid value: []: must be an object"]);
    }

    #[test]
    fn normalising_leaves_what_the_kind_has() {
        let mut pod = json!({"metadata": {"creationTimestamp": null, "name": "a", "x": 1}, "spec": {"containers": []}});
        normalise(find("", "v1", "pods").unwrap(), &mut pod);
        assert_eq!(pod, json!({"metadata": {"name": "a"}, "spec": {"containers": []}}));
    }
}
