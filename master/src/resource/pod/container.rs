//! Checks of one container: image, ports, environment, mounts, resources.

use berth_api::quantity::Quantity;
use serde_json::Value;

use super::super::FieldError;
use super::super::meta::{NameForm, items};
use super::probe;
use super::spec::check_choice;

/// Checks a container at a path. `volumes` are the names of the pod's volumes.
pub(super) fn validate(path: &str, container: &Value, volumes: &[&str], errors: &mut Vec<FieldError>) {
    match container["name"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required(format!("{path}.name"), "")),
        name => {
            if let Some(complaint) = NameForm::Label.complaint(name) {
                errors.push(FieldError::invalid(format!("{path}.name"), &container["name"], &complaint));
            }
        }
    }
    let image = container["image"].as_str().unwrap_or_default();
    if image.is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{path}.image"), &container["image"], detail));
    }
    let policies = &["Always", "IfNotPresent", "Never"];
    check_choice(&format!("{path}.imagePullPolicy"), &container["imagePullPolicy"], policies, errors);
    let policies = &["FallbackToLogsOnError", "File"];
    check_choice(&format!("{path}.terminationMessagePolicy"), &container["terminationMessagePolicy"], policies, errors);
    validate_ports(path, container, errors);
    validate_env(path, container, errors);
    validate_mounts(path, container, volumes, errors);
    validate_resources(path, &container["resources"], errors);
    probe::validate_all(path, container, errors);
}

fn validate_ports(path: &str, container: &Value, errors: &mut Vec<FieldError>) {
    let mut names = Vec::new();
    for (at, port) in items(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{at}]");
        match port["containerPort"].as_i64() {
            None | Some(0) => errors.push(FieldError::required(format!("{path}.containerPort"), "")),
            Some(_) => check_port(&format!("{path}.containerPort"), &port["containerPort"], errors),
        }
        if port["hostPort"].as_i64().is_some_and(|n| n != 0) {
            check_port(&format!("{path}.hostPort"), &port["hostPort"], errors);
        }
        check_choice(&format!("{path}.protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"], errors);
        let Some(name) = port["name"].as_str().filter(|n| !n.is_empty()) else { continue };
        if !is_port_name(name) {
            let detail = "must be at most 15 lower case alphanumeric characters or '-', with at least one letter";
            errors.push(FieldError::invalid(format!("{path}.name"), &port["name"], detail));
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &port["name"]));
        }
        names.push(name);
    }
}

/// A port's number must be one.
pub(super) fn check_port(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if !value.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
        errors.push(FieldError::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

/// IANA service names.
pub(super) fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

fn validate_env(path: &str, container: &Value, errors: &mut Vec<FieldError>) {
    for (at, env) in items(container, "env").iter().enumerate() {
        let path = format!("{path}.env[{at}]");
        let name = env["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
            let detail =
                "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.push(FieldError::invalid(format!("{path}.name"), &env["name"], detail));
        }
        let source = &env["valueFrom"];
        if source.is_null() {
            continue;
        }
        let path = format!("{path}.valueFrom");
        if env["value"].as_str().is_some_and(|v| !v.is_empty()) {
            errors.push(FieldError::invalid(path, source, "may not be specified when `value` is not empty"));
            continue;
        }
        validate_env_source(&path, source, errors);
    }
    for (at, from) in items(container, "envFrom").iter().enumerate() {
        let named = ["configMapRef", "secretRef"].iter().filter(|f| !from[**f].is_null()).count();
        if named != 1 {
            let detail = "must specify exactly one of: `configMapRef` or `secretRef`";
            errors.push(FieldError::invalid(format!("{path}.envFrom[{at}]"), from, detail));
        }
    }
}

fn validate_env_source(path: &str, source: &Value, errors: &mut Vec<FieldError>) {
    let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let chosen: Vec<&str> = kinds.into_iter().filter(|k| !source[*k].is_null()).collect();
    match chosen[..] {
        [] => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(FieldError::invalid(path, source, detail));
        }
        [one] => {
            let required = match one {
                "fieldRef" => &["fieldPath"][..],
                "resourceFieldRef" => &["resource"],
                "fileKeyRef" => &["volumeName", "path", "key"],
                _ => &["name", "key"],
            };
            for field in required {
                if source[one][*field].as_str().unwrap_or_default().is_empty() {
                    errors.push(FieldError::required(format!("{path}.{one}.{field}"), ""));
                }
            }
        }
        _ => errors.push(FieldError::invalid(path, source, "may not have more than one field specified at a time")),
    }
}

fn validate_mounts(path: &str, container: &Value, volumes: &[&str], errors: &mut Vec<FieldError>) {
    let mut mounted = Vec::new();
    for (at, mount) in items(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        let name = mount["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(&name) {
            errors.push(FieldError::not_found(format!("{path}.name"), &mount["name"]));
        }
        let place = mount["mountPath"].as_str().unwrap_or_default();
        if place.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if mounted.contains(&place) {
            errors.push(FieldError::invalid(format!("{path}.mountPath"), &mount["mountPath"], "must be unique"));
        }
        mounted.push(place);
        check_descending(&format!("{path}.subPath"), &mount["subPath"], errors);
        check_descending(&format!("{path}.subPathExpr"), &mount["subPathExpr"], errors);
        let propagations = &["Bidirectional", "HostToContainer", "None"];
        check_choice(&format!("{path}.mountPropagation"), &mount["mountPropagation"], propagations, errors);
    }
}

/// A path below another: relative and never climbing.
pub(super) fn check_descending(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    if text.split('/').any(|step| step == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

fn validate_resources(path: &str, resources: &Value, errors: &mut Vec<FieldError>) {
    let quantity = |value: &Value| value.as_str().and_then(|t| t.parse::<Quantity>().ok());
    for list in ["limits", "requests"] {
        for (name, value) in resources[list].as_object().into_iter().flatten() {
            let path = format!("{path}.resources.{list}[{name}]");
            match quantity(value) {
                None => errors.push(FieldError::invalid(path, value, "must be a quantity such as 500m or 1Gi")),
                Some(amount) if amount.is_negative() => {
                    errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
                }
                Some(_) => {}
            }
        }
    }
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][name.as_str()];
        if let (Some(asked), Some(most)) = (quantity(request), quantity(limit))
            && asked > most
        {
            let detail = format!("must be less than or equal to {name} limit of {most}");
            errors.push(FieldError::invalid(format!("{path}.resources.requests"), request, &detail));
        }
    }
}
