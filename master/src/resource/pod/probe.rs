//! Checks of probes and lifecycle hooks: exactly one handler, sound numbers.

use serde_json::Value;

use super::super::FieldError;
use super::super::meta::items;
use super::container::{check_port, is_port_name};
use super::spec::check_choice;

const PROBE_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

pub(super) fn validate_all(path: &str, container: &Value, errors: &mut Vec<FieldError>) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[name];
        if !probe.is_null() {
            validate_probe(&format!("{path}.{name}"), probe, name == "readinessProbe", errors);
        }
    }
    for name in ["postStart", "preStop"] {
        let hook = &container["lifecycle"][name];
        if !hook.is_null() {
            validate_handler(&format!("{path}.lifecycle.{name}"), hook, HOOK_HANDLERS, errors);
        }
    }
}

fn validate_probe(path: &str, probe: &Value, is_readiness: bool, errors: &mut Vec<FieldError>) {
    validate_handler(path, probe, PROBE_HANDLERS, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if probe[field].as_i64().is_some_and(|n| n < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(format!("{path}.{field}"), &probe[field], detail));
        }
    }
    let successes = &probe["successThreshold"];
    if !is_readiness && successes.as_i64().is_some_and(|n| n > 1) {
        errors.push(FieldError::invalid(format!("{path}.successThreshold"), successes, "must be 1"));
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    if is_readiness && !grace.is_null() {
        let detail = "must not be set for readinessProbes";
        errors.push(FieldError::invalid(format!("{path}.terminationGracePeriodSeconds"), grace, detail));
    } else if grace.as_i64().is_some_and(|n| n <= 0) {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(format!("{path}.terminationGracePeriodSeconds"), grace, detail));
    }
}

fn validate_handler(path: &str, handler: &Value, kinds: &[&str], errors: &mut Vec<FieldError>) {
    let mut chosen = kinds.iter().filter(|kind| !handler[**kind].is_null());
    let Some(first) = chosen.next() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    for other in chosen {
        errors.push(FieldError::forbidden(format!("{path}.{other}"), "may not specify more than 1 handler type"));
    }
    let action = &handler[*first];
    let path = format!("{path}.{first}");
    match *first {
        "exec" if items(action, "command").is_empty() => {
            errors.push(FieldError::required(format!("{path}.command"), ""));
        }
        "httpGet" => {
            check_port_or_name(&path, action, errors);
            check_choice(&format!("{path}.scheme"), &action["scheme"], &["HTTP", "HTTPS"], errors);
            for (at, header) in items(action, "httpHeaders").iter().enumerate() {
                if header["name"].as_str().unwrap_or_default().is_empty() {
                    errors.push(FieldError::required(format!("{path}.httpHeaders[{at}].name"), ""));
                }
            }
        }
        "tcpSocket" => check_port_or_name(&path, action, errors),
        "grpc" => check_port(&format!("{path}.port"), &action["port"], errors),
        _ => {}
    }
}

fn check_port_or_name(path: &str, action: &Value, errors: &mut Vec<FieldError>) {
    let port = &action["port"];
    let path = format!("{path}.port");
    match port {
        Value::String(name) if is_port_name(name) => {}
        Value::String(_) => {
            let detail = "must be at most 15 lower case alphanumeric characters or '-', with at least one letter";
            errors.push(FieldError::invalid(path, port, detail));
        }
        _ => check_port(&path, port, errors),
    }
}
