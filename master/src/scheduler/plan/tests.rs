use berth_api::quantity::Quantity;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, extra: Value) -> Value {
    let mut node = json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"},
                   "conditions": [{"type": "Ready", "status": "True"}]}});
    for (pointer, value) in extra.as_object().unwrap() {
        node["spec"][pointer] = value.clone();
    }
    node
}

fn pod(name: &str, cpu: &str, extra: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name, "uid": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}]}});
    for (field, value) in extra.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn world(nodes: &[Value], placed: &[(Value, &str)], pending: &[Value]) -> World {
    let read = |value: &Value| Arc::new(serde_json::from_value(value.clone()).unwrap());
    World {
        nodes: nodes.iter().map(|v| Arc::new(serde_json::from_value(v.clone()).unwrap())).collect(),
        placed: placed.iter().map(|(v, node)| (read(v), (*node).to_owned())).collect(),
        pending: pending.iter().map(read).collect(),
    }
}

/// Where each waiting pod goes.
fn places(world: &World) -> Vec<String> {
    let told = |decision: Decision| match decision.outcome {
        Outcome::Bind { node } => node,
        Outcome::Unschedulable { message } => message,
    };
    plan(world).into_iter().map(told).collect()
}

fn check(nodes: &[Value], pending: Value, expected: &str) {
    assert_eq!(places(&world(nodes, &[], &[pending])), [expected]);
}

#[test]
fn pods_go_where_most_is_left() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let placed = [(pod("x", "1", json!({})), "a")];
    let pending = [pod("p", "500m", json!({})), pod("q", "500m", json!({})), pod("r", "500m", json!({}))];
    assert_eq!(places(&world(&nodes, &placed, &pending)), ["b", "b", "a"]);
}

#[test]
fn what_does_not_fit_is_told_why() {
    let none = json!({});
    check(&[], pod("p", "1", none.clone()), "no nodes available to schedule pods");
    check(&[node("a", none.clone())], pod("p", "3", none.clone()), "0/1 nodes are available: 1 Insufficient cpu.");
    let cordoned = node("a", json!({"unschedulable": true}));
    check(
        &[cordoned, node("b", none.clone())],
        pod("p", "3", none.clone()),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.",
    );
    let tainted = node("a", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}));
    check(
        std::slice::from_ref(&tainted),
        pod("p", "1", none.clone()),
        "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.",
    );
    check(&[tainted], pod("p", "1", json!({"tolerations": [{"key": "k", "operator": "Exists"}]})), "a");
    check(
        &[node("a", none.clone())],
        pod("p", "1", json!({"nodeSelector": {"name": "b"}})),
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    );
    let mut lost = node("a", none);
    lost["status"]["conditions"][0]["status"] = "Unknown".into();
    check(&[lost], pod("p", "1", json!({})), "0/1 nodes are available: 1 node(s) were not ready.");
}

#[test]
fn affinity_chooses_nodes() {
    let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({}))];
    let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let term = |operator: &str, values: Value| json!([{"matchExpressions": [{"key": "name", "operator": operator, "values": values}]}]);
    check(&nodes, pod("p", "1", required(term("In", json!(["b", "c"])))), "b");
    check(&nodes, pod("p", "1", required(term("NotIn", json!(["a", "b"])))), "c");
    let by_name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]}]);
    check(&nodes, pod("p", "1", required(by_name)), "c");
    let refusal = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
    check(&nodes, pod("p", "1", required(json!([{}]))), refusal);
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions": [{"key": "name", "operator": "In", "values": ["c"]}]}}]}}});
    check(&nodes, pod("p", "1", preferred), "c");
}

#[test]
fn ports_of_a_host_are_taken_once() {
    let on_port = |name: &str, ip: &str| {
        pod(
            name,
            "1m",
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]}),
        )
    };
    let nodes = [node("a", json!({}))];
    let refusal = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(places(&world(&nodes, &[], &[on_port("p", ""), on_port("q", "10.0.0.1")])), ["a", refusal]);
    assert_eq!(places(&world(&nodes, &[], &[on_port("p", "10.0.0.1"), on_port("q", "10.0.0.2")])), ["a", "a"]);
}

#[test]
fn a_node_takes_so_many_pods_and_no_more() {
    let placed: Vec<(Value, &str)> = (0..10).map(|i| (pod(&format!("x{i}"), "0", json!({})), "a")).collect();
    let world = world(&[node("a", json!({}))], &placed, &[pod("p", "0", json!({}))]);
    assert_eq!(places(&world), ["0/1 nodes are available: 1 Too many pods."]);
}

/// One step of a random cluster's life.
#[derive(Debug, Clone)]
enum Step {
    Arrive { millis: i64, port: Option<i32> },
    Leave { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let port = prop::option::weighted(0.2, 1..4);
    prop_oneof![
        3 => (0_i64..1500, port).prop_map(|(millis, port)| Step::Arrive { millis, port }),
        1 => (0_usize..100).prop_map(|which| Step::Leave { which }),
    ]
}

fn millis(pod: &Value) -> i64 {
    let text = pod["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str().unwrap();
    text.parse::<Quantity>().unwrap().millis()
}

/// No node has more than it can hold, and no port twice.
fn assert_sound(placed: &[(Value, String)]) {
    for name in ["a", "b", "c"] {
        let here: Vec<&Value> = placed.iter().filter(|(_, node)| node == name).map(|(pod, _)| pod).collect();
        assert!(here.iter().map(|p| millis(p)).sum::<i64>() <= 2000, "{name} is overcommitted");
        assert!(here.len() <= 10, "{name} has too many pods");
        let mut ports: Vec<i64> =
            here.iter().filter_map(|p| p["spec"]["containers"][0]["ports"][0]["hostPort"].as_i64()).collect();
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count, "{name} gave a port twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_lives_never_overcommit(steps in prop::collection::vec(step(), 1..60)) {
        let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({}))];
        let (mut placed, mut pending): (Vec<(Value, String)>, Vec<Value>) = (Vec::new(), Vec::new());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Arrive { millis, port } => {
                    let mut made = pod(&format!("p{number}"), &format!("{millis}m"), json!({}));
                    if let Some(port) = port {
                        made["spec"]["containers"][0]["ports"] = json!([{"containerPort": port, "hostPort": port}]);
                    }
                    pending.push(made);
                }
                Step::Leave { which } if !placed.is_empty() => {
                    placed.remove(which % placed.len());
                }
                Step::Leave { .. } => {}
            }
            let placed_now: Vec<(Value, &str)> = placed.iter().map(|(pod, node)| (pod.clone(), node.as_str())).collect();
            let decisions = plan(&world(&nodes, &placed_now, &pending));
            let waiting = std::mem::take(&mut pending);
            for (pod, decision) in waiting.into_iter().zip(decisions) {
                match decision.outcome {
                    Outcome::Bind { node } => placed.push((pod, node)),
                    Outcome::Unschedulable { message } => {
                        prop_assert!(message.starts_with("0/3 nodes are available: "));
                        pending.push(pod);
                    }
                }
            }
            assert_sound(&placed);
        }
    }
}
