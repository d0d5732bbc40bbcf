//! What the engine tells without being asked: the one stream that makes polling unnecessary.

use crate::status::{ContainerId, SandboxId};

/// Something happened to a sandbox or a container. An event says where to look, never what is true: its reader asks
/// [`crate::Engine::sandbox`] for the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A container's program was started.
    Started {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerId,
    },
    /// A container's program ended and its log is complete.
    Exited {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerId,
    },
    /// The kernel's OOM killer took a process of a container.
    Oom {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerId,
    },
    /// A sandbox's shim died.
    SandboxLost {
        /// Which.
        sandbox: SandboxId,
    },
}

impl Event {
    /// The sandbox that the event is about.
    pub fn sandbox(&self) -> &SandboxId {
        match self {
            Self::Started { sandbox, .. }
            | Self::Exited { sandbox, .. }
            | Self::Oom { sandbox, .. }
            | Self::SandboxLost { sandbox } => sandbox,
        }
    }
}
