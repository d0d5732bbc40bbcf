//! What a kind may do beyond the table: defaults, checks, protected fields.

use serde_json::Value;

use super::FieldError;
use super::meta::NameForm;

/// The behaviour of one kind. Every method has an answer for kinds that do nothing special.
pub(super) trait Strategy {
    /// Fills in what Kubernetes fills in. Must change nothing when run again.
    fn default(&self, _object: &mut Value) {}

    /// Whether a new object may bring its own status.
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// Sets what a new object starts with, after defaults.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Keeps what an update through this subresource may not change.
    fn prepare_update(&self, _old: &Value, _new: &mut Value, _sub: Option<&str>) {}

    /// Collects what is wrong with an object, whatever it replaces.
    fn validate(&self, _object: &Value, _errors: &mut Vec<FieldError>) {}

    /// Collects what may not change.
    fn validate_update(&self, _old: &Value, _new: &Value, _errors: &mut Vec<FieldError>) {}

    /// Paths that field selectors may name, besides name and namespace.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// What names look like.
    fn name_form(&self) -> NameForm {
        NameForm::Subdomain
    }
}

/// A kind with nothing special.
pub(super) struct Plain;

impl Strategy for Plain {}
