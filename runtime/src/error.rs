//! What can go wrong in the runtime: which step failed, on what, and the kernel's reason.

use std::io;
use std::path::PathBuf;

use berth_sys::cgroup;

use crate::limits::WORDS_BYTES_MAX;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An id that cannot be a folder's name.
    #[error("container id {id:?} is not 1 to {max} characters of a-z A-Z 0-9 _ + - .", max = crate::limits::ID_BYTES_MAX)]
    Id {
        /// The id.
        id: String,
    },
    /// There is no such container.
    #[error("container {id} does not exist")]
    NotFound {
        /// Its id.
        id: String,
    },
    /// There is one by that id already.
    #[error("container {id} exists already; delete it first")]
    Exists {
        /// Its id.
        id: String,
    },
    /// The container is not in a state that allows this.
    #[error("container {id} is {status}, not {wanted}")]
    WrongState {
        /// Its id.
        id: String,
        /// What it is.
        status: crate::Status,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// Somebody else is changing the container, and does not come to an end.
    #[error("container {id} has been in somebody else's hands for {seconds} s")]
    Locked {
        /// Its id.
        id: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A field of `config.json` or of a process makes no sense.
    #[error("{field}: {reason}")]
    Spec {
        /// The field, such as `mounts[3].options`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field asks for something that this runtime does not do.
    #[error("{field}: not supported by this runtime; remove it")]
    Unsupported {
        /// The field.
        field: String,
    },
    /// The new process could not be set up.
    #[error("cannot {step}")]
    Setup {
        /// The step that failed, such as `mount proc on /proc`.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// A hook failed.
    #[error("hook {story}")]
    Hook {
        /// Its program and its field, how it ended, and the end of what it wrote to its standard error.
        story: String,
    },
    /// Everything was set up, but the program could not be executed.
    #[error("cannot execute {path:?}: {errno}")]
    Exec {
        /// The program as the process names it.
        path: String,
        /// `ENOENT`: it or its interpreter is not there; `EACCES`: it may not be executed; …
        errno: nix::errno::Errno,
    },
    /// The new process ended, or was killed, before it said anything.
    #[error("the new process died while it was being {phase}")]
    Died {
        /// `set up` or `started`.
        phase: &'static str,
    },
    /// The new process did not answer.
    #[error("the new process did not answer within {seconds} s while it was being {phase}")]
    Timeout {
        /// `set up` or `started`.
        phase: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// Something about the container's cgroup.
    #[error("cannot handle the container's cgroup")]
    Cgroup(#[from] cgroup::Error),
    /// The cgroup that the container should have is in use.
    #[error("cgroup {path} has processes already, or is frozen; give the container one of its own")]
    CgroupInUse {
        /// The cgroup.
        path: PathBuf,
    },
    /// Something outside of the container.
    #[error("cannot {action} {path}")]
    File {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel made no process.
    #[error("cannot make a process")]
    Spawn(#[source] io::Error),
}

impl Error {
    pub(crate) fn spec(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Spec { field: shortened(field.into()), reason: shortened(reason.into()) }
    }

    pub(crate) fn unsupported(field: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into() }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// Errors quote what was given, and that may be as long as a whole `config.json`.
fn shortened(mut text: String) -> String {
    if text.len() > WORDS_BYTES_MAX {
        text.truncate(text.floor_char_boundary(WORDS_BYTES_MAX));
        text.push('…');
    }
    text
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}
