//! outline
use super::strategy::Strategy;
pub(super) struct PodStrategy;
impl Strategy for PodStrategy {}
use serde_json::Value;
/// Puts a pod onto the node that a `Binding` names: sets `spec.nodeName`, condition PodScheduled, and the binding's
/// annotations and labels. Refuses a pod that has another node already, or is going away.
pub fn bind(_pod: &Value, _binding: &Value, _now: jiff::Timestamp) -> Result<Value, BindError> {
    todo!()
}
/// Why a pod cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The binding itself is broken; HTTP 422.
    #[error("{0}")]
    Invalid(super::FieldError),
    /// The pod has a node already or is going away; HTTP 409.
    #[error("{detail}")]
    Conflict {
        /// In Kubernetes' words.
        detail: String,
    },
}
