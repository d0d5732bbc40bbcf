use super::*;
use crate::resource::{Kind, find};

fn pods() -> &'static Kind {
    find("", "v1", "pods").unwrap()
}

pub(super) fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    pods().prepare_create(&mut pod);
    pod
}

/// What is wrong with a new pod that has this spec.
fn refusals(spec: Value) -> Vec<String> {
    pods().validate_create(&pod(spec)).iter().map(ToString::to_string).collect()
}

fn container(extra: Value) -> Value {
    let mut container = json!({"name": "a", "image": "x"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]})
}

#[test]
fn the_smallest_pod_gets_kubernetes_defaults() {
    let made = pod(json!({"containers": [{"name": "a", "image": "busybox"}]}));
    assert_eq!(
        made["spec"],
        json!({
            "containers": [{"name": "a", "image": "busybox", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0, "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
            "serviceAccount": "default", "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
            "tolerations": [
                {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
                {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300},
            ],
        })
    );
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(pods().validate_create(&made), []);
}

#[test]
fn defaulting_again_changes_nothing() {
    let made = pod(json!({"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}],
        "livenessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
        "volumes": [{"name": "s", "secret": {"secretName": "s"}}, {"name": "e"}]}));
    let mut again = made.clone();
    pods().prepare_update(&made, &mut again, None);
    assert_eq!(again, made);
    let first = &made["spec"]["containers"][0];
    assert_eq!(first["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        first["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
    );
    assert_eq!(
        first["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(
        made["spec"]["volumes"],
        json!([{"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}, {"name": "e", "emptyDir": {}}])
    );
    assert_eq!(made["status"]["qosClass"], "Guaranteed");
}

#[test]
fn broken_pods_are_refused_in_kubernetes_words() {
    let check = |spec: Value, expected: &str| {
        let said = refusals(spec);
        assert!(said.iter().any(|s| s.starts_with(expected)), "{expected:?} among {said:#?}");
    };
    check(json!({}), "spec.containers: Required value");
    check(
        json!({"containers": [{"name": "A", "image": "x"}]}),
        r#"spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label"#,
    );
    check(json!({"containers": [{"image": "x"}]}), "spec.containers[0].name: Required value");
    check(json!({"containers": [{"name": "a"}]}), "spec.containers[0].image: Required value");
    check(
        json!({"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]}),
        r#"spec.containers[1].name: Duplicate value: "a""#,
    );
    check(
        container(json!({"volumeMounts": [{"name": "w", "mountPath": "/w"}]})),
        r#"spec.containers[0].volumeMounts[0].name: Not found: "w""#,
    );
    check(
        container(json!({"volumeMounts": [{"name": "v", "mountPath": ""}]})),
        "spec.containers[0].volumeMounts[0].mountPath: Required value",
    );
    check(
        container(json!({"volumeMounts": [{"name": "v", "mountPath": "/w", "subPath": "../x"}]})),
        r#"spec.containers[0].volumeMounts[0].subPath: Invalid value: "../x": must not contain '..'"#,
    );
    check(
        container(json!({"ports": [{"containerPort": 70000}]})),
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    );
    check(
        container(json!({"ports": [{"containerPort": 80, "protocol": "ICMP"}]})),
        r#"spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP""#,
    );
    check(
        container(json!({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}})),
        r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
    );
    check(
        container(json!({"resources": {"limits": {"cpu": "-1"}}})),
        r#"spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
    );
    check(
        container(json!({"livenessProbe": {}})),
        "spec.containers[0].livenessProbe: Required value: must specify a handler type",
    );
    check(
        container(json!({"livenessProbe": {"tcpSocket": {"port": 1}, "exec": {"command": ["x"]}}})),
        "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
    );
    check(
        container(json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}})),
        "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
    );
    check(
        container(json!({"readinessProbe": {"tcpSocket": {"port": 0}}})),
        "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0",
    );
    check(
        container(json!({"imagePullPolicy": "Sometimes"})),
        r#"spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
    );
    check(
        container(json!({"env": [{"name": "a=b", "value": "x"}]})),
        r#"spec.containers[0].env[0].name: Invalid value: "a=b""#,
    );
    check(
        container(json!({"env": [{"name": "a", "valueFrom": {}}]})),
        "spec.containers[0].env[0].valueFrom: Invalid value",
    );
    let with = |field: &str, value: Value| {
        let mut spec = container(json!({}));
        spec[field] = value;
        spec
    };
    check(with("restartPolicy", json!("Perhaps")), r#"spec.restartPolicy: Unsupported value: "Perhaps""#);
    check(with("terminationGracePeriodSeconds", json!(-1)), "spec.terminationGracePeriodSeconds: Invalid value: -1");
    check(with("activeDeadlineSeconds", json!(0)), "spec.activeDeadlineSeconds: Invalid value: 0");
    check(with("nodeSelector", json!({"a b": "c"})), r#"spec.nodeSelector: Invalid value: "a b""#);
    check(
        with("tolerations", json!([{"operator": "Exists", "value": "x"}])),
        "spec.tolerations[0].operator: Invalid value",
    );
    check(
        with("volumes", json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}])),
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
    );
    check(
        with("volumes", json!([{"name": "v", "hostPath": {"path": "a/../b"}}])),
        r#"spec.volumes[0].hostPath.path: Invalid value: "a/../b": must not contain '..'"#,
    );
    check(
        with("volumes", json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}])),
        r#"spec.volumes[1].name: Duplicate value: "v""#,
    );
    check(
        with("volumes", json!([{"name": "v", "nfs": {"server": "s", "path": "x"}}])),
        r#"spec.volumes[0].nfs.path: Invalid value: "x": must be an absolute path"#,
    );
}

#[test]
fn updates_may_change_images_and_metadata_alone() {
    let old = pod(container(json!({})));
    let said = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        pods().prepare_update(&old, &mut new, None);
        let errors: Vec<String> = pods().validate_update(&old, &new).iter().map(ToString::to_string).collect();
        errors
    };
    assert_eq!(said(&|p| p["spec"]["containers"][0]["image"] = "y".into()), [""; 0]);
    assert_eq!(said(&|p| p["metadata"]["labels"] = json!({"a": "b"})), [""; 0]);
    assert_eq!(said(&|p| p["spec"]["activeDeadlineSeconds"] = 5.into()), [""; 0]);
    assert_eq!(said(&|p| p["status"]["phase"] = "Failed".into()), [""; 0]);
    assert_eq!(
        said(&|p| p["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "x", "operator": "Exists"}))),
        [""; 0]
    );
    let refused = said(&|p| p["spec"]["restartPolicy"] = "Never".into());
    assert!(
        refused[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"),
        "{refused:?}"
    );
    assert!(refused[0].contains("spec.restartPolicy"), "{refused:?}");
    let refused = said(&|p| p["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "b", "image": "x"})));
    assert_eq!(refused, ["spec.containers: Forbidden: pod updates may not add or remove containers"]);
    // What admission adds comes back, whatever an update leaves out.
    assert_eq!(said(&|p| p["spec"]["tolerations"] = json!([])), [""; 0]);
}

#[test]
fn status_updates_change_the_status_alone() {
    let old = pod(container(json!({})));
    let mut new = old.clone();
    new["spec"]["nodeName"] = "n".into();
    new["status"]["phase"] = "Running".into();
    pods().prepare_update(&old, &mut new, Some("status"));
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["status"]["phase"], "Running");
}

#[test]
fn bindings_give_pods_one_node_once() {
    let free = pod(container(json!({})));
    let bound = bind(&free, &json!({"target": {"kind": "Node", "name": "n1"}}), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(bound["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
    let again = bind(&bound, &json!({"target": {"name": "n2"}}), Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(again.to_string(), r#"pod p is already assigned to node "n1""#);
    assert!(matches!(bind(&free, &json!({}), Timestamp::UNIX_EPOCH), Err(BindError::Invalid(_))));
}
