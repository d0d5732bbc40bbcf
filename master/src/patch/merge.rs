//! JSON merge patch, RFC 7386: objects merge, `null` deletes, everything else replaces.

use serde_json::Value;

use super::{PatchError, parse_object};

pub(super) fn apply(current: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = Value::Object(parse_object(patch)?);
    let mut patched = current.clone();
    json_patch::merge(&mut patched, &patch);
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::patch::strategic::tests::any_json;

    #[test]
    fn null_deletes_objects_merge_and_lists_replace() {
        let current = json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "x": 1});
        let patched = apply(&current, br#"{"a": {"b": null, "d": 3}, "l": [3], "x": {"y": 1}}"#).unwrap();
        assert_eq!(patched, json!({"a": {"c": 2, "d": 3}, "l": [3], "x": {"y": 1}}));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for patch in ["[]", "1", "null", "{", ""] {
            assert!(matches!(apply(&json!({}), patch.as_bytes()), Err(PatchError::Malformed { .. })), "{patch}");
        }
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(current in any_json(), patch in any_json()) {
            let patch = json!({ "o": patch }).to_string();
            let once = apply(&json!({ "o": current }), patch.as_bytes()).unwrap();
            prop_assert_eq!(apply(&once, patch.as_bytes()).unwrap(), once);
        }
    }
}
