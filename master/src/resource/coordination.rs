//! Leases.

use serde_json::Value;

use super::FieldError;
use super::strategy::Strategy;

/// Leases: their numbers are positive.
pub(super) struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn validate(&self, lease: &Value, errors: &mut Vec<FieldError>) {
        let seconds = &lease["spec"]["leaseDurationSeconds"];
        if seconds.as_i64().is_some_and(|n| n <= 0) {
            errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
        }
        let transitions = &lease["spec"]["leaseTransitions"];
        if transitions.as_i64().is_some_and(|n| n < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid("spec.leaseTransitions", transitions, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::strategy_tests::refusals_in;

    #[test]
    fn numbers_are_positive() {
        let said = refusals_in("coordination.k8s.io", "leases", json!({"spec": {"leaseDurationSeconds": 0}}));
        assert_eq!(said, ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]);
    }
}
