//! The words that a shim and its client exchange. Version 1.
//!
//! Transport: `AF_UNIX`, `SOCK_SEQPACKET`, at `<sandbox dir>/shim.sock`; one JSON document per packet, at most
//! [`PACKET_BYTES_MAX`]. The client sends [`Request`]s; the shim answers each with one [`Reply`] that carries the same
//! `id`. After [`Call::Subscribe`] the shim also sends [`Event`]s on that connection. File descriptors travel beside the
//! packet that needs them (`SCM_RIGHTS`), in the order that the call's documentation gives.
//!
//! A shim serves any number of clients at once and goes on when they die. Unknown fields are ignored and unknown calls
//! are answered with [`Fault`], so that an older shim lives on under a newer client.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of this protocol that this crate speaks; [`ShimRecord::protocol`] tells what a living shim speaks.
pub const VERSION: u32 = 1;

/// The largest packet in either direction, in bytes.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// What a shim has to make before it listens. Written to `sandbox.json` by the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// The sandbox's id: `[a-zA-Z0-9_.-]{1,128}`, also the name of its directory.
    pub id: String,
    /// The host name inside a new uts namespace.
    pub hostname: String,
    /// Which namespaces the containers of this sandbox share.
    pub namespaces: SandboxNamespaces,
    /// The pod's cgroup, absolute below each hierarchy's root, such as `/kubepods/burstable/pod<uid>`. The shim puts
    /// itself into no pod cgroup; the containers go below it.
    pub cgroup: String,
    /// Sysctls to set in the sandbox's own namespaces, by dotted name.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
}

/// How the sandbox comes by each of its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxNamespaces {
    /// The network namespace.
    pub net: NamespaceMode,
    /// The System V IPC and POSIX message queue namespace.
    pub ipc: NamespaceMode,
    /// The host name's namespace.
    pub uts: NamespaceMode,
    /// The process namespace; `New` is one namespace that all containers share (`shareProcessNamespace`), `Container`
    /// gives each its own.
    pub pid: NamespaceMode,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceMode {
    /// The shim makes it and pins it below `ns/`.
    New,
    /// The one that the shim was started in.
    Host,
    /// Each container makes its own.
    Container,
}

/// Who answers at `shim.sock`. Written to `shim.json` when the shim is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimRecord {
    /// [`VERSION`] of the shim.
    pub protocol: u32,
    /// The shim's process id in the initial pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, so that a reused pid is not taken for the shim.
    pub start_time: u64,
}

/// One question. `id` is chosen by the client and comes back in the [`Reply`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; unique among its open questions.
    pub id: u64,
    /// What is asked.
    pub call: Call,
}

/// Everything that can be asked of a shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verb")]
pub enum Call {
    /// Create a container from a bundle and open its log. Answer: [`Answer::Created`].
    #[serde(rename_all = "camelCase")]
    Create {
        /// The container's id, `[a-zA-Z0-9_.-]{1,128}`.
        container: String,
        /// The OCI bundle: `config.json` names rootfs, namespaces and cgroup.
        bundle: PathBuf,
        /// The CRI-format log; `None` discards the output.
        log: Option<LogSpec>,
    },
    /// Let a created container run its program. Answer: [`Answer::Started`], or the error of its `execve`.
    Start {
        /// The container's id.
        container: String,
    },
    /// Send a signal to a container's init process. Sending to one that has ended is success.
    Kill {
        /// The container's id.
        container: String,
        /// The signal's number.
        signal: i32,
        /// Whether every process of the container's cgroup gets it.
        #[serde(default)]
        all: bool,
    },
    /// Forget a container that has ended: its runtime state, cgroup and exit record. A running one is killed first.
    Delete {
        /// The container's id.
        container: String,
    },
    /// Run one more process in a running container. Three descriptors come with the packet: stdin, stdout, stderr.
    /// Answer: [`Answer::Executed`]; its end is told by [`Event::ExecExited`] to every subscriber.
    Exec {
        /// The container's id.
        container: String,
        /// A name for this run, unique in the container.
        exec: String,
        /// The OCI `process` object (runtime spec, config.md#process).
        process: Box<oci_spec::runtime::Process>,
    },
    /// Kill a process that [`Call::Exec`] started, with its descendants where the kernel can.
    ExecKill {
        /// The container's id.
        container: String,
        /// The name given with [`Call::Exec`].
        exec: String,
        /// The signal's number.
        signal: i32,
    },
    /// Close and open again a container's log, after somebody moved the file.
    ReopenLog {
        /// The container's id.
        container: String,
    },
    /// What is there now. Answer: [`Answer::State`].
    State,
    /// Send [`Event`]s on this connection from now on. Answer: [`Answer::State`] as of the same instant, so nothing
    /// falls between the two.
    Subscribe,
    /// Kill and forget every container, unpin the namespaces, remove the pod's cgroup, answer, and end.
    Shutdown,
}

/// Where and how a container's output is logged, in the CRI format: `<RFC 3339 nanoseconds> <stream> <P|F> <line>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSpec {
    /// The file; rotated ones stand beside it as `<path>.<UTC time>`.
    pub path: PathBuf,
    /// Rotate when the file would grow beyond this many bytes; 0 is never. Absent: [`LOG_BYTES_MAX_DEFAULT`].
    #[serde(default = "default_log_bytes")]
    pub max_bytes: u64,
    /// Keep at most this many files, the current one among them. Absent: [`LOG_FILES_MAX_DEFAULT`].
    #[serde(default = "default_log_files")]
    pub max_files: u32,
}

/// The size of a log file where [`LogSpec`] does not say it: 10 MiB, as the kubelet's `containerLogMaxSize`.
pub const LOG_BYTES_MAX_DEFAULT: u64 = 10 * 1024 * 1024;

/// How many files a log has where [`LogSpec`] does not say it, as the kubelet's `containerLogMaxFiles`.
pub const LOG_FILES_MAX_DEFAULT: u32 = 5;

fn default_log_bytes() -> u64 {
    LOG_BYTES_MAX_DEFAULT
}

fn default_log_files() -> u32 {
    LOG_FILES_MAX_DEFAULT
}

/// What a shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The [`Request::id`] that this answers.
    pub id: u64,
    /// The answer, or what went wrong.
    pub result: Result<Answer, Fault>,
}

/// A call's success.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Answer {
    /// Nothing more to tell.
    Done,
    /// The container is set up and waits for [`Call::Start`].
    Created {
        /// Its init process, in the shim's pid namespace.
        pid: i32,
    },
    /// The container's program runs.
    Started {
        /// When, by the shim's clock.
        at: Timestamp,
    },
    /// The process runs.
    Executed {
        /// Its process id, in the shim's pid namespace.
        pid: i32,
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
    /// A process started by [`Call::Exec`] ended.
    ExecExited {
        /// The container's id.
        container: String,
        /// The name given with [`Call::Exec`].
        exec: String,
        /// 0 to 255; 128 + n when signal n ended it.
        code: i32,
    },
}

/// A packet from the shim: an answer or an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromShim {
    /// The answer to a [`Request`].
    Reply(Reply),
    /// Something happened.
    Event(Event),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_limited_unless_it_says_otherwise() {
        let log = |text| serde_json::from_str::<LogSpec>(text).unwrap();
        let path = || PathBuf::from("/l");
        let defaults = LogSpec { path: path(), max_bytes: 10 << 20, max_files: 5 };
        assert_eq!(log(r#"{"path":"/l"}"#), defaults);
        let told = LogSpec { path: path(), max_bytes: 0, max_files: 1 };
        assert_eq!(log(r#"{"path":"/l","maxBytes":0,"maxFiles":1}"#), told);
    }
}
