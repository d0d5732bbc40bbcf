//! Events: what happened to an object.

use serde_json::Value;

use super::FieldError;
use super::strategy::Strategy;

/// Longest message of an event in the newer form, which controllers are held to.
const NOTE_BYTES_MAX: usize = 1024;

/// Events: they live where what they tell of lives.
pub(super) struct EventStrategy;

impl Strategy for EventStrategy {
    fn validate(&self, event: &Value, errors: &mut Vec<FieldError>) {
        let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
        let involved = event["involvedObject"]["namespace"].as_str().unwrap_or_default();
        // What lives in no namespace has its events in "default".
        let expected = if involved.is_empty() { "default" } else { involved };
        let anywhere = involved.is_empty() && namespace == "kube-system";
        if namespace != expected && !anywhere {
            let detail = "does not match event.namespace";
            errors.push(FieldError::invalid("involvedObject.namespace", &involved.into(), detail));
        }
        // Events of the newer form say when they happened in `eventTime`, and promise to be short.
        let is_newer = event["eventTime"].is_string();
        if is_newer && event["message"].as_str().is_some_and(|m| m.len() > NOTE_BYTES_MAX) {
            errors.push(FieldError::too_long("message", NOTE_BYTES_MAX));
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::{find, strategy_tests::refusals};

    #[test]
    fn events_live_where_their_object_lives() {
        assert_eq!(refusals("events", json!({"involvedObject": {"namespace": "default"}})), [""; 0]);
        assert_eq!(refusals("events", json!({"involvedObject": {"kind": "Node", "name": "n"}})), [""; 0]);
        assert_eq!(
            refusals("events", json!({"involvedObject": {"namespace": "other"}})),
            [r#"involvedObject.namespace: Invalid value: "other": does not match event.namespace"#]
        );
    }

    #[test]
    fn events_are_found_by_what_they_tell_of() {
        let event = json!({"involvedObject": {"name": "p"}, "metadata": {"name": "e"}});
        let kind = find("", "v1", "events").unwrap();
        assert_eq!(kind.field(&event, "involvedObject.name"), Some("p".to_owned()));
        assert_eq!(kind.field(&event, "involvedObject.uid"), Some(String::new()));
        assert_eq!(kind.field(&event, "message"), None);
    }
}
