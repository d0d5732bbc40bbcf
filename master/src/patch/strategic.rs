//! Strategic merge patch: a merge patch that knows how the lists of the Kubernetes types merge.
//!
//! Directives within a patch:
//! - `$patch: replace | delete | merge` in an object, or as an item of a list that merges;
//! - `$retainKeys: […]`: the only fields that the object keeps;
//! - `$deleteFromPrimitiveList/FIELD: […]`: texts that leave a set;
//! - `$setElementOrder/FIELD: […]`: the order of a list that merges, by key.

use serde_json::{Map, Value};

use super::order;
use super::{PatchError, parse_object};
use crate::resource::Kind;
use crate::schema::merge::Merge;
use crate::schema::shape::{self, Field, Shape};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_SET: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Members = Map<String, Value>;

pub(super) fn apply(kind: &Kind, current: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = parse_object(patch)?;
    let current = current.as_object().cloned().unwrap_or_default();
    merge_object(shape::of_kind(kind), current, patch, "").map(Value::Object)
}

/// What `$patch` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// Takes the directive out of an object.
fn take_directive(members: &mut Members, path: &str) -> Result<Directive, PatchError> {
    match members.remove(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(word)) => match word.as_str() {
            "merge" => Ok(Directive::Merge),
            "replace" => Ok(Directive::Replace),
            "delete" => Ok(Directive::Delete),
            other => Err(PatchError::malformed(format!("unknown patch type {other:?} at {path:?}"))),
        },
        Some(other) => Err(PatchError::malformed(format!("$patch at {path:?} must be a string, not {other}"))),
    }
}

fn merge_object(shape: &Shape, mut current: Members, mut patch: Members, path: &str) -> Result<Members, PatchError> {
    match take_directive(&mut patch, path)? {
        Directive::Replace => return Ok(strip_members(patch)),
        Directive::Delete => return Ok(Members::new()),
        Directive::Merge => {}
    }
    retain_keys(&mut current, &mut patch, path)?;
    let orders = take_orders(&mut patch, path)?;
    let before: Vec<Vec<Value>> = orders.iter().map(|(field, _)| list(&current, field)).collect();
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(DELETE_FROM_SET) {
            delete_from_set(&mut current, field, &value, path)?;
            continue;
        }
        let order = orders.iter().find(|(field, _)| *field == name).map(|(_, order)| order.as_slice());
        merge_field(shape, &mut current, &name, value, order, path)?;
    }
    for ((name, order), before) in orders.iter().zip(&before) {
        put_in_order(shape, &mut current, name, order, before);
    }
    Ok(current)
}

/// Merges one member of a patch.
fn merge_field(
    shape: &Shape,
    current: &mut Members,
    name: &str,
    value: Value,
    order: Option<&[Value]>,
    path: &str,
) -> Result<(), PatchError> {
    let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let (inner, merge) = inner_shape(shape, name);
    let before = current.remove(name);
    let after = match (before, value) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(before)), Value::Object(patch)) => {
            Value::Object(merge_object(inner, before, patch, &path)?)
        }
        // Merged into nothing, so that directives and broken items are seen.
        (_, Value::Object(patch)) => Value::Object(merge_object(inner, Members::new(), patch, &path)?),
        (before, Value::Array(items)) => {
            let before = match before {
                Some(Value::Array(before)) => before,
                _ => Vec::new(),
            };
            merge_list(inner, merge, before, items, order, &path)?
        }
        (_, value) => value,
    };
    current.insert(name.to_owned(), after);
    Ok(())
}

/// What a member holds, and how it merges.
fn inner_shape<'a>(shape: &'a Shape, name: &str) -> (&'a Shape, Merge) {
    match shape {
        Shape::Object(id) => match shape::object(*id).and_then(|o| o.field(name)) {
            Some(Field { shape, merge }) => (shape, *merge),
            None => (&Shape::Any, Merge::Whole),
        },
        Shape::Map(inner) => (inner, Merge::Whole),
        _ => (&Shape::Any, Merge::Whole),
    }
}

fn merge_list(
    shape: &Shape,
    merge: Merge,
    before: Vec<Value>,
    patch: Vec<Value>,
    order: Option<&[Value]>,
    path: &str,
) -> Result<Value, PatchError> {
    let item = if let Shape::List(item) = shape { item } else { &Shape::Any };
    let merged = match merge {
        Merge::Whole => patch.into_iter().filter_map(strip).collect(),
        Merge::Set => merge_set(before, patch),
        Merge::ByKey(key) | Merge::ByKeyRetainingKeys(key) => {
            if let Some(order) = order {
                order::check(&patch, order, key, path)?;
            }
            merge_by_key(item, key, before, patch, path)?
        }
    };
    Ok(Value::Array(merged))
}

fn merge_set(mut before: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    for value in patch {
        if !before.contains(&value) {
            before.push(value);
        }
    }
    before
}

/// Merges items that are the same by their key; new ones come last.
fn merge_by_key(
    shape: &Shape,
    key: &str,
    mut before: Vec<Value>,
    patch: Vec<Value>,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    // An item that says "replace" replaces the list with the other items.
    if patch.iter().any(|item| item[PATCH] == "replace") {
        return Ok(patch.into_iter().filter(|item| item[PATCH] != "replace").filter_map(strip).collect());
    }
    for (at, item) in patch.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        let Value::Object(mut item) = item else {
            return Err(PatchError::malformed(format!("{path}: expected an object with {key:?}, not {item}")));
        };
        let Some(id) = item.get(key).cloned() else {
            let detail = format!("{path}: map: {} does not contain declared merge key: {key}", Value::Object(item));
            return Err(PatchError::malformed(detail));
        };
        if item.get(PATCH).is_some_and(|word| word == "delete") {
            before.retain(|current| current.get(key) != Some(&id));
            continue;
        }
        take_directive(&mut item, &path)?;
        match before.iter_mut().find(|current| current.get(key) == Some(&id)) {
            Some(current) => {
                let members = current.as_object().cloned().unwrap_or_default();
                *current = Value::Object(merge_object(shape, members, item, &path)?);
            }
            None => before.push(Value::Object(merge_object(shape, Members::new(), item, &path)?)),
        }
    }
    Ok(before)
}

/// Obeys `$retainKeys`.
fn retain_keys(current: &mut Members, patch: &mut Members, path: &str) -> Result<(), PatchError> {
    let Some(list) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(list) = list else {
        return Err(PatchError::malformed(format!("$retainKeys at {path:?} must be a list of strings")));
    };
    let kept = |name: &str| list.iter().any(|k| k == name);
    if let Some(stray) = patch.keys().find(|name| !name.starts_with('$') && !kept(name)) {
        return Err(PatchError::malformed(format!("{path}: {stray:?} is set but not among its $retainKeys")));
    }
    current.retain(|name, _| kept(name));
    Ok(())
}

/// Obeys `$deleteFromPrimitiveList/FIELD`.
fn delete_from_set(current: &mut Members, field: &str, gone: &Value, path: &str) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else {
        return Err(PatchError::malformed(format!("{DELETE_FROM_SET}{field} at {path:?} must be a list")));
    };
    if let Some(Value::Array(values)) = current.get_mut(field) {
        values.retain(|value| !gone.contains(value));
    }
    Ok(())
}

/// Takes the `$setElementOrder/FIELD` members out of a patch.
fn take_orders(patch: &mut Members, path: &str) -> Result<Vec<(String, Vec<Value>)>, PatchError> {
    let names: Vec<String> = patch.keys().filter(|name| name.starts_with(SET_ORDER)).cloned().collect();
    let mut orders = Vec::new();
    for name in names {
        let Some(Value::Array(order)) = patch.remove(&name) else {
            return Err(PatchError::malformed(format!("{name} at {path:?} must be a list")));
        };
        orders.push((name[SET_ORDER.len()..].to_owned(), order));
    }
    Ok(orders)
}

fn list(members: &Members, field: &str) -> Vec<Value> {
    members.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn put_in_order(shape: &Shape, current: &mut Members, name: &str, wanted: &[Value], before: &[Value]) {
    let (_, merge) = inner_shape(shape, name);
    if merge == Merge::Whole {
        return;
    }
    if let Some(Value::Array(items)) = current.get_mut(name) {
        *items = order::arrange(std::mem::take(items), wanted, before, merge.key());
    }
}

/// A value as it is inserted where nothing was: without directives and without what they delete.
fn strip(value: Value) -> Option<Value> {
    match value {
        Value::Object(members) if members.get(PATCH).is_some_and(|word| word == "delete" || word == "replace") => None,
        Value::Object(members) => Some(Value::Object(strip_members(members))),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(strip).collect())),
        plain => Some(plain),
    }
}

fn strip_members(members: Members) -> Members {
    let is_directive = |name: &str| {
        name == PATCH || name == RETAIN_KEYS || name.starts_with(DELETE_FROM_SET) || name.starts_with(SET_ORDER)
    };
    members
        .into_iter()
        .filter(|(name, value)| !is_directive(name) && !value.is_null())
        .filter_map(|(name, value)| Some((name, strip(value)?)))
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
