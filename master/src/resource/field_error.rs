//! What is wrong with one field, in Kubernetes' words.

use std::fmt;

use serde_json::Value;

/// Why a field was refused; the `reason` of a status cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// Must be there and is not.
    Required,
    /// Is there with a value that it cannot have.
    Invalid,
    /// Is not one of the values that it can have.
    NotSupported,
    /// Occurs twice.
    Duplicate,
    /// Refers to something that is not there.
    NotFound,
    /// May not be set, or not be changed.
    Forbidden,
    /// Has more bytes than it may.
    TooLong,
    /// Has more items than it may.
    TooMany,
    /// Is of another type.
    TypeInvalid,
}

impl FieldReason {
    /// The word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TypeInvalid => "Invalid value",
        }
    }
}

/// One refusal. Printed as `spec.containers[0].name: Required value`, which is how a status message lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field, `spec.containers[0].name`.
    pub field: String,
    /// Why.
    pub reason: FieldReason,
    /// Words and value, without the path: `Invalid value: "x": must be …`; the `message` of a status cause.
    pub message: String,
}

impl FieldError {
    /// The field must be there.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::plain(field, FieldReason::Required, detail)
    }

    /// The field may not be set or changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::plain(field, FieldReason::Forbidden, detail)
    }

    /// The field has a value that it cannot have.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::valued(field, FieldReason::Invalid, value, detail)
    }

    /// The field has a value of another type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::valued(field, FieldReason::TypeInvalid, value, detail)
    }

    /// The field has a value that another one has already.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::valued(field, FieldReason::Duplicate, value, "")
    }

    /// The field names something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::valued(field, FieldReason::NotFound, value, "")
    }

    /// The field has none of the values that it can have.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        Self::valued(field, FieldReason::NotSupported, value, &format!("supported values: {}", list.join(", ")))
    }

    /// The field is longer than so many bytes.
    pub fn too_long(field: impl Into<String>, bytes_max: usize) -> Self {
        Self::plain(field, FieldReason::TooLong, &format!("may not be more than {bytes_max} bytes"))
    }

    fn plain(field: impl Into<String>, reason: FieldReason, detail: &str) -> Self {
        let words = reason.words();
        let message = if detail.is_empty() { words.to_owned() } else { format!("{words}: {detail}") };
        Self { field: field.into(), reason, message }
    }

    fn valued(field: impl Into<String>, reason: FieldReason, value: &Value, detail: &str) -> Self {
        let words = reason.words();
        let message =
            if detail.is_empty() { format!("{words}: {value}") } else { format!("{words}: {value}: {detail}") };
        Self { field: field.into(), reason, message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
