//! What a shim tells: answers, events, faults.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A call's success.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Answer {
    /// Nothing more to tell.
    Done,
    /// The container is set up and waits for [`super::Call::Start`].
    Created {
        /// Its init process, in the shim's pid namespace.
        pid: i32,
    },
    /// The container's program runs.
    Started {
        /// When, by the shim's clock.
        at: Timestamp,
    },
    /// The process runs. If it has a terminal, its master is beside the packet.
    Executed {
        /// Its process id, in the shim's pid namespace.
        pid: i32,
    },
    /// The streams are shared. If input was asked for, the way to it is beside the packet.
    Attached {
        /// Whether they are a terminal's.
        terminal: bool,
    },
    /// What a container has used.
    Stats {
        /// As the `data` object of `runc events --stats`.
        stats: serde_json::Value,
    },
    /// The processes of a container.
    Processes {
        /// Their ids, in the shim's pid namespace, in ascending order.
        pids: Vec<i32>,
    },
    /// Everything that the shim keeps.
    State {
        /// By container id.
        containers: BTreeMap<String, ContainerState>,
    },
}

/// What a shim knows about one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    /// Its init process.
    pub pid: i32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its program was started.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<ExitRecord>,
    /// Bytes of output that could not be logged, because the disk was full or the log could not be opened.
    #[serde(default)]
    pub log_bytes_lost: u64,
}

/// How a container ended. Also the content of `exits/<container>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// 0 to 255; 128 + n when signal n ended it, as shells and Kubernetes count.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel's OOM killer took a process of this container.
    pub oom_killed: bool,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// What a shim tells its subscribers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    /// A container's init process ended and its log is complete; the exit record is on disk already.
    Exited {
        /// The container's id.
        container: String,
        /// How it ended.
        exit: ExitRecord,
    },
    /// The OOM killer took a process of the container, which may live on.
    Oom {
        /// The container's id.
        container: String,
    },
    /// A process started by [`super::Call::Exec`] ended.
    ExecExited {
        /// The container's id.
        container: String,
        /// The name given with [`super::Call::Exec`].
        exec: String,
        /// 0 to 255; 128 + n when signal n ended it.
        code: i32,
    },
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// What kind of failure, for programs.
    pub kind: FaultKind,
    /// What failed, on what, and why, for people.
    pub message: String,
}

/// The kinds of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// The packet or a field in it makes no sense.
    Invalid,
    /// No such container or exec session.
    NotFound,
    /// There is one by that id already.
    Exists,
    /// The container is not in the state that the call needs.
    WrongState,
    /// The program to run is not there or cannot be executed.
    BadCommand,
    /// The kernel refused, or the runtime failed.
    Failed,
}
