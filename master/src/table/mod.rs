//! What `kubectl get` prints: lists as rows and columns, `meta.k8s.io/v1` Table.

use jiff::Timestamp;
use serde_json::Value;

use crate::resource::Kind;

/// How much of each object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata; the default.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// Objects of one kind as a table. `list_meta` becomes the table's metadata.
pub fn table(_kind: &Kind, _objects: &[Value], _include: IncludeObject, _now: Timestamp, _list_meta: Value) -> Value {
    todo!()
}
