//! What all objects share: names, labels, annotations, finalizers, and reading values by path.

use berth_api::selector::{is_dns_label, is_dns_subdomain, is_label_key, is_label_value};
use serde_json::{Map, Value};

use super::{FieldError, Kind};

/// All annotations of an object together, keys and values.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

pub(super) const DNS_LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
     or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
     is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_KEY_WORDS: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and \
     end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' \
     or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What names look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameForm {
    /// DNS-1123 subdomain: labels joined by dots.
    Subdomain,
    /// DNS-1123 label: no dots.
    Label,
}

impl NameForm {
    /// What is wrong with a name, in Kubernetes' words.
    pub(super) fn complaint(self, name: &str) -> Option<String> {
        match self {
            Self::Subdomain if name.len() > 253 => Some("must be no more than 253 bytes".to_owned()),
            Self::Subdomain => (!is_dns_subdomain(name)).then(|| DNS_SUBDOMAIN_WORDS.to_owned()),
            Self::Label if name.len() > 63 => Some("must be no more than 63 bytes".to_owned()),
            Self::Label => (!is_dns_label(name)).then(|| DNS_LABEL_WORDS.to_owned()),
        }
    }
}

/// Restores one top-level field of `old` in `new`.
pub(super) fn keep(old: &Value, new: &mut Value, field: &str) {
    let Some(members) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => members.insert(field.to_owned(), value.clone()),
        None => members.remove(field),
    };
}

/// Restores every top-level field of `old` in `new`, but these.
pub(super) fn keep_all_but(old: &Value, new: &mut Value, fields: &[&str]) {
    let mut kept = old.clone();
    for field in fields {
        keep(new, &mut kept, field);
    }
    *new = kept;
}

/// Keeps what only the server may set in metadata, where a client left it out or tried to unset it.
pub(super) fn protect(old: &Value, new: &mut Value) {
    let Some(metadata) = new.as_object_mut().and_then(|members| child(members, "metadata")) else { return };
    for field in ["uid", "creationTimestamp", "selfLink"] {
        if let Some(value) = old["metadata"].get(field) {
            default(metadata, field, value.clone());
        }
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        if let Some(value) = old["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
}

/// The value at a dotted path.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, step| value.get(step))
}

/// The plain value at a dotted path as text; empty when nothing is there.
pub(super) fn text_at(object: &Value, path: &str) -> String {
    match at(object, path) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

/// The object in a field, made when nothing is there. Something that is no object is left alone, for the checks.
pub(super) fn child<'a>(parent: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    parent.entry(field).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

/// Sets a field that is absent.
pub(super) fn default(parent: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    let slot = parent.entry(field).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// The items of a list field, or none.
pub(super) fn items<'a>(parent: &'a Value, field: &str) -> &'a [Value] {
    parent.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The objects in a list field, to change them.
pub(super) fn objects_mut<'a>(
    parent: &'a mut Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    parent.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// What is wrong with an object's metadata.
pub(super) fn validate(kind: &Kind, object: &Value, form: NameForm) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text_at(object, "metadata.name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(complaint) = form.complaint(&name) {
        errors.push(FieldError::invalid("metadata.name", &name.into(), &complaint));
    }
    let namespace = text_at(object, "metadata.namespace");
    match (kind.namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required("metadata.namespace", "")),
        (true, false) => {
            if let Some(complaint) = NameForm::Label.complaint(&namespace) {
                errors.push(FieldError::invalid("metadata.namespace", &namespace.into(), &complaint));
            }
        }
        (false, true) => {}
        (false, false) => {
            errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
        }
    }
    validate_labels(object, &mut errors);
    validate_annotations(object, &mut errors);
    for (i, finalizer) in items(&object["metadata"], "finalizers").iter().enumerate() {
        if !finalizer.as_str().is_some_and(is_label_key) {
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), finalizer, LABEL_KEY_WORDS));
        }
    }
    errors
}

fn validate_labels(object: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in at(object, "metadata.labels").and_then(Value::as_object).into_iter().flatten() {
        if !is_label_key(key) {
            errors.push(FieldError::invalid("metadata.labels", &key.as_str().into(), LABEL_KEY_WORDS));
        }
        if !value.as_str().is_some_and(is_label_value) {
            errors.push(FieldError::invalid("metadata.labels", value, LABEL_VALUE_WORDS));
        }
    }
}

fn validate_annotations(object: &Value, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in at(object, "metadata.annotations").and_then(Value::as_object).into_iter().flatten() {
        // Keys are compared in lower case: upper case is allowed in their prefix.
        if !is_label_key(&key.to_ascii_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &key.as_str().into(), LABEL_KEY_WORDS));
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATION_BYTES_MAX));
    }
}

/// What no update of any kind may change.
pub(super) fn validate_update(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        let (before, after) = (&old["metadata"][field], &new["metadata"][field]);
        if before != after {
            errors.push(FieldError::invalid(format!("metadata.{field}"), after, "field is immutable"));
        }
    }
    if old["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let before = items(&old["metadata"], "finalizers");
    let added: Vec<&Value> = items(&new["metadata"], "finalizers").iter().filter(|f| !before.contains(f)).collect();
    if !added.is_empty() {
        let detail =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        errors.push(FieldError::forbidden("metadata.finalizers", &detail));
    }
}
