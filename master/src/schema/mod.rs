//! The shape of every kind, from the generated types: what a field is called, what it holds, how it merges.

use serde_json::Value;

use crate::resource::{FieldError, Kind};

/// What does not fit the schema.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SchemaFindings {
    /// Paths of fields that the kind does not have, `spec.containers[0].foo`.
    pub unknown: Vec<String>,
    /// Fields that hold another type than they should.
    pub wrong_type: Vec<FieldError>,
}

/// Compares an object with the schema of its kind.
pub fn check(_kind: &Kind, _object: &Value) -> SchemaFindings {
    todo!()
}
