//! What is told of a pod, from what there is of it.

use std::sync::Arc;
use std::time::Duration;

use berth_engine::{ContainerState, SandboxState};
use serde_json::{Value, json};

use super::*;
use crate::pod::desired::Presence;
use crate::pod::event::{Event, Fault, Outcome, Product};
use crate::pod::memory::Memory;
use crate::pod::observe::{Container, Sandbox};
use crate::pod::plan::tests::{at, container_id, exited, running, sandbox_id};
use crate::probe::{Answer, Kind, Rules};

struct Scene {
    pod: Value,
    sandbox: Option<Sandbox>,
    memory: Memory,
    before: PodStatus,
    now: i64,
}

impl Scene {
    fn new(spec: Value) -> Self {
        let mut pod = json!({
            "metadata": { "name": "p", "uid": "u", "generation": 7 },
            "spec": { "containers": [{ "name": "web", "image": "i" }] },
        });
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        Self { pod, sandbox: None, memory: Memory::default(), before: PodStatus::default(), now: 100 }
    }

    fn up(mut self) -> Self {
        let (id, state, ips) = (sandbox_id("s"), SandboxState::Ready, vec!["10.0.0.2".parse().unwrap()]);
        self.sandbox = Some(Sandbox { id, attempt: 0, state, created_at: at(0), ips, containers: Vec::new() });
        self
    }

    fn container(mut self, name: &str, attempt: u32, state: ContainerState) -> Self {
        self.sandbox.as_mut().unwrap().containers.push(Container {
            id: container_id(&format!("{name}-{attempt}")),
            name: name.to_owned(),
            attempt,
            streak: attempt,
            image: "i".to_owned(),
            image_id: "sha256:0".to_owned(),
            image_ref: "r/i@sha256:1".to_owned(),
            created_at: at(0),
            state,
            message: None,
        });
        self
    }

    fn now(mut self, now: i64) -> Self {
        self.now = now;
        self
    }

    fn note(mut self, task: Task, outcome: Outcome) -> Self {
        let desired = self.desired();
        self.memory.note(&desired, &Event::Ended(task, outcome), at(self.now));
        self
    }

    fn failed(self, task: Task, reason: &'static str) -> Self {
        self.note(task, Outcome::Failed(Fault { reason, message: "no luck".to_owned() }))
    }

    fn desired(&self) -> Desired {
        let pod = Arc::new(serde_json::from_value(self.pod.clone()).unwrap());
        Desired::parse(pod, Presence::Wanted, Duration::from_secs(300)).unwrap()
    }

    fn status(&self) -> Value {
        let observed = Observed { sandboxes: self.sandbox.clone().into_iter().collect(), memory: &self.memory };
        let host = ["192.0.2.1".parse().unwrap()];
        let status = status(&self.desired(), &observed, &self.before, &host, at(self.now));
        serde_json::to_value(status).unwrap()
    }
}

/// Compares parts of a status, each by its JSON pointer.
#[track_caller]
fn check(scene: &Scene, expected: &[(&str, Value)]) {
    let status = scene.status();
    for (pointer, value) in expected {
        let got = status.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(got, *value, "{pointer} of {status:#}");
    }
}

const STATE: &str = "/containerStatuses/0/state";

fn waits(reason: &str) -> (&'static str, Value) {
    ("/containerStatuses/0/state/waiting/reason", json!(reason))
}

/// Conditions as words: `Ready=False`.
#[track_caller]
fn check_conditions(scene: &Scene, expected: &[&str]) {
    let status = scene.status();
    let list = status["conditions"].as_array().unwrap();
    let words: Vec<_> = list
        .iter()
        .map(|one| format!("{}={}", one["type"].as_str().unwrap(), one["status"].as_str().unwrap()))
        .collect();
    assert_eq!(words, expected);
}

#[test]
fn a_pod_that_begins_is_pending() {
    let scene = Scene::new(json!({}));
    let expected = [
        ("/phase", json!("Pending")),
        ("/qosClass", json!("BestEffort")),
        ("/hostIP", json!("192.0.2.1")),
        ("/observedGeneration", json!(7)),
        ("/podIP", Value::Null),
        waits("ContainerCreating"),
        ("/containerStatuses/0/restartCount", json!(0)),
    ];
    check(&scene, &expected);
    let conditions = [
        "PodScheduled=True",
        "PodReadyToStartContainers=False",
        "Initialized=True",
        "ContainersReady=False",
        "Ready=False",
    ];
    check_conditions(&scene, &conditions);
}

#[test]
fn a_pod_that_runs_is_ready_and_has_an_address() {
    let scene = Scene::new(json!({})).up().container("web", 0, running(10));
    let expected = [
        ("/phase", json!("Running")),
        ("/podIP", json!("10.0.0.2")),
        ("/podIPs/0/ip", json!("10.0.0.2")),
        ("/containerStatuses/0/ready", json!(true)),
        ("/containerStatuses/0/started", json!(true)),
        ("/containerStatuses/0/containerID", json!("berth://web-0")),
        ("/containerStatuses/0/imageID", json!("r/i@sha256:1")),
        ("/containerStatuses/0/lastState", Value::Null),
    ];
    check(&scene, &expected);
    let conditions = [
        "PodScheduled=True",
        "PodReadyToStartContainers=True",
        "Initialized=True",
        "ContainersReady=True",
        "Ready=True",
    ];
    check_conditions(&scene, &conditions);
}

#[test]
fn a_pod_of_the_hosts_network_has_the_hosts_address() {
    check(&Scene::new(json!({ "hostNetwork": true })).up(), &[("/podIP", json!("192.0.2.1"))]);
}

#[test]
fn what_failed_is_why_a_container_waits() {
    let pull = || Task::Pull("web".to_owned());
    let scene = || Scene::new(json!({})).up();
    check(&scene().failed(pull(), "ErrImagePull").now(101), &[waits("ErrImagePull")]);
    let later = scene().failed(pull(), "ErrImagePull").now(103);
    let message = "Back-off pulling image \"i\": ErrImagePull: no luck";
    check(&later, &[waits("ImagePullBackOff"), ("/containerStatuses/0/state/waiting/message", json!(message))]);
    check(&scene().failed(pull(), "ErrImageNeverPull").now(200), &[waits("ErrImageNeverPull")]);
    let start = Task::Start("web".to_owned());
    check(&scene().failed(start, "CreateContainerConfigError"), &[waits("CreateContainerConfigError")]);
}

#[test]
fn how_a_container_ended_is_told() {
    let ended = |state: ContainerState| Scene::new(json!({ "restartPolicy": "Never" })).up().container("web", 0, state);
    let reason = "/containerStatuses/0/state/terminated/reason";
    check(&ended(exited(0, 1, 2)), &[(reason, json!("Completed")), ("/phase", json!("Succeeded"))]);
    check(&ended(exited(2, 1, 2)), &[(reason, json!("Error")), ("/phase", json!("Failed"))]);
    check(&ended(ContainerState::Unknown), &[(reason, json!("ContainerStatusUnknown"))]);
    let oom = ContainerState::Exited {
        started_at: Some(at(1)),
        finished_at: at(2),
        exit_code: 137,
        signal: Some(9),
        oom_killed: true,
    };
    check(&ended(oom), &[(reason, json!("OOMKilled"))]);
}

#[test]
fn a_container_that_loops_tells_how_it_ended_the_last_time() {
    let scene = Scene::new(json!({})).up().container("web", 0, exited(1, 1, 2)).container("web", 1, exited(3, 98, 99));
    let expected = [
        waits("CrashLoopBackOff"),
        (
            "/containerStatuses/0/state/waiting/message",
            json!("back-off 10s restarting failed container=web pod=p_default(u)"),
        ),
        ("/containerStatuses/0/lastState/terminated/exitCode", json!(3)),
        ("/containerStatuses/0/restartCount", json!(1)),
        ("/phase", json!("Running")),
    ];
    check(&scene, &expected);
    let again = Scene::new(json!({})).up().container("web", 0, exited(1, 1, 2)).container("web", 1, running(50));
    check(&again, &[("/containerStatuses/0/lastState/terminated/exitCode", json!(1))]);
}

#[test]
fn app_containers_wait_for_init_containers() {
    let init = json!([{ "name": "one", "image": "i" }, { "name": "two", "image": "i" }]);
    let scene = Scene::new(json!({ "initContainers": init })).up().container("one", 0, running(1));
    let expected = [
        waits("PodInitializing"),
        ("/initContainerStatuses/0/state/running/startedAt", json!("2027-01-15T08:00:01Z")),
        ("/initContainerStatuses/1/state/waiting/reason", json!("PodInitializing")),
        ("/phase", json!("Pending")),
    ];
    check(&scene, &expected);
    let conditions = [
        "PodScheduled=True",
        "PodReadyToStartContainers=True",
        "Initialized=False",
        "ContainersReady=False",
        "Ready=False",
    ];
    check_conditions(&scene, &conditions);
}

#[test]
fn a_probe_decides_who_is_ready() {
    let probe = json!({ "exec": { "command": ["true"] } });
    let container = json!({ "name": "web", "image": "i", "readinessProbe": probe });
    let scene = || Scene::new(json!({ "containers": [container.clone()] })).up().container("web", 0, running(10));
    let ready = |ready: bool| [("/containerStatuses/0/ready", json!(ready))];
    check(&scene(), &ready(false));
    let rules = Rules::of(&serde_json::from_value(probe.clone()).unwrap());
    let product = Product::Probe { name: "web".to_owned(), answer: Answer::Healthy, rules };
    let passed = scene().note(Task::Probe(container_id("web-0"), Kind::Readiness), Outcome::Done(product));
    check(&passed, &ready(true));
    // A new agent has asked nobody yet: what was told of the same container holds.
    let mut restarted = scene();
    restarted.pod["status"] = passed.status();
    check(&restarted, &ready(true));
    restarted.pod["status"]["containerStatuses"][0]["containerID"] = json!("berth://other");
    check(&restarted, &ready(false));
}

#[test]
fn a_readiness_gate_is_waited_for() {
    let mut scene =
        Scene::new(json!({ "readinessGates": [{ "conditionType": "open" }] })).up().container("web", 0, running(1));
    check(
        &scene,
        &[("/conditions/4/status", json!("False")), ("/conditions/4/reason", json!("ReadinessGatesNotReady"))],
    );
    let open = PodCondition { type_: "open".to_owned(), status: "True".to_owned(), ..PodCondition::default() };
    let newer = PodStatus { conditions: Some(vec![open]), ..PodStatus::default() };
    scene.before = with_foreign_conditions(scene.before, &newer);
    check(&scene, &[("/conditions/0/type", json!("open")), ("/conditions/5/status", json!("True"))]);
}

#[test]
fn what_the_engine_forgot_is_told_as_before() {
    let mut scene = Scene::new(json!({ "restartPolicy": "Never" })).up().container("web", 2, exited(4, 1, 2));
    scene.before = serde_json::from_value(scene.status()).unwrap();
    scene.sandbox = None;
    let expected = [
        ("/phase", json!("Failed")),
        ("/containerStatuses/0/state/terminated/exitCode", json!(4)),
        ("/containerStatuses/0/restartCount", json!(2)),
        ("/podIP", json!("10.0.0.2")),
    ];
    scene.pod["status"] = serde_json::to_value(&scene.before).unwrap();
    check(&scene, &expected);
}

#[test]
fn after_a_reboot_what_ran_is_told_as_ended() {
    let mut scene = Scene::new(json!({})).up().container("web", 2, running(1));
    scene.before = serde_json::from_value(scene.status()).unwrap();
    scene.sandbox = None;
    let last = "/containerStatuses/0/lastState/terminated/reason";
    check(&scene, &[waits("ContainerCreating"), (last, json!("ContainerStatusUnknown"))]);
}

#[test]
fn a_pod_that_ran_too_long_has_failed() {
    let scene = Scene::new(json!({ "activeDeadlineSeconds": 10 })).up().container("web", 0, running(1));
    check(&scene, &[("/phase", json!("Running"))]);
    let ended = Scene::new(json!({ "activeDeadlineSeconds": 10 })).up().container("web", 0, exited(0, 1, 99));
    check(&ended, &[("/phase", json!("Failed")), ("/reason", json!("DeadlineExceeded"))]);
    assert!(ended.status().pointer(STATE).is_some());
}
