//! The order of a list that merged, as `$setElementOrder` asks for it.
//!
//! What the patch knows stands in the order that it asks for. What only the server has keeps its place among those that
//! the server had already.

use serde_json::Value;

use super::PatchError;

/// What tells an item from others: its key's value, or itself where the list is a set.
fn id<'a>(item: &'a Value, key: Option<&str>) -> &'a Value {
    match key {
        Some(key) => &item[key],
        None => item,
    }
}

fn position(list: &[Value], wanted: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|item| id(item, key) == wanted)
}

/// Puts merged items in order. `before` is the list before it merged.
pub(super) fn arrange(items: Vec<Value>, wanted: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |item: &Value| position(wanted, id(item, key), key);
    let server_place = |item: &Value| position(before, id(item, key), key);
    let (mut known, server_only): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|item| place(item).is_some());
    known.sort_by_key(|item| place(item));

    let mut arranged = Vec::with_capacity(known.len() + server_only.len());
    let mut server_only = server_only.into_iter().peekable();
    for item in known {
        let here = server_place(&item);
        while let Some(server) = server_only.next_if(|s| here.is_some() && server_place(s) < here) {
            arranged.push(server);
        }
        arranged.push(item);
    }
    arranged.extend(server_only);
    arranged
}

/// Refuses a patch whose items stand in another order than the one that it asks for.
pub(super) fn check(patch: &[Value], wanted: &[Value], key: &str, path: &str) -> Result<(), PatchError> {
    let mut last = 0;
    for item in patch.iter().filter(|item| item.get("$patch").is_none()) {
        let Some(place) = position(wanted, id(item, Some(key)), Some(key)) else { continue };
        if place < last {
            let detail = format!("{path}: the order in the patch list doesn't match its $setElementOrder list");
            return Err(PatchError::Malformed { detail });
        }
        last = place;
    }
    Ok(())
}
