//! Small worlds, and the plans that are made for them: each case is a pod, what there is of it, and the plan in words.

use std::sync::Arc;
use std::time::Duration;

use berth_engine::{ContainerId, ContainerState, SandboxId, SandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::pod::desired::Presence;
use crate::pod::event::{Event, Fault, Outcome, Product};
use crate::pod::invariants::violations;
use crate::pod::memory::Image;
use crate::pod::observe::{Container, Sandbox};
use crate::probe;

/// A second of the test's time.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn sandbox_id(text: &str) -> SandboxId {
    serde_json::from_value(Value::String(text.to_owned())).unwrap()
}

pub(crate) fn container_id(text: &str) -> ContainerId {
    serde_json::from_value(Value::String(text.to_owned())).unwrap()
}

/// A start, for tests of other parts.
pub(crate) fn a_start(name: &str) -> Start {
    let image = "sha256:0".to_owned();
    Start { sandbox: sandbox_id("s0"), name: name.to_owned(), attempt: 0, streak: 0, image, created: None }
}

pub(crate) fn running(since: i64) -> ContainerState {
    ContainerState::Running { started_at: at(since) }
}

pub(crate) fn exited(exit_code: i32, started: i64, finished: i64) -> ContainerState {
    let (started_at, finished_at) = (Some(at(started)), at(finished));
    ContainerState::Exited { started_at, finished_at, exit_code, signal: None, oom_killed: false }
}

/// A pod and what there is of it.
struct Scene {
    pod: Value,
    presence: Presence,
    sandboxes: Vec<Sandbox>,
    memory: Memory,
    now: i64,
}

impl Scene {
    /// A pod with one container, `web`, of which nothing is there.
    fn new(spec: Value) -> Self {
        let mut pod = json!({
            "metadata": { "name": "p", "uid": "u" },
            "spec": { "terminationGracePeriodSeconds": 30, "containers": [{ "name": "web", "image": "i" }] },
        });
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        Self { pod, presence: Presence::Wanted, sandboxes: Vec::new(), memory: Memory::default(), now: 100 }
    }

    fn with_init(policy: &str) -> Self {
        let init = json!([{ "name": "one", "image": "i" }, { "name": "two", "image": "i" }]);
        Self::new(json!({ "initContainers": init, "restartPolicy": policy }))
    }

    fn with_sidecar() -> Self {
        let init =
            json!([{ "name": "side", "image": "i", "restartPolicy": "Always" }, { "name": "two", "image": "i" }]);
        Self::new(json!({ "initContainers": init }))
    }

    /// Volumes, sandbox and images are there: only containers are missing.
    fn prepared(mut self) -> Self {
        self.note(&Event::Ended(Task::Volumes, Outcome::Done(Product::Nothing)));
        for (name, attempt) in [("web", 0), ("one", 0), ("two", 0), ("side", 0)] {
            self = self.image(name, attempt);
        }
        self.sandbox("s0", SandboxState::Ready)
    }

    fn sandbox(mut self, id: &str, state: SandboxState) -> Self {
        let attempt = u32::try_from(self.sandboxes.len()).unwrap();
        let (ips, containers) = (vec!["10.0.0.2".parse().unwrap()], Vec::new());
        self.sandboxes.push(Sandbox { id: sandbox_id(id), attempt, state, created_at: at(0), ips, containers });
        self
    }

    fn container(self, name: &str, attempt: u32, state: ContainerState) -> Self {
        let streak = attempt;
        self.with_streak(name, attempt, streak, state)
    }

    fn with_streak(mut self, name: &str, attempt: u32, streak: u32, state: ContainerState) -> Self {
        let container = Container {
            id: container_id(&format!("{name}-{attempt}")),
            name: name.to_owned(),
            attempt,
            streak,
            image: "i".to_owned(),
            image_id: "sha256:0".to_owned(),
            image_ref: String::new(),
            created_at: at(0),
            state,
            message: None,
        };
        self.sandboxes.last_mut().unwrap().containers.push(container);
        self
    }

    fn image(mut self, name: &str, attempt: u32) -> Self {
        self.memory.images.insert(name.to_owned(), Image { attempt, id: "sha256:0".to_owned() });
        self
    }

    fn now(mut self, now: i64) -> Self {
        self.now = now;
        self
    }

    fn under_way(mut self, task: Task) -> Self {
        self.memory.running.insert(task);
        self
    }

    fn failed(mut self, task: Task, reason: &'static str) -> Self {
        let fault = Fault { reason, message: "no".to_owned() };
        self.note(&Event::Ended(task, Outcome::Failed(fault)));
        self
    }

    fn done(mut self, task: Task) -> Self {
        self.note(&Event::Ended(task, Outcome::Done(Product::Nothing)));
        self
    }

    fn answer(mut self, kind: probe::Kind, answer: &probe::Answer, times: u32) -> Self {
        let (_, desired) = self.desired();
        let spec = desired.apps().next().unwrap();
        let rules = probe::Rules::of(kind.of(spec).unwrap());
        for _ in 0..times {
            let product = Product::Probe { name: "web".to_owned(), answer: answer.clone(), rules };
            self.note(&Event::Ended(Task::Probe(container_id("web-0"), kind), Outcome::Done(product)));
        }
        self
    }

    fn deleted(mut self, grace: i64) -> Self {
        self.pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self
    }

    fn ending_since(mut self, second: i64) -> Self {
        self.memory.ending_since = Some(at(second));
        self
    }

    /// The plan that was made at `second` was begun.
    fn planned(mut self, second: i64) -> Self {
        self.now = second;
        let (plan, _) = self.plan();
        self.memory.begin(&plan, at(second));
        self
    }

    fn note(&mut self, event: &Event) {
        let (_, desired) = self.desired();
        self.memory.note(&desired, event, at(self.now));
    }

    fn desired(&self) -> (Arc<Pod>, Desired) {
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(self.pod.clone()).unwrap());
        (Arc::clone(&pod), Desired::parse(pod, self.presence, Duration::from_secs(300)).unwrap())
    }

    fn plan(&self) -> (Plan, Vec<String>) {
        let (_, desired) = self.desired();
        let observed = Observed { sandboxes: self.sandboxes.clone(), memory: &self.memory };
        let plan = plan(&desired, &observed, at(self.now));
        let broken = violations(&desired, &observed, &plan, at(self.now));
        (plan, broken)
    }
}

/// An action in words.
fn words(action: &Action) -> String {
    match action {
        Action::Volumes => "volumes".to_owned(),
        Action::Sandbox { attempt } => format!("sandbox {attempt}"),
        Action::Pull { name, attempt } => format!("pull {name} {attempt}"),
        Action::Start(start) => {
            let begun = if start.created.is_some() { " (created)" } else { "" };
            format!("start {} {}{begun}", start.name, start.attempt)
        }
        Action::Stop(stop) => format!("stop {} {}s", stop.name, stop.grace_secs),
        Action::Kill { name, .. } => format!("kill {name}"),
        Action::Forget { id } => format!("forget {}", id.as_str()),
        Action::StopSandbox { id } => format!("stop-sandbox {}", id.as_str()),
        Action::RemoveSandbox { id } => format!("remove-sandbox {}", id.as_str()),
        Action::Free(Freed::All) => "free all".to_owned(),
        Action::Free(Freed::ButLogs) => "free".to_owned(),
        Action::Probe { kind, .. } => format!("probe {}", kind.word()),
        Action::Cancel(task) => format!("cancel {task:?}"),
        Action::Tell(notice) => format!("tell {}", notice.reason),
    }
}

/// Makes a plan and compares it, in words: its actions, `wake <second>`, `finished`.
#[track_caller]
fn check(scene: Scene, expected: &[&str]) {
    let (plan, broken) = scene.plan();
    let mut got: Vec<_> = plan.actions.iter().map(words).collect();
    got.extend(plan.wake_at.map(|wake_at| format!("wake {}", wake_at.duration_since(at(0)).as_secs())));
    got.extend(plan.finished.then(|| "finished".to_owned()));
    assert_eq!(got, expected);
    assert!(broken.is_empty(), "{broken:?}");
}

mod beginning {
    use super::*;

    #[test]
    fn everything_that_can_be_had_at_once_is_begun_at_once() {
        check(Scene::new(json!({})), &["volumes", "pull web 0", "sandbox 0"]);
    }

    #[test]
    fn what_is_under_way_is_not_begun_again() {
        let scene = Scene::new(json!({})).planned(1);
        check(scene, &[]);
    }

    #[test]
    fn a_container_starts_when_all_it_needs_is_there() {
        check(Scene::new(json!({})).prepared(), &["start web 0"]);
        check(Scene::new(json!({})).prepared().under_way(Task::Start("web".to_owned())), &[]);
    }

    #[test]
    fn app_containers_start_side_by_side() {
        let both = json!({ "containers": [{ "name": "web", "image": "i" }, { "name": "two", "image": "i" }] });
        check(Scene::new(both).prepared(), &["start web 0", "start two 0"]);
    }

    #[test]
    fn a_container_that_was_created_and_not_started_is_started() {
        let scene = Scene::new(json!({})).prepared().container("web", 0, ContainerState::Created);
        check(scene, &["start web 0 (created)"]);
    }

    #[test]
    fn after_a_reboot_the_count_goes_on_from_the_pods_status() {
        let mut scene = Scene::new(json!({}));
        let told = json!({ "name": "web", "image": "", "imageID": "", "ready": true, "restartCount": 3, "containerID": "berth://x" });
        scene.pod["status"] = json!({ "containerStatuses": [told] });
        check(scene, &["volumes", "pull web 4", "sandbox 0"]);
    }
}

mod failing {
    use super::*;

    #[test]
    fn what_the_node_failed_to_do_is_tried_again_soon() {
        let scene = Scene::new(json!({})).now(10).failed(Task::Sandbox, "FailedCreatePodSandBox");
        check(scene.now(10), &["volumes", "pull web 0", "wake 11"]);
        let twice = Scene::new(json!({})).now(10).failed(Task::Volumes, "FailedMount").failed(Task::Volumes, "x");
        check(twice, &["pull web 0", "sandbox 0", "wake 12"]);
    }

    #[test]
    fn a_pull_backs_off_from_ten_seconds() {
        let scene = |times: usize, now: i64| {
            let pull = || Task::Pull("web".to_owned());
            let failed = |scene: Scene| scene.failed(pull(), "ErrImagePull");
            let mut scene = Scene::new(json!({})).prepared().now(0);
            scene.memory.images.clear();
            (0..times).fold(scene, |scene, _| failed(scene)).now(now)
        };
        check(scene(1, 9), &["wake 10"]);
        check(scene(1, 10), &["pull web 0"]);
        check(scene(2, 10), &["wake 20"]);
        check(scene(9, 10), &["wake 300"]);
    }

    #[test]
    fn a_configuration_that_lacks_something_is_tried_again_when_an_object_changes() {
        let start = Task::Start("web".to_owned());
        let scene = Scene::new(json!({})).prepared().now(10).failed(start, "CreateContainerConfigError");
        let mut changed = Scene { pod: scene.pod.clone(), ..scene };
        let (plan, _) = changed.plan();
        assert!(plan.actions.is_empty());
        changed.note(&Event::Object);
        check(changed, &["volumes", "start web 0"]);
    }
}

mod restarting {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_wait() {
        let ended = |streak: u32| {
            let scene = Scene::new(json!({})).prepared().image("web", 1);
            scene.with_streak("web", 0, streak, exited(1, 98, 100)).now(101)
        };
        check(ended(0), &["start web 1"]);
        check(ended(1), &["tell BackOff", "wake 110"]);
        check(ended(2), &["tell BackOff", "wake 120"]);
        check(ended(9), &["tell BackOff", "wake 400"]);
        check(ended(1).now(110), &["start web 1"]);
    }

    #[test]
    fn a_back_off_is_told_once() {
        let scene = Scene::new(json!({})).prepared().with_streak("web", 0, 1, exited(1, 98, 100));
        check(scene.planned(101).now(102), &["wake 110"]);
    }

    #[test]
    fn a_long_run_is_forgiven() {
        let scene = Scene::new(json!({})).prepared().image("web", 6);
        check(scene.with_streak("web", 5, 5, exited(1, 0, 600)).now(601), &["start web 6"]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nobody_wait_longer() {
        let scene = Scene::new(json!({})).prepared().image("web", 1);
        check(scene.with_streak("web", 0, 1, exited(1, 5000, 5001)).now(100), &["start web 1"]);
    }

    #[test]
    fn the_policy_decides() {
        let scene = |policy: &str, code: i32| {
            let scene = Scene::new(json!({ "restartPolicy": policy })).prepared().image("web", 1);
            scene.container("web", 0, exited(code, 98, 100))
        };
        check(scene("Always", 0), &["start web 1"]);
        check(scene("OnFailure", 1), &["start web 1"]);
        check(scene("OnFailure", 0), &["stop-sandbox s0"]);
        check(scene("Never", 1), &["stop-sandbox s0"]);
    }

    #[test]
    fn only_the_newest_record_and_the_one_before_are_kept() {
        let scene = Scene::new(json!({})).prepared();
        let scene = scene.container("web", 0, exited(1, 1, 2)).container("web", 1, exited(1, 3, 4));
        check(scene.container("web", 2, running(5)), &["forget web-0"]);
    }

    #[test]
    fn a_new_image_replaces_the_container() {
        let mut scene = Scene::new(json!({})).prepared().container("web", 0, running(1));
        scene.pod["spec"]["containers"][0]["image"] = json!("newer");
        check(scene, &["stop web 30s"]);
    }
}

mod ordering {
    use super::*;

    #[test]
    fn init_containers_run_one_after_the_other() {
        check(Scene::with_init("Always"), &["volumes", "pull one 0", "sandbox 0"]);
        check(Scene::with_init("Always").prepared(), &["start one 0"]);
        check(Scene::with_init("Always").prepared().container("one", 0, running(1)), &[]);
        let one = || Scene::with_init("Always").prepared().container("one", 0, exited(0, 1, 2));
        check(one(), &["start two 0"]);
        check(one().container("two", 0, exited(0, 3, 4)), &["start web 0"]);
    }

    #[test]
    fn an_init_container_that_fails_is_tried_again_unless_the_pod_says_never() {
        let failed = |policy| Scene::with_init(policy).prepared().container("one", 0, exited(1, 1, 2)).image("one", 1);
        check(failed("Always"), &["start one 1"]);
        check(failed("OnFailure"), &["start one 1"]);
        check(failed("Never"), &["stop-sandbox s0"]);
    }

    #[test]
    fn init_containers_are_done_when_an_app_container_was_there() {
        let scene = Scene::with_init("Always").prepared().container("web", 0, exited(1, 5, 6)).image("web", 1);
        check(scene, &["start web 1"]);
    }

    #[test]
    fn a_sidecar_is_up_before_the_next_one_starts() {
        check(Scene::with_sidecar().prepared(), &["start side 0"]);
        check(Scene::with_sidecar().prepared().container("side", 0, running(1)), &["start two 0"]);
        let down = Scene::with_sidecar().prepared().container("side", 0, exited(0, 1, 2)).image("side", 1);
        check(down, &["start side 1"]);
    }

    #[test]
    fn a_new_sandbox_begins_the_order_anew() {
        let lost = Scene::with_init("Always").prepared();
        let lost = lost.container("one", 0, exited(0, 1, 2)).container("two", 0, exited(0, 3, 4));
        let mut lost = lost.container("web", 0, ContainerState::Unknown);
        lost.sandboxes[0].state = SandboxState::NotReady;
        let stopped = |mut scene: Scene| {
            scene.memory.stopped.insert(sandbox_id("s0"));
            scene.image("one", 1)
        };
        let again =
            Scene { pod: lost.pod.clone(), sandboxes: lost.sandboxes.clone(), memory: lost.memory.clone(), ..lost };
        check(lost.image("one", 1), &["stop-sandbox s0"]);
        check(stopped(again), &["tell SandboxChanged", "sandbox 1"]);
    }
}

mod probing {
    use super::*;

    fn probed(kind: &str) -> Scene {
        let probe =
            json!({ "exec": { "command": ["true"] }, "initialDelaySeconds": 5, "terminationGracePeriodSeconds": 3 });
        let container = json!({ "name": "web", "image": "i", kind: probe });
        Scene::new(json!({ "containers": [container] })).prepared().container("web", 0, running(10))
    }

    #[test]
    fn a_probe_is_asked_after_its_delay_and_then_each_period() {
        check(probed("livenessProbe").now(12), &["wake 15"]);
        check(probed("livenessProbe").now(15), &["probe Liveness"]);
        let asked = probed("livenessProbe").now(15).answer(probe::Kind::Liveness, &probe::Answer::Healthy, 1);
        check(asked, &["wake 25"]);
    }

    #[test]
    fn who_fails_for_good_is_stopped_with_the_probes_own_grace() {
        let bad = probe::Answer::Unhealthy(String::new());
        let ill = |kind: &str, of, times| probed(kind).now(20).answer(of, &bad, times);
        check(ill("livenessProbe", probe::Kind::Liveness, 3), &["stop web 3s"]);
        check(ill("startupProbe", probe::Kind::Startup, 3), &["stop web 3s"]);
        check(ill("readinessProbe", probe::Kind::Readiness, 9), &["wake 42"]);
        let stopping = ill("livenessProbe", probe::Kind::Liveness, 3).planned(20);
        check(stopping.now(21), &["wake 23"]);
        let stopping =
            ill("livenessProbe", probe::Kind::Liveness, 3).planned(20).done(Task::Stop(container_id("web-0")));
        check(stopping.now(23), &["kill web", "wake 28"]);
    }

    #[test]
    fn other_probes_wait_for_the_startup_probe() {
        let probe = json!({ "exec": { "command": ["true"] } });
        let container = json!({ "name": "web", "image": "i", "startupProbe": probe, "readinessProbe": probe });
        let scene = || {
            let scene = Scene::new(json!({ "containers": [container.clone()] })).prepared();
            scene.container("web", 0, running(10)).now(12)
        };
        check(scene(), &["probe Startup"]);
        check(scene().answer(probe::Kind::Startup, &probe::Answer::Healthy, 1), &["probe Readiness"]);
    }
}

mod ending {
    use super::*;

    fn up() -> Scene {
        Scene::new(json!({})).prepared().container("web", 0, running(10))
    }

    #[test]
    fn a_deleted_pod_is_asked_then_killed_then_freed() {
        check(up().deleted(30), &["stop web 30s", "wake 130"]);
        let asked = || up().deleted(30).planned(100).done(Task::Stop(container_id("web-0")));
        check(asked().now(129), &["wake 130"]);
        check(asked().now(130), &["kill web", "wake 135"]);
        let killed = || asked().planned(130).done(Task::Kill(container_id("web-0")));
        check(killed().now(131), &["wake 135"]);
        check(killed().now(135), &["kill web", "wake 140"]);
        let ended = || Scene::new(json!({})).prepared().container("web", 0, exited(143, 10, 101)).deleted(30);
        check(ended(), &["remove-sandbox s0"]);
        let removed = || Scene::new(json!({})).deleted(30);
        check(removed(), &["free all"]);
        check(removed().done(Task::Free(Freed::All)), &["finished"]);
    }

    #[test]
    fn no_grace_means_at_once() {
        check(up().deleted(0), &["kill web", "wake 105"]);
    }

    #[test]
    fn a_shorter_grace_counts_from_the_first_request() {
        check(up().deleted(30).planned(100).deleted(5).now(104), &["wake 105"]);
        check(
            up().deleted(30).planned(100).deleted(5).now(106),
            &["cancel Stop(ContainerId(\"web-0\"))", "kill web", "wake 111"],
        );
    }

    #[test]
    fn a_deletion_is_seen_while_other_things_are_under_way() {
        let pulling = Scene::new(json!({})).planned(100).deleted(30);
        check(pulling, &["cancel Pull(\"web\")"]);
        let starting = Scene::new(json!({})).prepared().under_way(Task::Start("web".to_owned())).deleted(30);
        check(starting, &[]);
        let hooked = up().under_way(Task::Start("web".to_owned())).deleted(30);
        check(hooked, &["stop web 30s", "wake 130"]);
    }

    #[test]
    fn nothing_is_started_in_a_pod_that_ends() {
        check(Scene::new(json!({})).prepared().deleted(30), &["remove-sandbox s0"]);
        let ended = Scene::new(json!({})).prepared().container("web", 0, exited(1, 1, 2)).image("web", 1);
        check(ended.deleted(30), &["remove-sandbox s0"]);
    }

    #[test]
    fn sidecars_end_after_the_app_containers() {
        let both = || Scene::with_sidecar().prepared().container("side", 0, running(1)).container("web", 0, running(2));
        check(both().deleted(30), &["stop web 30s", "wake 130"]);
        let web_ended = Scene::with_sidecar().prepared().container("side", 0, running(1));
        let web_ended = web_ended.container("web", 0, exited(0, 2, 110)).deleted(30).ending_since(100).now(110);
        check(web_ended, &["stop side 20s", "wake 130"]);
        let late = both().deleted(30).ending_since(100).now(130);
        check(late, &["kill side", "kill web", "wake 135"]);
    }

    #[test]
    fn a_pod_that_is_over_keeps_its_records_and_frees_the_rest() {
        let over = || {
            let scene = Scene::new(json!({ "restartPolicy": "Never" })).prepared();
            scene.container("web", 0, exited(0, 1, 2))
        };
        check(over(), &["stop-sandbox s0"]);
        let stopped = || {
            let mut scene = over().done(Task::StopSandbox(sandbox_id("s0")));
            scene.sandboxes[0].state = SandboxState::NotReady;
            scene
        };
        check(stopped(), &["free"]);
        check(stopped().done(Task::Free(Freed::ButLogs)), &["finished"]);
        check(stopped().done(Task::Free(Freed::ButLogs)).deleted(30), &["remove-sandbox s0"]);
    }

    #[test]
    fn a_pod_that_was_told_to_be_over_never_runs_again() {
        let mut scene = Scene::new(json!({}));
        scene.pod["status"] = json!({ "phase": "Succeeded" });
        check(scene, &["free"]);
    }

    #[test]
    fn a_pod_runs_no_longer_than_it_may() {
        let limited = |now: i64| {
            let scene = Scene::new(json!({ "activeDeadlineSeconds": 50 })).prepared();
            scene.container("web", 0, running(1)).now(now)
        };
        check(limited(49), &["wake 50"]);
        check(limited(50), &["stop web 30s", "wake 80"]);
        let (plan, _) = limited(50).plan();
        assert_eq!(plan.ending, Some(Ending::DeadlineExceeded));
    }

    #[test]
    fn teardown_that_fails_is_tried_again() {
        let ended = Scene::new(json!({})).prepared().container("web", 0, exited(0, 1, 2)).deleted(30);
        check(ended.failed(Task::RemoveSandbox(sandbox_id("s0")), "InternalError"), &["wake 101"]);
    }
}
