//! What the shim keeps about one container.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

use berth_runtime::shim::protocol::{ContainerState, ExitRecord};
use berth_sys::cgroup::oom::Tally;
use jiff::Timestamp;

use crate::clients::Asker;
use crate::log::Log;
use crate::output::Output;

/// Where a container is in its life.
///
/// ```text
///   Creating ──▶ Alive ──its init process ended──▶ Draining ──its output is logged, or took too long──▶ Ended
/// ```
#[derive(Debug)]
pub(crate) enum Life {
    /// It is being made.
    Creating,
    /// Its init process is there; its program runs if it was started.
    Alive,
    /// Its init process has ended, and its output is being logged.
    Draining {
        /// How it ended.
        exit: ExitRecord,
        /// How long to wait for the end of its output.
        until: Instant,
    },
    /// All is told.
    Ended {
        /// How it ended.
        exit: ExitRecord,
        /// When to try again to write the record, if that failed.
        unwritten: Option<Instant>,
    },
}

/// The shim's way to a container's standard input, if that is a pipe.
#[derive(Debug)]
pub(crate) enum Input {
    /// For everybody who attaches.
    Shared(OwnedFd),
    /// For the first who attaches.
    Once(OwnedFd),
    /// Nobody gets it any more.
    Closed,
}

/// A process that joins the container.
#[derive(Debug)]
pub(crate) enum Exec {
    /// It is being made; these signals are for it, and who sent them waits.
    Making { signals: Vec<(Asker, i32)> },
    /// It runs.
    Running { pid: i32 },
}

impl Exec {
    /// Its process, once there is one.
    pub(crate) fn pid(&self) -> Option<i32> {
        match self {
            Self::Making { .. } => None,
            Self::Running { pid } => Some(*pid),
        }
    }
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) life: Life,
    pub(crate) input: Option<Input>,
    pub(crate) output: Option<Output>,
    pub(crate) oom: Option<Tally>,
    /// The processes of `Exec`, by name.
    pub(crate) execs: BTreeMap<String, Exec>,
    /// Who waits for it to be deleted.
    pub(crate) deleters: Vec<Asker>,
}

impl Container {
    /// One that nothing is known of yet but its name.
    pub(crate) fn new(id: String) -> Self {
        Self {
            id,
            pid: 0,
            created_at: Timestamp::now(),
            started_at: None,
            life: Life::Creating,
            input: None,
            output: None,
            oom: None,
            execs: BTreeMap::new(),
            deleters: Vec::new(),
        }
    }

    /// What clients are told about it.
    pub(crate) fn state(&self) -> ContainerState {
        ContainerState {
            pid: self.pid,
            created_at: self.created_at,
            started_at: self.started_at,
            exit: match &self.life {
                Life::Ended { exit, .. } => Some(exit.clone()),
                Life::Creating | Life::Alive | Life::Draining { .. } => None,
            },
            log_bytes_lost: self.output.as_ref().and_then(|output| output.log.as_ref()).map_or(0, Log::lost),
        }
    }

    /// Whether its output is complete.
    pub(crate) fn is_drained(&self) -> bool {
        self.output.as_ref().is_none_or(Output::is_drained)
    }

    /// When something has to be done for it though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.life {
            Life::Creating | Life::Alive => None,
            Life::Draining { until, .. } => Some(*until),
            Life::Ended { unwritten, .. } => *unwritten,
        }
    }
}
