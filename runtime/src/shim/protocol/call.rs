//! What can be asked of a shim.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, Process};
use serde::{Deserialize, Serialize};

/// Everything that can be asked of a shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verb")]
pub enum Call {
    /// Create a container from a bundle and open its log. Answer: [`super::Answer::Created`].
    ///
    /// If the bundle's `process.terminal` is true, the container gets a terminal, which the shim keeps: its output is
    /// logged as `stdout`, and its input is to be had by [`Call::Attach`].
    #[serde(rename_all = "camelCase")]
    Create {
        /// The container's id, `[a-zA-Z0-9_.-]{1,128}`.
        container: String,
        /// The OCI bundle: `config.json` names rootfs, namespaces and cgroup.
        bundle: PathBuf,
        /// The CRI-format log; `None` discards the output.
        log: Option<LogSpec>,
        /// Whether there shall be a way to its standard input ([`Call::Attach`]); otherwise that is `/dev/null`. With a
        /// terminal there is one anyway.
        #[serde(default)]
        stdin: bool,
        /// Whether its standard input ends with the first attachment that has it. It means nothing with a terminal.
        #[serde(default)]
        stdin_once: bool,
    },
    /// Let a created container run its program. Answer: [`super::Answer::Started`], or the error of its `execve`.
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
    /// Success if there is none.
    Delete {
        /// The container's id.
        container: String,
    },
    /// Run one more process in a running container. Three descriptors come with the packet: stdin, stdout, stderr; none
    /// if the process has a terminal. Answer: [`super::Answer::Executed`], and beside it the terminal's master, of which
    /// the shim keeps nothing: closed by all who have it, it hangs up on the process. Resize it by `TIOCSWINSZ`.
    /// The end of the process is told by [`super::Event::ExecExited`] to every subscriber.
    Exec {
        /// The container's id.
        container: String,
        /// A name for this run, unique in the container.
        exec: String,
        /// The OCI `process` object (runtime spec, config.md#process).
        process: Box<Process>,
    },
    /// Kill a process that [`Call::Exec`] started, with its descendants where the kernel can; one that is still being made,
    /// as soon as it is there.
    ExecKill {
        /// The container's id.
        container: String,
        /// The name given with [`Call::Exec`].
        exec: String,
        /// The signal's number.
        signal: i32,
    },
    /// Share in a container's streams from now on. Answer: [`super::Answer::Attached`].
    ///
    /// With the packet comes a descriptor to write to for each output that is asked for, stdout before stderr. They are
    /// made non-blocking, which concerns everybody who shares them. A reader who does not keep up misses output, from
    /// anywhere in a line up to the end of a later one; neither the container nor the log ever waits for it. They are
    /// closed when the stream has ended.
    ///
    /// Beside the answer comes, if input is asked for, a descriptor that leads into the container: a pipe, or the
    /// terminal's master, which is to be written to only and is non-blocking.
    Attach {
        /// The container's id.
        container: String,
        /// Whether to give a way to its standard input.
        #[serde(default)]
        stdin: bool,
        /// Whether to copy its standard output, or what its terminal shows.
        #[serde(default)]
        stdout: bool,
        /// Whether to copy its standard error; a terminal has none.
        #[serde(default)]
        stderr: bool,
    },
    /// Give the shim's own way to a container's standard input up: it ends when all attachments have closed theirs.
    CloseStdin {
        /// The container's id.
        container: String,
    },
    /// Set the size of a container's terminal, in characters.
    Resize {
        /// The container's id.
        container: String,
        /// The width.
        columns: u16,
        /// The height.
        rows: u16,
    },
    /// Stop every process of a container.
    Pause {
        /// The container's id.
        container: String,
    },
    /// Let the processes of a paused container go on.
    Resume {
        /// The container's id.
        container: String,
    },
    /// Change limits; those that are absent stay.
    Update {
        /// The container's id.
        container: String,
        /// The OCI `linux.resources` object.
        resources: Box<LinuxResources>,
    },
    /// What a container has used. Answer: [`super::Answer::Stats`].
    Stats {
        /// The container's id.
        container: String,
    },
    /// The processes of a container. Answer: [`super::Answer::Processes`].
    Processes {
        /// The container's id.
        container: String,
    },
    /// Close and open again a container's log, after somebody moved the file.
    ReopenLog {
        /// The container's id.
        container: String,
    },
    /// What is there now. Answer: [`super::Answer::State`].
    State,
    /// Send [`super::Event`]s on this connection from now on. Answer: [`super::Answer::State`] as of the same instant, so
    /// nothing falls between the two.
    Subscribe,
    /// Kill and forget every container, unpin the namespaces, remove the pod's cgroup if the shim made it, answer, and end.
    Shutdown,
}

impl Call {
    /// [`Call::Create`] of a container without standard input.
    pub fn create(container: impl Into<String>, bundle: impl Into<PathBuf>, log: Option<LogSpec>) -> Self {
        Self::Create { container: container.into(), bundle: bundle.into(), log, stdin: false, stdin_once: false }
    }
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
