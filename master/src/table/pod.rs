//! Rows of pods: the one word that says how a pod is doing, and how many of its containers are ready.

use jiff::Timestamp;
use serde_json::Value;

use super::age::{age, parse, since};
use super::{AGE, NAME, Printer, items, name, or_none, text, wide};

pub(super) const PRINTER: Printer = Printer {
    columns: &[
        NAME,
        text("Ready", "How many containers are ready."),
        text("Status", "How the containers do, in one word."),
        text("Restarts", "How often containers restarted, and when last."),
        AGE,
        wide("IP", "Address of the pod."),
        wide("Node", "Where the pod runs."),
        wide("Nominated Node", "Where the pod will run when room is made."),
        wide("Readiness Gates", "How many further conditions of readiness hold."),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let Summary { reason, ready, total, restarts, last_restart } = summary(pod);
    let restarts = match &last_restart {
        Some(time) if restarts != 0 => format!("{restarts} ({} ago)", since(&time.to_string().into(), now)),
        _ => restarts.to_string(),
    };
    let status = &pod["status"];
    vec![
        name(pod),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(&status["podIPs"][0]["ip"]),
        or_none(&pod["spec"]["nodeName"]),
        or_none(&status["nominatedNodeName"]),
        readiness_gates(pod).into(),
    ]
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or(0);
        let ended = parse(&container["lastState"]["terminated"]["finishedAt"]);
        self.last_restart = self.last_restart.max(ended);
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    items(&pod["status"]["conditions"]).iter().find(|c| c["type"] == kind)
}

fn holds(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| c["status"] == "True")
}

fn summary(pod: &Value) -> Summary {
    let status = &pod["status"];
    let phase = text_of(&status["phase"]);
    let said = text_of(&status["reason"]);
    let mut reason = if said.is_empty() { phase } else { said }.to_owned();
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }
    let sidecars = items(&pod["spec"]["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always").count();
    let total = items(&pod["spec"]["containers"]).len() + sidecars;
    let mut summary = Summary { reason, ready: 0, total, restarts: 0, last_restart: None };

    let is_initializing = summarize_init(pod, &mut summary);
    if !is_initializing || holds(pod, "Initialized") {
        summarize_containers(pod, &mut summary);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if said == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Goes through the init containers up to the one that the pod waits for; whether there is such a one.
fn summarize_init(pod: &Value, summary: &mut Summary) -> bool {
    let specs = items(&pod["spec"]["initContainers"]);
    for (at, container) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        summary.count_restarts(container);
        let (terminated, waiting) =
            (&container["state"]["terminated"], text_of(&container["state"]["waiting"]["reason"]));
        let is_sidecar = is_sidecar(specs, container);
        if terminated["exitCode"] == 0 {
            continue;
        }
        if is_sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        summary.reason = if terminated.is_object() {
            format!("Init:{}", end(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{at}/{}", specs.len())
        };
        return true;
    }
    false
}

fn is_sidecar(specs: &[Value], container: &Value) -> bool {
    specs.iter().any(|spec| spec["name"] == container["name"] && spec["restartPolicy"] == "Always")
}

/// How a container ended.
fn end(terminated: &Value) -> String {
    match text_of(&terminated["reason"]) {
        "" => match terminated["signal"].as_i64() {
            Some(signal) if signal != 0 => format!("Signal:{signal}"),
            _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        },
        reason => reason.to_owned(),
    }
}

/// Goes through the containers; the first one that has something to say gives the word.
fn summarize_containers(pod: &Value, summary: &mut Summary) {
    // Of the init containers only those that run on count, now that the others are done.
    (summary.restarts, summary.last_restart) = (0, None);
    let specs = items(&pod["spec"]["initContainers"]);
    let init = items(&pod["status"]["initContainerStatuses"]).iter();
    init.filter(|container| is_sidecar(specs, container)).for_each(|container| summary.count_restarts(container));

    let mut has_running = false;
    for container in items(&pod["status"]["containerStatuses"]).iter().rev() {
        summary.count_restarts(container);
        let state = &container["state"];
        let waiting = text_of(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if state["terminated"].is_object() {
            summary.reason = end(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            has_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && has_running {
        summary.reason = if holds(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| holds(pod, text_of(&gate["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::tests::printed;

    fn check(spec: Value, status: Value, expected: &str) {
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T11:59:00Z"}, "spec": spec, "status": status});
        let line = printed("", "pods", pod);
        let short = line.split(" | ").next().unwrap();
        assert_eq!(short, format!("p  {expected}  60s"), "{status}");
    }

    fn one(state: Value) -> Value {
        json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": state["running"].is_object(), "state": state}]})
    }

    #[test]
    fn one_word_says_how_a_pod_does() {
        let spec = json!({"containers": [{"name": "a"}]});
        check(spec.clone(), json!({"phase": "Pending"}), "0/1  Pending  0");
        check(spec.clone(), one(json!({"running": {}})), "1/1  Running  0");
        check(spec.clone(), one(json!({"waiting": {"reason": "CrashLoopBackOff"}})), "0/1  CrashLoopBackOff  0");
        check(spec.clone(), one(json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}})), "0/1  OOMKilled  0");
        check(spec.clone(), one(json!({"terminated": {"reason": "Completed", "exitCode": 0}})), "0/1  Completed  0");
        check(spec.clone(), one(json!({"terminated": {"exitCode": 3}})), "0/1  ExitCode:3  0");
        check(spec.clone(), one(json!({"terminated": {"exitCode": 137, "signal": 9}})), "0/1  Signal:9  0");
        check(spec.clone(), json!({"phase": "Failed", "reason": "Evicted"}), "0/1  Evicted  0");
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
                {"name": "a", "state": {"terminated": {"reason": "Completed"}}}, {"name": "b", "ready": true, "state": {"running": {}}}]}),
            "1/2  Running  0",
        );
    }

    #[test]
    fn init_containers_are_counted_until_they_are_done() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
        let with = |i: Value, j: Value| {
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": i}, {"name": "j", "state": j}],
                   "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}]})
        };
        let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let waits = json!({"waiting": {"reason": "PodInitializing"}});
        check(spec.clone(), with(json!({"running": {}}), waits.clone()), "0/1  Init:0/2  0");
        check(spec.clone(), with(done.clone(), waits.clone()), "0/1  Init:1/2  0");
        check(
            spec.clone(),
            with(json!({"terminated": {"exitCode": 1, "reason": "Error"}}), waits.clone()),
            "0/1  Init:Error  0",
        );
        check(spec.clone(), with(json!({"waiting": {"reason": "ErrImagePull"}}), waits), "0/1  Init:ErrImagePull  0");
        check(spec.clone(), with(done.clone(), done), "0/1  PodInitializing  0");
    }

    #[test]
    fn restarts_say_when() {
        check(
            json!({"containers": [{"name": "a"}]}),
            json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T11:55:00Z"}}}]}),
            "1/1  Running  2 (5m ago)",
        );
    }

    #[test]
    fn wide_rows_say_where() {
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T11:59:00Z"},
            "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "x"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        assert_eq!(printed("", "pods", pod), "p  0/0  Terminating  0  <unknown> | 10.0.0.1  n  <none>  0/1");
    }
}
