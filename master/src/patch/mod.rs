//! The patches that clients send: JSON patch, JSON merge patch, strategic merge patch. Pure.

use serde_json::Value;

use crate::resource::Kind;

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The content type names no patch that is known; HTTP 415.
    #[error("the body of the request was in an unknown format - accepted media types include: {}", ACCEPTED.join(", "))]
    UnsupportedType {
        /// The content type as sent.
        content_type: String,
    },
    /// The patch itself is broken; HTTP 400.
    #[error("{detail}")]
    Malformed {
        /// What is broken, with its path.
        detail: String,
    },
    /// The patch is sound but does not fit the object; HTTP 422.
    #[error("{detail}")]
    Unappliable {
        /// What does not fit, with its path.
        detail: String,
    },
}

/// Content types of the patches.
pub const ACCEPTED: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// Applies a patch to an object.
pub fn apply(_kind: &Kind, _current: &Value, _patch: &[u8], _content_type: &str) -> Result<Value, PatchError> {
    todo!()
}
