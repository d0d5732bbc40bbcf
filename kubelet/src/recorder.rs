//! Events on their way to the master.

use k8s_openapi::api::core::v1::Pod;

/// Whether an event is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    /// What was to be expected.
    Normal,
    /// What somebody should see.
    Warning,
}

/// Where events are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {}

#[allow(clippy::todo, unused_variables, clippy::needless_pass_by_value, reason = "the outline")]
impl Recorder {
    /// Records that something happened to a pod, or to one of its containers. Never waits: an event that finds no room
    /// is counted and dropped.
    pub(crate) fn event(
        &self,
        about: &Pod,
        container: Option<&str>,
        kind: EventType,
        reason: &'static str,
        message: String,
    ) {
        todo!()
    }
}
