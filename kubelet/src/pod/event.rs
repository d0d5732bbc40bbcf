//! Everything that can wake a pod's worker.

use super::plan::Task;
use crate::probe;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The source has another version of the pod, or no more. Only the newest counts, so it is not in here.
    Wish(Change),
    /// The engine has news of the pod's sandbox.
    Engine,
    /// A config map or secret that the pod uses has changed.
    Object,
    /// Work that was started has ended.
    Ended(Task, Outcome),
    /// It is the time that the plan asked to be woken at.
    Time,
}

/// What changed in a pod's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Labels or annotations, which are files in some volumes.
    Metadata,
    /// Something else.
    Other,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Well.
    Done(Product),
    /// Badly.
    Failed(Fault),
    /// It was called off.
    Cancelled,
}

/// What a task made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Product {
    /// Only its effect.
    Nothing,
    /// An image is here.
    Image {
        /// For which run of the container.
        attempt: u32,
        /// The digest of its configuration.
        id: String,
        /// How the image came here: the event's message.
        message: String,
    },
    /// A probe has an answer.
    Probe {
        /// The container's name.
        name: String,
        /// What was answered.
        answer: probe::Answer,
        /// By which numbers it counts.
        rules: probe::Rules,
    },
}

/// What went wrong, in the words that users see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The standard word.
    pub reason: &'static str,
    /// What failed, on what, and what to do.
    pub message: String,
}
