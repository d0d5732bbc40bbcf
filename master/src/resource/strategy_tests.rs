//! How the tests of the kinds ask what is wrong with an object.

use serde_json::Value;

use super::find;

/// What is wrong with a new core object that is otherwise sound.
pub(super) fn refusals(plural: &str, object: Value) -> Vec<String> {
    refusals_in("", plural, object)
}

/// The same, in any group.
pub(super) fn refusals_in(group: &str, plural: &str, mut object: Value) -> Vec<String> {
    let kind = find(group, "v1", plural).unwrap();
    object["metadata"]["name"] = "x".into();
    if kind.namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    kind.prepare_create(&mut object);
    kind.validate_create(&object).iter().map(ToString::to_string).collect()
}

#[test]
fn names_and_labels_are_checked_for_all_kinds() {
    let kind = find("", "v1", "configmaps").unwrap();
    for (metadata, expected) in [
        (serde_json::json!({"namespace": "d"}), "metadata.name: Required value: name or generateName is required"),
        (
            serde_json::json!({"namespace": "d", "name": "A_b"}),
            r#"metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain"#,
        ),
        (serde_json::json!({"name": "a"}), "metadata.namespace: Required value"),
        (
            serde_json::json!({"name": "a", "namespace": "d", "labels": {"a b": "x"}}),
            r#"metadata.labels: Invalid value: "a b": name part"#,
        ),
        (
            serde_json::json!({"name": "a", "namespace": "d", "labels": {"a": "x y"}}),
            r#"metadata.labels: Invalid value: "x y": a valid label"#,
        ),
        (
            serde_json::json!({"name": "a", "namespace": "d", "finalizers": ["?"]}),
            r#"metadata.finalizers[0]: Invalid value: "?""#,
        ),
    ] {
        let object = serde_json::json!({"metadata": metadata});
        let said: Vec<String> = kind.validate_create(&object).iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    }
}

#[test]
fn uids_and_names_do_not_change() {
    let kind = find("", "v1", "configmaps").unwrap();
    let old = serde_json::json!({"metadata": {"name": "a", "namespace": "d", "uid": "1"}});
    let mut new = serde_json::json!({"metadata": {"name": "a", "namespace": "d"}});
    kind.prepare_update(&old, &mut new, None);
    assert_eq!(kind.validate_update(&old, &new), []);
    new["metadata"]["uid"] = "2".into();
    let said: Vec<String> = kind.validate_update(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(said, [r#"metadata.uid: Invalid value: "2": field is immutable"#]);
}
