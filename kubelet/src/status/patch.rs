//! The smallest strategic merge patch from one status to another. Pure.

use serde_json::{Map, Value, json};

/// How the lists of a status are merged by the master. All others are replaced as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lists<'a> {
    /// Lists whose elements are merged by their `type`: only elements that changed are sent, and others' stay.
    pub merged_by_type: &'a [&'a str],
    /// Lists that the master would merge, where all is to be replaced.
    pub replaced: &'a [&'a str],
}

/// What has to be sent so that `old` becomes `new`; nothing if it is. Fields that `new` lacks are taken away, elements of
/// lists that are merged by type are not: they may be somebody else's.
pub(crate) fn difference(old: &Value, new: &Value, lists: &Lists<'_>) -> Option<Value> {
    let empty = Map::new();
    let old = old.as_object().unwrap_or(&empty);
    let new = new.as_object().unwrap_or(&empty);
    let mut patch = Map::new();
    for (name, value) in new {
        let before = old.get(name);
        if before == Some(value) {
            continue;
        }
        let change = if lists.merged_by_type.contains(&name.as_str()) {
            changed_by_type(before, value)
        } else if lists.replaced.contains(&name.as_str()) {
            Some(replaced(before, value))
        } else if let (Some(Value::Object(_)), Value::Object(_)) = (before, value) {
            let plain = Lists { merged_by_type: &[], replaced: &[] };
            before.and_then(|before| difference(before, value, &plain))
        } else {
            Some(value.clone())
        };
        if let Some(change) = change {
            patch.insert(name.clone(), change);
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        if !lists.merged_by_type.contains(&name.as_str()) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn changed_by_type(before: Option<&Value>, value: &Value) -> Option<Value> {
    let elements = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let before = elements(before);
    let mut changed: Vec<Value> =
        elements(Some(value)).into_iter().filter(|element| !before.contains(element)).collect();
    for element in &mut changed {
        if let Some(old) = before.iter().find(|old| old.get("type") == element.get("type")) {
            take_away_missing(element, old);
        }
    }
    (!changed.is_empty()).then_some(Value::Array(changed))
}

/// Elements are merged field by field, so a field that is gone has to be said to be.
fn take_away_missing(element: &mut Value, old: &Value) {
    if let (Some(element), Some(old)) = (element.as_object_mut(), old.as_object()) {
        for name in old.keys() {
            element.entry(name.clone()).or_insert(Value::Null);
        }
    }
}

/// A list in place of another needs the directive; in place of none it does not.
fn replaced(before: Option<&Value>, value: &Value) -> Value {
    let had_some = before.and_then(Value::as_array).is_some_and(|elements| !elements.is_empty());
    match value {
        Value::Array(elements) if had_some => {
            let mut with_directive = elements.clone();
            with_directive.push(json!({ "$patch": "replace" }));
            Value::Array(with_directive)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: Value, new: Value, expected: Option<Value>) {
        let lists = Lists { merged_by_type: &["conditions"], replaced: &["podIPs"] };
        assert_eq!(difference(&old, &new, &lists), expected, "{old} -> {new}");
    }

    #[test]
    fn only_changes_are_sent() {
        check(json!({"a": 1}), json!({"a": 1}), None);
        check(json!({"a": 1, "b": 1}), json!({"a": 1, "b": 2}), Some(json!({"b": 2})));
        check(json!({"a": 1}), json!({}), Some(json!({"a": null})));
        check(Value::Null, json!({"a": 1}), Some(json!({"a": 1})));
        check(json!({"m": {"x": 1, "y": 1}}), json!({"m": {"x": 1, "y": 2}}), Some(json!({"m": {"y": 2}})));
        check(json!({"l": [{"n": 1}]}), json!({"l": [{"n": 2}]}), Some(json!({"l": [{"n": 2}]})));
    }

    #[test]
    fn conditions_of_others_stay() {
        let (mine, mine_now) =
            (json!({"type": "Ready", "status": "False"}), json!({"type": "Ready", "status": "True"}));
        let theirs = json!({"type": "Theirs", "status": "True"});
        check(
            json!({"conditions": [mine, theirs]}),
            json!({"conditions": [mine_now]}),
            Some(json!({"conditions": [mine_now]})),
        );
        check(json!({"conditions": [theirs, mine]}), json!({"conditions": [mine]}), None);
        check(json!({"conditions": [theirs]}), json!({}), None);
        let failed = json!({"type": "Ready", "status": "False", "reason": "Failed"});
        let expected = json!({"conditions": [{"type": "Ready", "status": "True", "reason": null}]});
        check(json!({"conditions": [failed]}), json!({"conditions": [mine_now]}), Some(expected));
    }

    #[test]
    fn addresses_are_replaced_and_not_merged() {
        let (one, two) = (json!([{"ip": "10.0.0.1"}]), json!([{"ip": "10.0.0.2"}]));
        check(json!({}), json!({"podIPs": one}), Some(json!({"podIPs": one})));
        check(json!({"podIPs": []}), json!({"podIPs": one}), Some(json!({"podIPs": one})));
        let expected = json!({"podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}]});
        check(json!({"podIPs": one}), json!({"podIPs": two}), Some(expected));
        check(json!({"podIPs": one}), json!({}), Some(json!({"podIPs": null})));
    }
}
