//! Probes: asking a container whether it has started, serves, lives.
//!
//! `plan` holds what is pure: when the next question is due, and what a row of answers means. `run` asks.

mod http;
mod plan;
mod run;

pub(crate) use plan::{Answer, Rules, State, Verdict};
pub(crate) use run::{Target, ask, handle};

use k8s_openapi::api::core::v1::{Container, Probe};

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Until it succeeds, the others are not asked; if it fails for good, the container is stopped.
    Startup,
    /// Whether the container serves.
    Readiness,
    /// If it fails for good, the container is stopped.
    Liveness,
}

impl Kind {
    /// All, in the order in which they matter.
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// The container's probe of this kind.
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }

    /// The word that begins its events.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}
