//! What all objects share: names, labels, annotations, and reading values by path.

use serde_json::Value;

use super::{FieldError, Kind};

/// What names look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameForm {
    /// DNS-1123 subdomain: labels joined by dots.
    Subdomain,
    /// DNS-1123 label: no dots.
    Label,
    /// Anything that is one segment of a path.
    PathSegment,
}

/// Restores one top-level field of `old` in `new`.
pub(super) fn keep(_old: &Value, _new: &mut Value, _field: &str) {
    todo!()
}

/// Restores every top-level field of `old` in `new`, but these.
pub(super) fn keep_all_but(_old: &Value, _new: &mut Value, _fields: &[&str]) {
    todo!()
}

/// The text at a dotted path; empty when nothing is there.
pub(super) fn text_at(_object: &Value, _path: &str) -> String {
    todo!()
}

pub(super) fn validate(_kind: &Kind, _object: &Value, _form: NameForm) -> Vec<FieldError> {
    todo!()
}

pub(super) fn validate_update(_old: &Value, _new: &Value, _errors: &mut Vec<FieldError>) {
    todo!()
}
