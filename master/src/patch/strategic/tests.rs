use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::resource::find;

fn patched(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    apply(find("", "v1", "pods").unwrap(), current, patch.to_string().as_bytes())
}

fn check(current: Value, patch: Value, expected: Value) {
    assert_eq!(patched(&current, &patch), Ok(expected), "{patch}");
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn maps_merge_and_null_deletes() {
    check(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"x": "y"}}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": null}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
    );
}

#[test]
fn containers_merge_by_name() {
    check(
        containers(json!([{"name": "a", "image": "x:1", "tty": true}, {"name": "b", "image": "y:1"}])),
        containers(json!([{"name": "b", "image": "y:2"}, {"name": "c", "image": "z"}, {"name": "a", "tty": null}])),
        containers(json!([{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}, {"name": "c", "image": "z"}])),
    );
}

#[test]
fn nested_lists_merge_by_their_own_keys() {
    check(
        containers(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "web"}], "command": ["x", "y"],
                           "volumeMounts": [{"mountPath": "/a", "name": "v"}]}])),
        containers(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}],
                           "command": ["z"], "volumeMounts": [{"mountPath": "/a", "$patch": "delete"}]}])),
        containers(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}],
                           "command": ["z"], "volumeMounts": []}])),
    );
}

#[test]
fn items_are_deleted_and_lists_replaced_by_directive() {
    check(
        containers(json!([{"name": "a"}, {"name": "b"}])),
        containers(json!([{"name": "a", "$patch": "delete"}])),
        containers(json!([{"name": "b"}])),
    );
    check(
        containers(json!([{"name": "a"}, {"name": "b"}])),
        containers(json!([{"$patch": "replace"}, {"name": "c"}])),
        containers(json!([{"name": "c"}])),
    );
    check(
        json!({"spec": {"nodeSelector": {"a": "1"}, "securityContext": {"runAsUser": 1}}}),
        json!({"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}, "securityContext": {"$patch": "delete"}}}),
        json!({"spec": {"nodeSelector": {"b": "2"}, "securityContext": {}}}),
    );
}

#[test]
fn directives_leave_no_trace_where_nothing_was() {
    check(
        json!({}),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "env": null}],
                        "$setElementOrder/containers": [{"name": "b"}], "volumes": [{"name": "v", "emptyDir": {},
                        "$retainKeys": ["name", "emptyDir"]}]},
               "metadata": {"$deleteFromPrimitiveList/finalizers": ["x/y"]}}),
        json!({"spec": {"containers": [{"name": "b"}], "volumes": [{"name": "v", "emptyDir": {}}]}, "metadata": {}}),
    );
}

#[test]
fn retained_keys_drop_the_others() {
    check(
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
    );
}

#[test]
fn sets_grow_and_shrink() {
    check(
        json!({"metadata": {"finalizers": ["a/x", "b/x"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"], "finalizers": ["c/x", "b/x"]}}),
        json!({"metadata": {"finalizers": ["b/x", "c/x"]}}),
    );
}

#[test]
fn lists_take_the_order_that_is_asked_for() {
    let order = |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
    check(
        containers(json!([{"name": "a"}, {"name": "server"}, {"name": "b"}])),
        json!({"spec": {"$setElementOrder/containers": order(&["b", "new", "a"]), "containers": [{"name": "new"}]}}),
        containers(json!([{"name": "server"}, {"name": "b"}, {"name": "new"}, {"name": "a"}])),
    );
    check(
        containers(json!([{"name": "a"}, {"name": "b"}])),
        json!({"spec": {"$setElementOrder/containers": order(&["b", "a"])}}),
        containers(json!([{"name": "b"}, {"name": "a"}])),
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    check(
        json!({"spec": {"tolerations": [{"key": "a"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
    );
}

#[test]
fn errors_name_the_path() {
    for (patch, path) in [
        (containers(json!([{"image": "x"}])), "spec.containers[0]"),
        (containers(json!(["x"])), "spec.containers[0]"),
        (json!({"spec": {"$patch": "explode"}}), "spec"),
        (json!({"spec": {"volumes": [{"name": "v", "nfs": {}, "$retainKeys": ["name"]}]}}), "spec.volumes[0]"),
        (json!({"metadata": {"$setElementOrder/finalizers": 1}}), "metadata"),
        (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": 1}}), "metadata"),
    ] {
        match patched(&json!({}), &patch) {
            Err(PatchError::Malformed { detail }) => assert!(detail.contains(path), "{detail} names {path}"),
            other => panic!("{patch}: {other:?}"),
        }
    }
}

/// Small JSON values with the words that patches use.
pub(in crate::patch) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        "[a-c]".prop_map(Value::from),
        Just(Value::from("delete")),
    ];
    let name = "spec|metadata|containers|env|name|ports|labels|finalizers|volumes|[a-c]|\\$patch|\\$retainKeys\
        |\\$setElementOrder/containers|\\$deleteFromPrimitiveList/finalizers";
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let container =
        ("[a-e]", "[x-z]", prop::collection::btree_map("[a-c]", "[0-9]", 0..3)).prop_map(|(name, image, env)| {
            let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            json!({"name": name, "image": image, "env": env})
        });
    (prop::collection::vec(container, 0..4), prop::collection::btree_map("[a-c]", "[0-9]", 0..3)).prop_map(
        |(mut containers, labels)| {
            containers.sort_by_key(|c| c["name"].to_string());
            containers.dedup_by_key(|c| c["name"].clone());
            json!({"metadata": {"labels": labels}, "spec": {"containers": containers}})
        },
    )
}

proptest! {
    #[test]
    fn any_patch_applies_or_is_refused(current in any_json(), patch in any_json()) {
        let _ = patched(&current, &patch);
        let _ = patched(&json!({"spec": current}), &json!({"spec": patch}));
    }

    #[test]
    fn an_object_merged_with_itself_is_itself(pod in pod()) {
        prop_assert_eq!(patched(&pod, &pod), Ok(pod));
    }

    #[test]
    fn merging_into_nothing_gives_the_patch(pod in pod()) {
        prop_assert_eq!(patched(&json!({}), &pod), Ok(pod));
    }

    #[test]
    fn what_a_patch_says_is_there_afterwards(before in pod(), patch in pod()) {
        let after = patched(&before, &patch).unwrap();
        for container in patch["spec"]["containers"].as_array().unwrap() {
            let found = after["spec"]["containers"].as_array().unwrap().iter()
                .find(|c| c["name"] == container["name"]).unwrap();
            prop_assert_eq!(&found["image"], &container["image"]);
        }
        prop_assert_eq!(patched(&after, &patch), Ok(after));
    }
}
