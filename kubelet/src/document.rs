//! YAML and JSON documents that people write: read strictly, with errors that name the field.
//!
//! A field that is not understood is an error, because the usual reason is a slip of the pen, and a limit or a probe that
//! is silently not there is worse than a file that is refused.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How many unknown fields an error names.
const UNKNOWN_FIELDS_TOLD_MAX: usize = 5;

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    /// It is neither YAML nor JSON.
    #[error("not readable as YAML: {message}")]
    Syntax {
        /// What and where.
        message: String,
    },
    /// A field has the wrong type, or a value that makes no sense.
    #[error("field {field}: {message}")]
    Field {
        /// Dotted path of the field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

impl DocumentError {
    /// An error about one field.
    pub(crate) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { field: field.into(), message: message.into() }
    }
}

/// Reads YAML, of which JSON is a part.
pub(crate) fn read(text: &str) -> Result<Value, DocumentError> {
    // `defaultMode: 0644` means octal to everybody who writes manifests.
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| DocumentError::Syntax { message: one_line(&error.to_string()) })
}

/// Gives a document its type. Every field must be understood.
pub(crate) fn typed<T: DeserializeOwned + Serialize>(document: &Value) -> Result<T, DocumentError> {
    let value: T = serde_path_to_error::deserialize(document)
        .map_err(|error| DocumentError::field(error.path().to_string(), one_line(&error.inner().to_string())))?;
    let understood = serde_json::to_value(&value)
        .map_err(|error| DocumentError::Syntax { message: one_line(&error.to_string()) })?;
    let mut unknown = Vec::new();
    unknown_fields(document, &understood, "", &mut unknown);
    match unknown.first() {
        None => Ok(value),
        Some(first) if unknown.len() == 1 => Err(DocumentError::field(first, "there is no such field")),
        Some(_) => Err(DocumentError::field(unknown.join(", "), "there are no such fields")),
    }
}

/// Collects what stands in `given` but not in `understood`, which was made from it.
fn unknown_fields(given: &Value, understood: &Value, path: &str, found: &mut Vec<String>) {
    if found.len() >= UNKNOWN_FIELDS_TOLD_MAX {
        return;
    }
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match understood.get(name) {
                    Some(known) => unknown_fields(value, known, &path, found),
                    // An empty value says nothing, and types leave out what says nothing.
                    None if is_empty(value) => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) => {
            for (index, (value, known)) in given.iter().zip(understood).enumerate() {
                unknown_fields(value, known, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn check(text: &str) -> Result<Pod, String> {
        read(text).and_then(|document| typed::<Pod>(&document)).map_err(|error| error.to_string())
    }

    #[test]
    fn errors_name_the_field() {
        assert!(check("a: [").unwrap_err().starts_with("not readable as YAML: "));
        assert_eq!(
            check("{apiVersion: v1, kind: Pod, spec: {containers: [{name: a, imgae: b}]}}").unwrap_err(),
            "field spec.containers[0].imgae: there is no such field"
        );
        let wrong = check("{apiVersion: v1, kind: Pod, spec: {terminationGracePeriodSeconds: soon, containers: []}}");
        assert!(wrong.unwrap_err().starts_with("field spec.terminationGracePeriodSeconds: invalid type"));
        let many = check("{apiVersion: v1, kind: Pod, spec: {containers: []}, x: 1, y: 2}").unwrap_err();
        assert_eq!(many, "field x, y: there are no such fields");
    }

    #[test]
    fn octal_modes_and_nulls_are_understood() {
        let pod = check(
            "{apiVersion: v1, kind: Pod, metadata: {creationTimestamp: null}, status: {},
              spec: {containers: [], volumes: [{name: a, secret: {defaultMode: 0400}}]}}",
        )
        .unwrap();
        let volumes = pod.spec.unwrap().volumes.unwrap();
        assert_eq!(volumes[0].secret.as_ref().unwrap().default_mode, Some(0o400));
    }
}
