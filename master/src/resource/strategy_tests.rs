//! How the tests of the kinds ask what is wrong with an object.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{find, kinds, pod};
use crate::schema;
use crate::table::{IncludeObject, table};

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
        (json!({"namespace": "d"}), "metadata.name: Required value: name or generateName is required"),
        (
            json!({"namespace": "d", "name": "A_b"}),
            r#"metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain"#,
        ),
        (json!({"name": "a"}), "metadata.namespace: Required value"),
        (
            json!({"name": "a", "namespace": "d", "labels": {"a b": "x"}}),
            r#"metadata.labels: Invalid value: "a b": name part"#,
        ),
        (
            json!({"name": "a", "namespace": "d", "labels": {"a": "x y"}}),
            r#"metadata.labels: Invalid value: "x y": a valid label"#,
        ),
        (json!({"name": "a", "namespace": "d", "finalizers": ["?"]}), r#"metadata.finalizers[0]: Invalid value: "?""#),
    ] {
        let object = json!({"metadata": metadata});
        let said: Vec<String> = kind.validate_create(&object).iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    }
}

#[test]
fn uids_and_names_do_not_change() {
    let kind = find("", "v1", "configmaps").unwrap();
    let old = json!({"metadata": {"name": "a", "namespace": "d", "uid": "1"}});
    let mut new = json!({"metadata": {"name": "a", "namespace": "d"}});
    kind.prepare_update(&old, &mut new, None);
    assert_eq!(kind.validate_update(&old, &new), []);
    new["metadata"]["uid"] = "2".into();
    let said: Vec<String> = kind.validate_update(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(said, [r#"metadata.uid: Invalid value: "2": field is immutable"#]);
}

/// JSON with the fields that the strategies look at, holding anything.
fn any_object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z./=:@-]{0,6}|1Gi|Always|Exists|2026-01-01T00:00:00Z".prop_map(Value::from),
    ];
    let name = "metadata|spec|status|name|namespace|labels|finalizers|containers|initContainers|image|ports|hostPort|env\
        |valueFrom|resources|limits|requests|livenessProbe|httpGet|port|volumes|volumeMounts|secret|items|tolerations\
        |taints|data|stringData|conditions|state|terminated|containerStatuses|initContainerStatuses|type|target|[a-c]";
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_object_makes_a_kind_panic(old in any_object(), new in any_object()) {
        let now = Timestamp::UNIX_EPOCH;
        for kind in kinds() {
            let _ = schema::check(kind, &new);
            let mut created = new.clone();
            kind.prepare_create(&mut created);
            let _ = kind.validate_create(&created);
            for sub in [None, Some("status"), Some("finalize")] {
                let mut updated = new.clone();
                kind.prepare_update(&old, &mut updated, sub);
                let _ = kind.validate_update(&old, &updated);
            }
            let _ = table(kind, &[new.clone(), created], IncludeObject::Object, now, json!({}));
        }
        let _ = pod::bind(&old, &new, now);
    }

    #[test]
    fn defaults_are_filled_in_once(spec in any_object()) {
        for kind in kinds() {
            let mut once = json!({"metadata": {"name": "x"}, "spec": spec, "data": spec});
            kind.prepare_create(&mut once);
            let mut twice = once.clone();
            kind.prepare_update(&once, &mut twice, None);
            prop_assert_eq!(&twice, &once, "{}", kind.kind);
        }
    }
}
