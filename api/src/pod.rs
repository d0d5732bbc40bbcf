//! What a pod's fields mean: restart rules, phase, readiness.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod, PodSpec};

use crate::condition;

/// `terminationGracePeriodSeconds` where the pod says nothing.
pub const GRACE_SECS_DEFAULT: i64 = 30;

/// What happens when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless its exit code was 0.
    OnFailure,
    /// It stays ended.
    Never,
}

impl RestartPolicy {
    /// The policy of a pod's app containers.
    pub fn of(spec: &PodSpec) -> Self {
        match spec.restart_policy.as_deref() {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// The policy of a pod's init containers: what must end well cannot be started again after it did.
    pub fn of_init(spec: &PodSpec) -> Self {
        match Self::of(spec) {
            Self::Always | Self::OnFailure => Self::OnFailure,
            Self::Never => Self::Never,
        }
    }

    /// Whether a container that ended with this exit code is started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// Whether an init container runs beside the app containers (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// How long a pod's containers have to end.
pub fn grace_secs(pod: &Pod) -> u64 {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    u64::try_from(asked.or(own).unwrap_or(GRACE_SECS_DEFAULT)).unwrap_or(0)
}

/// Whether the pod says that it serves.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    condition::holds(conditions, condition::READY)
}

/// Whether the pod has ended for good: nothing of it may ever run again.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A pod's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers were started yet.
    Pending,
    /// At least one runs, or will again.
    Running,
    /// All ended well and stay so.
    Succeeded,
    /// All ended, one of them badly, and stay so.
    Failed,
}

impl Phase {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Whether it is the last.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether containers that ended may still be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// The restart policy decides.
    Open,
    /// The pod is being ended: what ended stays so.
    Closed,
}

/// The phase that follows from the containers' states. `init` and `apps` are in the order of the spec.
pub fn phase(spec: &PodSpec, init: &[ContainerStatus], apps: &[ContainerStatus], future: Outlook) -> Phase {
    let policy = RestartPolicy::of(spec);
    if let Some(phase) = phase_of_init(spec, policy, init, apps, future) {
        return phase;
    }
    let sidecars = init.iter().filter(|status| sidecar_named(spec, &status.name));
    let mut count = Count::default();
    apps.iter().for_each(|status| count.add(status));
    match (count, future, policy) {
        (Count { running: 1.., .. }, _, _) if count.waiting == 0 => Phase::Running,
        (Count { waiting: 1.., .. }, Outlook::Open, _) => Phase::Pending,
        (Count { waiting: 1.., .. }, Outlook::Closed, _) if count.running > 0 => Phase::Running,
        (Count { waiting: 1.., .. }, Outlook::Closed, _) if count.ended == 0 => Phase::Pending,
        (Count { waiting: 1.., .. }, Outlook::Closed, _) => Phase::Failed,
        // No app container runs or waits. Sidecars that still run will be stopped: until then, the pod runs.
        _ if sidecars.clone().any(is_running) => Phase::Running,
        (_, Outlook::Open, RestartPolicy::Always) => Phase::Running,
        _ if count.ended == 0 => Phase::Pending,
        _ if count.ended == count.well => Phase::Succeeded,
        (_, Outlook::Open, RestartPolicy::OnFailure) => Phase::Running,
        _ => Phase::Failed,
    }
}

/// The phase, as long as the init containers decide it.
fn phase_of_init(
    spec: &PodSpec,
    policy: RestartPolicy,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    future: Outlook,
) -> Option<Phase> {
    let apps_began = apps.iter().any(|status| last_exit(status).is_some() || is_running(status));
    if apps_began {
        return None;
    }
    for status in init {
        let done = match sidecar_named(spec, &status.name) {
            true => status.started == Some(true),
            false => last_exit(status) == Some(0) && !is_running(status),
        };
        let failed = last_exit(status).is_some_and(|code| code != 0) && !is_running(status);
        let stays = policy == RestartPolicy::Never || future == Outlook::Closed;
        if failed && stays && !sidecar_named(spec, &status.name) {
            return Some(Phase::Failed);
        }
        if !done {
            return Some(Phase::Pending);
        }
    }
    None
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    running: usize,
    waiting: usize,
    ended: usize,
    well: usize,
}

impl Count {
    fn add(&mut self, status: &ContainerStatus) {
        match (is_running(status), last_exit(status)) {
            (true, _) => self.running += 1,
            (false, None) => self.waiting += 1,
            (false, Some(code)) => {
                self.ended += 1;
                self.well += usize::from(code == 0);
            }
        }
    }
}

fn sidecar_named(spec: &PodSpec, name: &str) -> bool {
    spec.init_containers.iter().flatten().any(|container| container.name == name && is_sidecar(container))
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// How the container last ended: also one that waits for its next start has ended.
fn last_exit(status: &ContainerStatus) -> Option<i32> {
    let exit = |state: Option<&ContainerState>| state?.terminated.as_ref().map(|ended| ended.exit_code);
    exit(status.state.as_ref()).or_else(|| exit(status.last_state.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(policy: &str) -> PodSpec {
        let side = json!({ "name": "side", "restartPolicy": "Always" });
        let value = json!({ "restartPolicy": policy, "initContainers": [{ "name": "init" }, side], "containers": [] });
        serde_json::from_value(value).unwrap()
    }

    fn status(word: &str) -> ContainerStatus {
        let (name, state) = word.split_once('=').unwrap_or(("app", word));
        let mut value =
            json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "started": false });
        match state {
            "run" => value["state"] = json!({ "running": {} }),
            "wait" => value["state"] = json!({ "waiting": {} }),
            "loop" => {
                value["state"] = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
                value["lastState"] = json!({ "terminated": { "exitCode": 1 } });
            }
            "up" => {
                value["state"] = json!({ "running": {} });
                value["started"] = Value::Bool(true);
            }
            code => value["state"] = json!({ "terminated": { "exitCode": code.parse::<i32>().unwrap() } }),
        }
        serde_json::from_value(value).unwrap()
    }

    fn check(policy: &str, init: &[&str], apps: &[&str], future: Outlook, expected: Phase) {
        let all = |words: &[&str]| words.iter().map(|word| status(word)).collect::<Vec<_>>();
        let got = phase(&spec(policy), &all(init), &all(apps), future);
        assert_eq!(got, expected, "{policy} init {init:?} apps {apps:?} {future:?}");
    }

    #[test]
    fn the_phase_follows_from_the_containers() {
        use Outlook::{Closed, Open};
        use Phase::{Failed, Pending, Running, Succeeded};
        check("Always", &[], &["wait"], Open, Pending);
        check("Always", &[], &["run", "wait"], Open, Pending);
        check("Always", &[], &["run", "run"], Open, Running);
        check("Always", &[], &["run", "loop"], Open, Running);
        check("Always", &[], &["loop"], Open, Running);
        check("Always", &[], &["0"], Open, Running);
        check("Always", &[], &["0"], Closed, Succeeded);
        check("Always", &[], &["137"], Closed, Failed);
        check("Always", &[], &["wait"], Closed, Pending);
        check("OnFailure", &[], &["0"], Open, Succeeded);
        check("OnFailure", &[], &["0", "1"], Open, Running);
        check("OnFailure", &[], &["0", "loop"], Open, Running);
        check("Never", &[], &["0", "1"], Open, Failed);
        check("Never", &[], &["0", "run"], Open, Running);
        check("Never", &[], &["0", "0"], Open, Succeeded);
    }

    #[test]
    fn init_containers_come_first() {
        use Outlook::{Closed, Open};
        use Phase::{Failed, Pending, Running, Succeeded};
        check("Always", &["init=wait"], &["wait"], Open, Pending);
        check("Always", &["init=run"], &["wait"], Open, Pending);
        check("Always", &["init=loop"], &["wait"], Open, Pending);
        check("Never", &["init=1"], &["wait"], Open, Failed);
        check("Always", &["init=1"], &["wait"], Closed, Failed);
        check("Never", &["init=0"], &["wait"], Open, Pending);
        check("Never", &["init=0", "side=up"], &["run"], Open, Running);
        check("Never", &["init=0", "side=up"], &["0"], Open, Running);
        check("Never", &["init=0", "side=137"], &["0"], Open, Succeeded);
    }

    #[test]
    fn the_grace_of_a_deletion_beats_the_pods_own() {
        let mut pod = Pod::default();
        assert_eq!(grace_secs(&pod), 30);
        pod.spec = Some(PodSpec { termination_grace_period_seconds: Some(5), ..PodSpec::default() });
        assert_eq!(grace_secs(&pod), 5);
        pod.metadata.deletion_grace_period_seconds = Some(1);
        assert_eq!(grace_secs(&pod), 1);
        pod.metadata.deletion_grace_period_seconds = Some(-1);
        assert_eq!(grace_secs(&pod), 0);
    }
}
