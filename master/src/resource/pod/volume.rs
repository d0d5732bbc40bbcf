//! Checks of a pod's volumes: one source each, with what that source needs.

use serde_json::Value;

use super::super::FieldError;
use super::super::meta::{NameForm, items};
use super::container::check_descending;

/// A file mode is nine bits; those for set-uid, set-gid and sticky cannot be asked for.
const FILE_MODE_MAX: i64 = 0o777;

/// Checks the volumes and answers their names.
pub(super) fn validate<'a>(spec: &'a Value, errors: &mut Vec<FieldError>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, volume) in items(spec, "volumes").iter().enumerate() {
        let path = format!("spec.volumes[{at}]");
        let name = volume["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if let Some(complaint) = NameForm::Label.complaint(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), &volume["name"], &complaint));
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &volume["name"]));
        }
        names.push(name);
        let mut sources = volume.as_object().into_iter().flatten().filter(|(field, _)| *field != "name");
        let Some((kind, source)) = sources.next() else {
            errors.push(FieldError::required(path, "must specify a volume type"));
            continue;
        };
        for (other, _) in sources {
            errors.push(FieldError::forbidden(format!("{path}.{other}"), "may not specify more than 1 volume type"));
        }
        validate_source(&format!("{path}.{kind}"), kind, source, errors);
    }
    names
}

fn validate_source(path: &str, kind: &str, source: &Value, errors: &mut Vec<FieldError>) {
    let mut require = |field: &str| {
        if source[field].as_str().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    };
    match kind {
        "hostPath" => {
            require("path");
            if source["path"].as_str().unwrap_or_default().split('/').any(|step| step == "..") {
                errors.push(FieldError::invalid(format!("{path}.path"), &source["path"], "must not contain '..'"));
            }
            let kinds =
                ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
            super::spec::check_choice(&format!("{path}.type"), &source["type"], &kinds, errors);
        }
        "nfs" => {
            require("server");
            require("path");
            if source["path"].as_str().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
                errors.push(FieldError::invalid(format!("{path}.path"), &source["path"], "must be an absolute path"));
            }
        }
        "secret" => {
            require("secretName");
            validate_files(path, source, errors);
        }
        "configMap" => {
            require("name");
            validate_files(path, source, errors);
        }
        "persistentVolumeClaim" => require("claimName"),
        "downwardAPI" => validate_files(path, source, errors),
        "projected" => validate_projections(path, source, errors),
        _ => {}
    }
}

fn validate_projections(path: &str, source: &Value, errors: &mut Vec<FieldError>) {
    check_mode(&format!("{path}.defaultMode"), &source["defaultMode"], errors);
    for (at, projection) in items(source, "sources").iter().enumerate() {
        for (kind, inner) in projection.as_object().into_iter().flatten() {
            let path = format!("{path}.sources[{at}].{kind}");
            if matches!(kind.as_str(), "secret" | "configMap") && inner["name"].as_str().unwrap_or_default().is_empty()
            {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            }
            validate_files(&path, inner, errors);
        }
    }
}

/// The files of a volume that is made from keys or fields.
fn validate_files(path: &str, source: &Value, errors: &mut Vec<FieldError>) {
    check_mode(&format!("{path}.defaultMode"), &source["defaultMode"], errors);
    for (at, item) in items(source, "items").iter().enumerate() {
        let path = format!("{path}.items[{at}]");
        if item["path"].as_str().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(format!("{path}.path"), ""));
        }
        check_descending(&format!("{path}.path"), &item["path"], errors);
        check_mode(&format!("{path}.mode"), &item["mode"], errors);
    }
}

fn check_mode(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if value.as_i64().is_some_and(|mode| !(0..=FILE_MODE_MAX).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path, value, detail));
    }
}
