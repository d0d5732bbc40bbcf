//! What an update may change in a pod's spec: next to nothing.

use serde_json::Value;

use super::super::FieldError;
use super::super::meta::items;

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// How many differences an error lists.
const DIFFERENCES_MAX: usize = 10;

pub(super) fn validate(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    for list in ["containers", "initContainers"] {
        if items(old, list).len() != items(new, list).len() {
            errors.push(FieldError::forbidden(format!("spec.{list}"), "pod updates may not add or remove containers"));
            return;
        }
    }
    validate_deadline(old, new, errors);
    let mut allowed = new.clone();
    if let Some(fields) = allowed.as_object_mut() {
        restore(fields, old, "activeDeadlineSeconds");
        if only_adds(items(old, "tolerations"), items(new, "tolerations")) {
            restore(fields, old, "tolerations");
        }
        if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0)
            && new["terminationGracePeriodSeconds"] == 1
        {
            restore(fields, old, "terminationGracePeriodSeconds");
        }
    }
    for list in ["containers", "initContainers"] {
        let before = items(old, list).iter();
        let after = allowed.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in after.zip(before).filter_map(|(c, b)| Some((c.as_object_mut()?, b))) {
            restore(container, before, "image");
        }
    }
    let mut differences = Vec::new();
    difference("spec", old, &allowed, &mut differences);
    if !differences.is_empty() {
        errors.push(FieldError::forbidden("spec", &format!("{RULE}\n{}", differences.join("\n"))));
    }
}

fn restore(fields: &mut serde_json::Map<String, Value>, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

fn only_adds(old: &[Value], new: &[Value]) -> bool {
    old.iter().all(|toleration| new.contains(toleration))
}

/// A deadline may come, or come closer.
fn validate_deadline(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let path = "spec.activeDeadlineSeconds";
    match (old["activeDeadlineSeconds"].as_i64(), new["activeDeadlineSeconds"].as_i64()) {
        (Some(before), Some(after)) if after > before => {
            let detail = format!("must be less than or equal to previous value {before}");
            errors.push(FieldError::invalid(path, &after.into(), &detail));
        }
        (Some(before), None) => {
            let detail = format!("must not update from a positive integer to nil value: was {before}");
            errors.push(FieldError::invalid(path, &Value::Null, &detail));
        }
        _ => {}
    }
}

/// Names the fields that differ, with what they were and are.
fn difference(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new || found.len() >= DIFFERENCES_MAX {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                difference(&format!("{path}.{name}"), &old[name.as_str()], &new[name.as_str()], found);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                difference(&format!("{path}[{at}]"), before, after, found);
            }
        }
        _ => found.push(format!("{path}: {old} -> {new}")),
    }
}
