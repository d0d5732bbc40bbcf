//! Rows of events, of the old form (timestamps and a count) and the new one (an event time and a series).

use jiff::Timestamp;
use serde_json::Value;

use super::age::since;
use super::{Column, Printer, name, or, text, wide};

pub(super) const PRINTER: Printer = Printer {
    columns: &[
        text("Last Seen", "When it was last seen."),
        text("Type", "Normal or Warning."),
        text("Reason", "Why it happened, in one word."),
        text("Object", "What it happened to."),
        wide("Subobject", "Which part of the object."),
        wide("Source", "Who tells."),
        text("Message", "What happened."),
        wide("First Seen", "When it was first seen."),
        Column { kind: "integer", ..wide("Count", "How often it was seen.") },
        Column { format: "name", ..wide("Name", "Name must be unique within a namespace.") },
    ],
    cells,
};

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let first_time = [&event["firstTimestamp"], &event["eventTime"]].into_iter().find(|t| t.is_string());
    let first = since(first_time.unwrap_or(&Value::Null), now);
    let series = &event["series"];
    let last = if series.is_object() {
        since(&series["lastObservedTime"], now)
    } else if event["lastTimestamp"].is_string() {
        since(&event["lastTimestamp"], now)
    } else {
        first.clone()
    };
    let count = if series.is_object() { &series["count"] } else { &event["count"] };
    let count = count.as_i64().filter(|n| *n != 0).unwrap_or(1);
    let message = event["message"].as_str().unwrap_or_default().trim();
    vec![
        last.into(),
        or(&event["type"], ""),
        or(&event["reason"], ""),
        object(&event["involvedObject"]).into(),
        or(&event["involvedObject"]["fieldPath"], ""),
        source(event).into(),
        message.into(),
        first.into(),
        count.into(),
        name(event),
    ]
}

fn object(involved: &Value) -> String {
    let kind = involved["kind"].as_str().unwrap_or_default().to_lowercase();
    match involved["name"].as_str() {
        Some(name) if !name.is_empty() => format!("{kind}/{name}"),
        _ => kind,
    }
}

fn source(event: &Value) -> String {
    let either = |old: &'static str, new: &'static str| {
        let old = event["source"][old].as_str().filter(|t| !t.is_empty());
        old.or_else(|| event[new].as_str()).unwrap_or_default()
    };
    let (component, host) = (either("component", "reportingComponent"), either("host", "reportingInstance"));
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::tests::printed;

    #[test]
    fn events_of_both_forms_read_as_in_kubectl() {
        let old = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": " Started it \n",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "count": 3,
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2026-01-01T11:00:00Z", "lastTimestamp": "2026-01-01T11:59:50Z"});
        assert_eq!(
            printed("", "events", old),
            "10s  Normal  Started  pod/p  Started it | spec.containers{a}  kubelet, n  60m  3  e"
        );
        let new = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "Failed", "message": "x",
            "involvedObject": {"kind": "Node", "name": "n"}, "eventTime": "2026-01-01T11:59:00.000000Z",
            "reportingComponent": "scheduler", "reportingInstance": "m"});
        assert_eq!(printed("", "events", new), "60s  Warning  Failed  node/n  x |   scheduler, m  60s  1  e");
    }
}
