//! The patches that clients send: JSON patch, JSON merge patch, strategic merge patch. Pure.
//!
//! Each takes the current object and a body and answers the object as it should become; defaults, checks and protected
//! fields come afterwards, as for an update.

mod json;
mod merge;
mod order;
mod strategic;

use serde_json::Value;

use crate::resource::Kind;

/// Content types of the patches.
pub const ACCEPTED: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

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

impl PatchError {
    fn malformed(detail: impl Into<String>) -> Self {
        Self::Malformed { detail: detail.into() }
    }

    fn unappliable(detail: impl Into<String>) -> Self {
        Self::Unappliable { detail: detail.into() }
    }
}

/// Applies a patch to an object.
pub fn apply(kind: &Kind, current: &Value, patch: &[u8], content_type: &str) -> Result<Value, PatchError> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    match media_type {
        "application/json-patch+json" => json::apply(current, patch),
        "application/merge-patch+json" => merge::apply(current, patch),
        "application/strategic-merge-patch+json" => strategic::apply(kind, current, patch),
        _ => Err(PatchError::UnsupportedType { content_type: content_type.to_owned() }),
    }
}

/// The body as a JSON object, which merge patches must be.
fn parse_object(patch: &[u8]) -> Result<serde_json::Map<String, Value>, PatchError> {
    match serde_json::from_slice(patch) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(PatchError::malformed("the patch must be a JSON object")),
        Err(error) => Err(PatchError::malformed(format!("error decoding patch: {error}"))),
    }
}
