//! JSON patch, RFC 6902, applied one operation at a time under limits: copies can double an object with every line.

use json_patch::jsonptr::Pointer;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::PatchError;

/// How many operations a patch may have.
const OPERATIONS_MAX: usize = 10_000;
/// How many bytes all copies and moves of a patch may carry.
const COPIED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How deep an object may become; what parses is never deeper.
const DEPTH_MAX: usize = 128;

pub(super) fn apply(current: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let Patch(operations) = serde_json::from_slice(patch)
        .map_err(|error| PatchError::malformed(format!("error decoding patch: {error}")))?;
    if operations.len() > OPERATIONS_MAX {
        let detail =
            format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}", operations.len());
        return Err(PatchError::Unappliable { detail });
    }
    let mut patched = current.clone();
    let mut copied_bytes = 0;
    for (at, operation) in operations.into_iter().enumerate() {
        check_size(&patched, &operation, &mut copied_bytes)
            .map_err(|detail| PatchError::unappliable(format!("operation {at}: {detail}")))?;
        let path = operation.path().to_string();
        json_patch::patch(&mut patched, &[operation])
            .map_err(|error| PatchError::unappliable(format!("operation {at} at {path:?}: {}", error.kind)))?;
    }
    Ok(patched)
}

/// Keeps one operation from making the object larger or deeper than it may be.
fn check_size(object: &Value, operation: &PatchOperation, copied_bytes: &mut usize) -> Result<(), String> {
    let placed = match operation {
        PatchOperation::Add(add) => Some((&add.path, measure(&add.value))),
        PatchOperation::Replace(replace) => Some((&replace.path, measure(&replace.value))),
        PatchOperation::Copy(copy) => source(object, &copy.from).map(|size| (&copy.path, size)),
        PatchOperation::Move(moved) => source(object, &moved.from).map(|size| (&moved.path, size)),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    let Some((path, size)) = placed else { return Ok(()) };
    if matches!(operation, PatchOperation::Copy(_) | PatchOperation::Move(_)) {
        *copied_bytes += size.bytes;
        if *copied_bytes > COPIED_BYTES_MAX {
            return Err(format!("copies more than {COPIED_BYTES_MAX} bytes"));
        }
    }
    if path.tokens().count() + size.depth > DEPTH_MAX {
        return Err(format!("nests deeper than {DEPTH_MAX} levels"));
    }
    Ok(())
}

#[derive(Debug, Default, Clone, Copy)]
struct Size {
    bytes: usize,
    depth: usize,
}

fn source(object: &Value, from: &Pointer) -> Option<Size> {
    object.pointer(from.as_str()).map(measure)
}

/// Rough size of a value in memory and how deep it is. Values are never deeper than [`DEPTH_MAX`], so that this recursion ends.
fn measure(value: &Value) -> Size {
    const VALUE_BYTES: usize = 32;
    let within = |inner: &mut dyn Iterator<Item = (usize, &Value)>| {
        let mut size = Size { bytes: VALUE_BYTES, depth: 0 };
        for (key_bytes, value) in inner {
            let one = measure(value);
            size.bytes += key_bytes + one.bytes;
            size.depth = size.depth.max(one.depth);
        }
        Size { depth: size.depth + 1, ..size }
    };
    match value {
        Value::Array(values) => within(&mut values.iter().map(|v| (0, v))),
        Value::Object(members) => within(&mut members.iter().map(|(k, v)| (k.len(), v))),
        Value::String(text) => Size { bytes: VALUE_BYTES + text.len(), depth: 1 },
        _ => Size { bytes: VALUE_BYTES, depth: 1 },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::patch::strategic::tests::any_json;

    fn check(current: Value, patch: Value, expected: Value) {
        assert_eq!(apply(&current, patch.to_string().as_bytes()), Ok(expected), "{patch}");
    }

    fn refusal(current: Value, patch: Value) -> String {
        apply(&current, patch.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn operations_apply_in_order() {
        check(
            json!({"a": [1, 2], "b": {"c/d": 1}}),
            json!([{"op": "add", "path": "/a/1", "value": 9}, {"op": "add", "path": "/a/-", "value": 8},
                   {"op": "remove", "path": "/b/c~1d"}, {"op": "copy", "from": "/a/0", "path": "/b/e"},
                   {"op": "move", "from": "/b/e", "path": "/f"}, {"op": "test", "path": "/f", "value": 1},
                   {"op": "replace", "path": "/f", "value": null}]),
            json!({"a": [1, 9, 2, 8], "b": {}, "f": null}),
        );
    }

    #[test]
    fn refusals_name_operation_and_path() {
        let said = refusal(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]));
        assert!(said.starts_with(r#"operation 0 at "/a":"#), "{said}");
        let said = refusal(json!({}), json!([{"op": "add", "path": "/x", "value": 2}, {"op": "remove", "path": "/y"}]));
        assert!(said.starts_with(r#"operation 1 at "/y":"#), "{said}");
    }

    #[test]
    fn broken_patches_are_malformed() {
        for patch in ["{}", "[{\"op\":\"fly\",\"path\":\"/\"}]", "[{\"op\":\"add\",\"path\":\"x\",\"value\":1}]", "["] {
            assert!(matches!(apply(&json!({}), patch.as_bytes()), Err(PatchError::Malformed { .. })), "{patch}");
        }
    }

    #[test]
    fn copies_neither_explode_nor_dig() {
        let double = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 1000];
        let said = refusal(json!({"a": ["x".repeat(100)]}), Value::Array(double));
        assert!(said.contains("nests deeper") || said.contains("copies more"), "{said}");
        let wide: Vec<Value> =
            (0..1000).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/b{i}")})).collect();
        let said = refusal(json!({"a": "x".repeat(100_000)}), Value::Array(wide));
        assert!(said.contains("copies more than"), "{said}");
        let many = vec![json!({"op": "test", "path": "", "value": {}}); OPERATIONS_MAX + 1];
        assert!(refusal(json!({}), Value::Array(many)).contains("maximum operations"));
    }

    proptest! {
        #[test]
        fn any_patch_applies_or_is_refused(
            current in any_json(),
            operations in prop::collection::vec(
                ("(add|remove|replace|move|copy|test)", "(/[a-c0-2-]){0,3}", "(/[a-c0-2-]){0,3}", any_json()), 0..6),
        ) {
            let patch: Vec<Value> = operations.into_iter()
                .map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
                .collect();
            let _ = apply(&current, Value::Array(patch).to_string().as_bytes());
        }
    }
}
