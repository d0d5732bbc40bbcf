//! Random lives of a pod in a world that is made of data: everything that can happen does, in any order, and after each
//! step what must always be true is checked. In the end the world is left in peace, and the pod must come to rest.
//!
//! The plan, the memory, the status and the probes are the real ones; only what actions do to the world is played here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_engine::{ContainerState, SandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::desired::{Desired, Presence};
use super::event::{Change, Event, Fault, Outcome, Product};
use super::invariants::violations;
use super::memory::Memory;
use super::observe::{Container, Observed, Sandbox};
use super::plan::tests::{at, container_id, exited, running, sandbox_id};
use super::plan::{Action, Plan, Task, plan};
use super::status::status;
use crate::probe::Answer;

/// How many turns of the loop a pod has to come to rest when nothing happens any more.
const PEACE_TURNS_MAX: usize = 400;

/// How many lives are lived.
const LIVES: u32 = 1000;

/// Where the choices come from: a list that shrinks well.
struct Dice {
    rolls: Vec<u16>,
    next: usize,
}

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let roll = self.rolls.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(roll) % sides.max(1)
    }

    fn is_over(&self) -> bool {
        self.next >= self.rolls.len()
    }
}

/// A pod's world.
struct World {
    pod: Pod,
    presence: Presence,
    sandboxes: Vec<Sandbox>,
    memory: Memory,
    under_way: BTreeMap<Task, Action>,
    volumes_mounted: bool,
    cgroup: bool,
    told: PodStatus,
    finished: bool,
    made: u32,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    dice: Dice,
}

impl World {
    fn new(pod: Value, rolls: Vec<u16>) -> Self {
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            presence: Presence::Wanted,
            sandboxes: Vec::new(),
            memory: Memory::default(),
            under_way: BTreeMap::new(),
            volumes_mounted: false,
            cgroup: false,
            told: PodStatus::default(),
            finished: false,
            made: 0,
            now: at(0),
            wake_at: None,
            dice: Dice { rolls, next: 0 },
        }
    }

    fn desired(&self) -> Desired {
        let mut pod = self.pod.clone();
        pod.status = Some(self.told.clone());
        Desired::parse(Arc::new(pod), self.presence, Duration::from_secs(300)).unwrap()
    }

    /// One turn of the worker's loop, with everything checked.
    fn turn(&mut self) {
        let desired = self.desired();
        self.memory.prune(self.sandboxes.iter().flat_map(|sandbox| &sandbox.containers).map(|container| &container.id));
        let observed = Observed { sandboxes: self.sandboxes.clone(), memory: &self.memory };
        let next = status(&desired, &observed, &self.told, &[], self.now);
        let plan = plan(&desired, &observed, self.now);
        let broken = violations(&desired, &observed, &plan, self.now);
        assert!(broken.is_empty(), "{broken:?}\n{}", self.picture());
        self.check_status(&next);
        self.check_finished(&plan);
        self.told = next;
        self.finished = plan.finished;
        self.wake_at = plan.wake_at;
        assert!(plan.wake_at.is_none_or(|wake_at| wake_at > self.now), "it wakes itself at once\n{}", self.picture());
        self.memory.begin(&plan, self.now);
        for action in plan.actions {
            if let Action::Cancel(task) = &action {
                self.under_way.remove(task);
                self.memory.note(&desired, &Event::Ended(task.clone(), Outcome::Cancelled), self.now);
            } else if let Some(task) = action.task() {
                assert!(self.under_way.insert(task, action).is_none(), "a task is under way twice");
            }
        }
    }

    fn check_status(&self, next: &PodStatus) {
        let statuses = |status: &PodStatus| {
            let all = [status.init_container_statuses.clone(), status.container_statuses.clone()];
            all.into_iter().flatten().flatten().collect::<Vec<_>>()
        };
        for before in statuses(&self.told) {
            let after = statuses(next).into_iter().find(|after| after.name == before.name).unwrap();
            assert!(
                after.restart_count >= before.restart_count,
                "restarts of {} went from {} to {}\n{}",
                after.name,
                before.restart_count,
                after.restart_count,
                self.picture()
            );
        }
        let last = matches!(self.told.phase.as_deref(), Some("Succeeded" | "Failed"));
        assert!(!last || self.told.phase == next.phase, "a last phase was taken back\n{}", self.picture());
        let over = matches!(next.phase.as_deref(), Some("Succeeded" | "Failed"));
        assert!(!over || !self.runs(), "it is told as over while it runs\n{}", self.picture());
        for status in statuses(next).into_iter().filter(|status| status.ready) {
            let state = status.state.unwrap();
            assert!(state.running.is_some() || state.terminated.is_some_and(|end| end.exit_code == 0));
        }
    }

    fn check_finished(&self, plan: &Plan) {
        if plan.finished && self.presence != Presence::Wanted {
            let left = !self.sandboxes.is_empty() || self.volumes_mounted || self.cgroup;
            assert!(!left, "finished, and something is left\n{}", self.picture());
        }
        if plan.finished {
            assert!(!self.volumes_mounted && !self.cgroup, "finished, and not freed\n{}", self.picture());
        }
    }

    fn runs(&self) -> bool {
        self.sandboxes.iter().flat_map(|sandbox| &sandbox.containers).any(Container::is_running)
    }

    fn note(&mut self, event: &Event) {
        let desired = self.desired();
        self.memory.note(&desired, event, self.now);
    }

    /// Something happens.
    fn happen(&mut self) {
        match self.dice.roll(20) {
            0..=8 => self.a_task_ends(Luck::Mixed),
            9..=12 => self.a_container_ends(),
            13 | 14 => self.time_passes(),
            15 => self.the_agent_is_killed(),
            16 => self.the_sandbox_is_lost(),
            17 => self.note(&Event::Object),
            18 => self.note(&Event::Wish(Change::Metadata)),
            _ => match self.dice.roll(6) {
                0 => self.delete(),
                1 if self.presence == Presence::Deleted => self.presence = Presence::Removed,
                _ => self.time_passes(),
            },
        }
    }

    fn delete(&mut self) {
        if self.presence == Presence::Wanted {
            self.pod.metadata.deletion_timestamp = Some(Time(self.now));
            self.pod.metadata.deletion_grace_period_seconds = Some([30, 0, 2][self.dice.roll(3)]);
            self.presence = Presence::Deleted;
            self.note(&Event::Wish(Change::Other));
        }
    }

    fn time_passes(&mut self) {
        let to = match self.wake_at {
            Some(wake_at) if self.dice.roll(3) > 0 => wake_at,
            _ => self.now + Duration::from_millis([1, 100, 1000, 30_000, 700_000][self.dice.roll(5)]),
        };
        self.now = self.now.max(to);
        self.note(&Event::Time);
    }

    /// Everything in the worker's head is lost, and so is what was under way: some of it half done.
    fn the_agent_is_killed(&mut self) {
        let half_done: Vec<_> = std::mem::take(&mut self.under_way).into_values().collect();
        for action in half_done {
            if self.dice.roll(2) == 0 {
                self.half(&action);
            }
        }
        self.memory = Memory::default();
    }

    fn the_sandbox_is_lost(&mut self) {
        let Some(sandbox) = self.sandboxes.last_mut() else { return };
        sandbox.state = SandboxState::NotReady;
        for container in &mut sandbox.containers {
            if container.end().is_none() {
                container.state = ContainerState::Unknown;
            }
        }
        self.note(&Event::Engine);
    }

    fn a_container_ends(&mut self) {
        let code = [0, 1, 137][self.dice.roll(3)];
        let chosen = self.dice.roll(4);
        let now = self.now;
        let containers = self.sandboxes.iter_mut().flat_map(|sandbox| &mut sandbox.containers);
        let running: Vec<_> = containers.filter(|container| container.is_running()).collect();
        if let Some(container) = running.into_iter().nth(chosen) {
            end(container, code, now);
        }
        self.note(&Event::Engine);
    }

    fn a_task_ends(&mut self, luck: Luck) {
        let chosen = self.dice.roll(self.under_way.len());
        let Some(task) = self.under_way.keys().nth(chosen).cloned() else { return self.time_passes() };
        let Some(action) = self.under_way.remove(&task) else { return };
        let fails = luck == Luck::Mixed && self.dice.roll(4) == 0;
        let outcome = if fails {
            let fault = Fault { reason: fault_of(&action), message: "no luck".to_owned() };
            if self.dice.roll(2) == 0 {
                self.half(&action);
            }
            Outcome::Failed(fault)
        } else {
            Outcome::Done(self.perform(&action, luck))
        };
        self.now += Duration::from_millis(1);
        self.note(&Event::Ended(task, outcome));
    }

    /// What an action leaves when it breaks off in the middle.
    fn half(&mut self, action: &Action) {
        match action {
            Action::Sandbox { attempt } => {
                self.cgroup = true;
                self.add_sandbox(*attempt, SandboxState::NotReady);
            }
            Action::Volumes => self.volumes_mounted = true,
            Action::Start(start) if start.created.is_none() => self.create(start),
            Action::Free(_) => self.volumes_mounted = false,
            _ => {}
        }
    }

    fn perform(&mut self, action: &Action, luck: Luck) -> Product {
        match action {
            Action::Volumes => self.volumes_mounted = true,
            Action::Sandbox { attempt } => {
                self.cgroup = true;
                self.add_sandbox(*attempt, SandboxState::Ready);
            }
            Action::Pull { attempt, .. } => {
                return Product::Image { attempt: *attempt, id: "sha256:0".to_owned(), message: String::new() };
            }
            Action::Start(start) => {
                if start.created.is_none() {
                    self.create(start);
                }
                let now = self.now;
                if let Some(container) = self.container_mut(|container| {
                    container.name == start.name && container.state == ContainerState::Created
                }) {
                    container.state = ContainerState::Running { started_at: now };
                }
            }
            Action::Stop(stop) => {
                // Some end when they are asked, some do not care.
                let obeys = luck == Luck::Good || self.dice.roll(2) == 0;
                let now = self.now;
                if let Some(container) = self.container_mut(|container| container.id == stop.id)
                    && obeys
                    && container.is_running()
                {
                    end(container, 143, now);
                }
            }
            Action::Kill { id, .. } => {
                let now = self.now;
                if let Some(container) = self.container_mut(|container| container.id == *id)
                    && container.is_running()
                {
                    end(container, 137, now);
                }
            }
            Action::Forget { id } => {
                self.sandboxes.iter_mut().for_each(|sandbox| sandbox.containers.retain(|known| known.id != *id));
            }
            Action::StopSandbox { id } => self.stop_sandbox(id.as_str()),
            Action::RemoveSandbox { id } => self.sandboxes.retain(|sandbox| sandbox.id != *id),
            Action::Free(_) => {
                self.volumes_mounted = false;
                self.cgroup = false;
            }
            Action::Probe { name, rules, .. } => {
                let ill = luck == Luck::Mixed && self.dice.roll(3) == 0;
                let answer = if ill { Answer::Unhealthy(String::new()) } else { Answer::Healthy };
                return Product::Probe { name: name.clone(), answer, rules: *rules };
            }
            Action::Cancel(_) | Action::Tell(_) => {}
        }
        Product::Nothing
    }

    fn add_sandbox(&mut self, attempt: u32, state: SandboxState) {
        self.made += 1;
        let id = sandbox_id(&format!("s{}", self.made));
        let containers = Vec::new();
        self.sandboxes.push(Sandbox { id, attempt, state, created_at: self.now, ips: Vec::new(), containers });
    }

    fn stop_sandbox(&mut self, id: &str) {
        for sandbox in self.sandboxes.iter_mut().filter(|sandbox| sandbox.id.as_str() == id) {
            sandbox.state = SandboxState::NotReady;
            for container in &mut sandbox.containers {
                if container.end().is_none() {
                    container.state = ContainerState::Unknown;
                }
            }
        }
    }

    fn create(&mut self, start: &super::plan::Start) {
        self.made += 1;
        let container = Container {
            id: container_id(&format!("{}-{}", start.name, self.made)),
            name: start.name.clone(),
            attempt: start.attempt,
            streak: start.streak,
            image: "i".to_owned(),
            image_id: start.image.clone(),
            image_ref: String::new(),
            created_at: self.now,
            state: ContainerState::Created,
            message: None,
        };
        let sandbox = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == start.sandbox);
        if let Some(sandbox) = sandbox.filter(|sandbox| sandbox.state == SandboxState::Ready) {
            sandbox.containers.push(container);
        }
    }

    fn container_mut(&mut self, wanted: impl Fn(&Container) -> bool) -> Option<&mut Container> {
        let mut all = self.sandboxes.iter_mut().flat_map(|sandbox| &mut sandbox.containers);
        all.find(|container| wanted(container))
    }

    /// Nothing bad happens any more: everything that is begun ends well, until nothing is left to do.
    fn come_to_rest(&mut self) {
        for _ in 0..PEACE_TURNS_MAX {
            self.turn();
            if !self.under_way.is_empty() {
                self.a_task_ends(Luck::Good);
            } else if self.is_at_rest() {
                return;
            } else if !self.one_ends_by_itself() {
                let wake_at = self.wake_at.unwrap_or_else(|| panic!("it waits for nothing\n{}", self.picture()));
                self.now = self.now.max(wake_at);
                self.note(&Event::Time);
            }
        }
        panic!("it does not come to rest\n{}", self.picture());
    }

    /// Finished, or up: all app containers and sidecars ready.
    fn is_at_rest(&self) -> bool {
        if self.finished {
            return true;
        }
        let ready =
            |status: &PodStatus| berth_api::condition::holds(status.conditions.as_deref().unwrap_or_default(), "Ready");
        self.presence == Presence::Wanted && self.restarts_always() && ready(&self.told)
    }

    /// A container whose work is done ends. Whether there was one.
    fn one_ends_by_itself(&mut self) -> bool {
        let (always, now) = (self.restarts_always(), self.now);
        let ends = self.container_mut(|container| {
            container.is_running() && container.name != "side" && (!always || container.name.starts_with("init"))
        });
        let Some(container) = ends else { return false };
        end(container, 0, now);
        self.note(&Event::Engine);
        true
    }

    fn restarts_always(&self) -> bool {
        self.pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Always"))
    }

    fn picture(&self) -> String {
        let containers = |sandbox: &Sandbox| {
            let all = sandbox.containers.iter();
            all.map(|container| format!("\n    {} {:?}", container.id.as_str(), container.state)).collect::<String>()
        };
        let sandboxes = self
            .sandboxes
            .iter()
            .map(|sandbox| format!("  {} {:?}{}\n", sandbox.id.as_str(), sandbox.state, containers(sandbox)));
        let sandboxes: String = sandboxes.collect();
        format!(
            "now {} wake {:?} {:?} finished {} phase {:?}\n{sandboxes}under way {:?}\n{:#?}",
            self.now,
            self.wake_at,
            self.presence,
            self.finished,
            self.told.phase,
            self.under_way.keys(),
            self.memory
        )
    }
}

/// Whether things go wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Luck {
    Mixed,
    Good,
}

fn end(container: &mut Container, code: i32, now: Timestamp) {
    let ContainerState::Running { started_at } = container.state else { return };
    container.state = ContainerState::Exited {
        started_at: Some(started_at),
        finished_at: now,
        exit_code: code,
        signal: None,
        oom_killed: false,
    };
}

fn fault_of(action: &Action) -> &'static str {
    match action {
        Action::Pull { .. } => "ErrImagePull",
        Action::Volumes => "FailedMount",
        Action::Sandbox { .. } => "FailedCreatePodSandBox",
        Action::Start(_) => "CreateContainerConfigError",
        _ => "InternalError",
    }
}

fn a_pod(policy: &str, init: bool, sidecar: bool, probes: bool) -> Value {
    let mut inits = Vec::new();
    if sidecar {
        inits.push(json!({ "name": "side", "image": "i", "restartPolicy": "Always" }));
    }
    if init {
        inits.push(json!({ "name": "init-a", "image": "i" }));
        inits.push(json!({ "name": "init-b", "image": "i" }));
    }
    let probe = || json!({ "exec": { "command": ["true"] }, "periodSeconds": 1, "failureThreshold": 2 });
    let mut web = json!({ "name": "web", "image": "i" });
    if probes {
        web["startupProbe"] = probe();
        web["readinessProbe"] = probe();
        web["livenessProbe"] = probe();
    }
    let other = json!({ "name": "other", "image": "i" });
    json!({
        "metadata": { "name": "p", "uid": "u" },
        "spec": { "restartPolicy": policy, "initContainers": inits, "containers": [web, other] },
    })
}

fn live(pod: Value, rolls: Vec<u16>) {
    let mut world = World::new(pod, rolls);
    while !world.dice.is_over() {
        world.turn();
        world.happen();
    }
    world.come_to_rest();
    if world.presence == Presence::Wanted {
        world.delete();
        world.come_to_rest();
    }
    assert!(world.finished, "{}", world.picture());
    assert!(world.sandboxes.is_empty() && !world.volumes_mounted && !world.cgroup, "{}", world.picture());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: LIVES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_pod_keeps_its_promises_and_comes_to_rest(
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        (init, sidecar, probes) in any::<(bool, bool, bool)>(),
        rolls in prop::collection::vec(any::<u16>(), 0..400),
    ) {
        live(a_pod(policy, init, sidecar, probes), rolls);
    }
}

#[test]
fn a_quiet_life_is_short() {
    let mut world = World::new(a_pod("Always", true, true, true), Vec::new());
    world.come_to_rest();
    assert_eq!(world.told.phase.as_deref(), Some("Running"));
    assert!(world.now < at(10), "{}", world.picture());
    let states = [running(0), exited(0, 0, 0)];
    let is = |container: &Container, state: &ContainerState| {
        std::mem::discriminant(&container.state) == std::mem::discriminant(state)
    };
    let count = |state: &ContainerState| world.sandboxes[0].containers.iter().filter(|one| is(one, state)).count();
    assert_eq!((count(&states[0]), count(&states[1])), (3, 2));
}
