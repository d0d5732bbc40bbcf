//! Checks of a pod's spec as a whole: names, references between its parts, choices.

use berth_api::selector::{is_label_key, is_label_value};
use serde_json::Value;

use super::super::FieldError;
use super::super::meta::{NameForm, items};
use super::{container, default, volume};

pub(super) fn validate(spec: &Value, errors: &mut Vec<FieldError>) {
    let volumes = volume::validate(spec, errors);
    if items(spec, "containers").is_empty() {
        errors.push(FieldError::required("spec.containers", ""));
    }
    if !items(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for (path, c) in default::containers(spec, list) {
            if let Some(name) = c["name"].as_str() {
                if names.contains(&name) {
                    errors.push(FieldError::duplicate(format!("{path}.name"), &c["name"]));
                }
                names.push(name);
            }
            container::validate(&path, c, &volumes, errors);
            check_place(&path, c, list == "initContainers", errors);
        }
    }
    validate_choices(spec, errors);
    validate_numbers(spec, errors);
    validate_names(spec, errors);
    validate_tolerations(spec, errors);
    validate_host(spec, errors);
}

/// What only app containers, or only init containers, may have.
fn check_place(path: &str, container: &Value, is_init: bool, errors: &mut Vec<FieldError>) {
    let policy = &container["restartPolicy"];
    if is_init && !policy.is_null() && policy != "Always" {
        errors.push(FieldError::not_supported(format!("{path}.restartPolicy"), policy, &["Always"]));
    }
    if !is_init || policy == "Always" {
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if !container[field].is_null() {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
        }
    }
}

fn validate_choices(spec: &Value, errors: &mut Vec<FieldError>) {
    for (field, choices) in [
        ("restartPolicy", &["Always", "OnFailure", "Never"][..]),
        ("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"][..]),
        ("preemptionPolicy", &["PreemptLowerPriority", "Never"][..]),
    ] {
        check_choice(&format!("spec.{field}"), &spec[field], choices, errors);
    }
    if spec["dnsPolicy"] == "None" && items(&spec["dnsConfig"], "nameservers").is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required("spec.dnsConfig.nameservers", detail));
    }
}

/// A value that is set must be one of these.
pub(in crate::resource) fn check_choice(path: &str, value: &Value, choices: &[&str], errors: &mut Vec<FieldError>) {
    if !value.is_null() && !value.as_str().is_some_and(|v| choices.contains(&v)) {
        errors.push(FieldError::not_supported(path, value, choices));
    }
}

fn validate_numbers(spec: &Value, errors: &mut Vec<FieldError>) {
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0) {
        let value = &spec["terminationGracePeriodSeconds"];
        errors.push(FieldError::invalid(
            "spec.terminationGracePeriodSeconds",
            value,
            "must be greater than or equal to 0",
        ));
    }
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid("spec.activeDeadlineSeconds", &spec["activeDeadlineSeconds"], detail));
    }
}

fn validate_names(spec: &Value, errors: &mut Vec<FieldError>) {
    for (field, form) in [
        ("nodeName", NameForm::Subdomain),
        ("serviceAccountName", NameForm::Subdomain),
        ("schedulerName", NameForm::Subdomain),
        ("hostname", NameForm::Label),
        ("subdomain", NameForm::Label),
    ] {
        let name = spec[field].as_str().unwrap_or_default();
        if let Some(complaint) = form.complaint(name).filter(|_| !name.is_empty()) {
            errors.push(FieldError::invalid(format!("spec.{field}"), &spec[field], &complaint));
        }
    }
    for (at, secret) in items(spec, "imagePullSecrets").iter().enumerate() {
        if secret["name"].as_str().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(format!("spec.imagePullSecrets[{at}].name"), ""));
        }
    }
    for (key, value) in spec["nodeSelector"].as_object().into_iter().flatten() {
        if !is_label_key(key) {
            errors.push(FieldError::invalid("spec.nodeSelector", &key.as_str().into(), "must be a label key"));
        }
        if !value.as_str().is_some_and(is_label_value) {
            errors.push(FieldError::invalid("spec.nodeSelector", value, "must be a label value"));
        }
    }
}

fn validate_tolerations(spec: &Value, errors: &mut Vec<FieldError>) {
    for (at, toleration) in items(spec, "tolerations").iter().enumerate() {
        let path = format!("spec.tolerations[{at}]");
        let text = |field: &str| toleration[field].as_str().unwrap_or_default();
        if !text("key").is_empty() && !is_label_key(text("key")) {
            errors.push(FieldError::invalid(format!("{path}.key"), &toleration["key"], "must be a label key"));
        }
        match text("operator") {
            "Exists" if !text("value").is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(format!("{path}.operator"), &toleration["value"], detail));
            }
            "" | "Equal" if text("key").is_empty() => {
                let detail =
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                errors.push(FieldError::invalid(format!("{path}.operator"), &toleration["operator"], detail));
            }
            "" | "Equal" | "Exists" => {}
            _ => errors.push(FieldError::not_supported(
                format!("{path}.operator"),
                &toleration["operator"],
                &["Equal", "Exists"],
            )),
        }
        let effects = &["", "NoSchedule", "PreferNoSchedule", "NoExecute"];
        check_choice(&format!("{path}.effect"), &toleration["effect"], effects, errors);
        if !toleration["tolerationSeconds"].is_null() && text("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(format!("{path}.effect"), &toleration["effect"], detail));
        }
    }
}

/// On the host's network a port of a container is one of the host, and so one of a kind.
fn validate_host(spec: &Value, errors: &mut Vec<FieldError>) {
    let on_host = spec["hostNetwork"] == true;
    let mut taken = Vec::new();
    for (path, c) in default::containers(spec, "containers") {
        for (at, port) in items(c, "ports").iter().enumerate() {
            let Some(number) = port["hostPort"].as_i64().filter(|n| *n != 0) else { continue };
            let path = format!("{path}.ports[{at}]");
            if on_host && port["containerPort"].as_i64() != Some(number) {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(format!("{path}.containerPort"), &port["containerPort"], detail));
            }
            let key = (port["hostIP"].as_str().unwrap_or_default(), port["protocol"].as_str(), number);
            if taken.contains(&key) {
                let said = format!("{}/{}/{number}", key.1.unwrap_or_default(), key.0);
                errors.push(FieldError::duplicate(format!("{path}.hostPort"), &said.into()));
            }
            taken.push(key);
        }
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid("spec.shareProcessNamespace", &true.into(), detail));
    }
}
