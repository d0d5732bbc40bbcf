//! What can go wrong, and the code to exit with then.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use crate::phrase::Phrase;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A verb has too many operands or too few.
    #[error("{verb:?} requires {wanted} argument(s)")]
    Operands { verb: &'static str, wanted: &'static str },
    /// There is no such verb.
    #[error("No help topic for '{verb}'")]
    UnknownVerb { verb: String },
    /// A verb failed whose failures have a code or a beginning of their own.
    #[error("{verb} failed")]
    Verb { verb: &'static str, exit_code: u8, source: Box<Error> },
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] Phrase),
    /// What runc calls everything that needs a process where there is none; clients look for it.
    #[error("container not running")]
    NotRunning,
    #[error("container not paused")]
    NotPaused,
    #[error("cannot start an already running container")]
    AlreadyRunning,
    #[error("cannot start a container that has stopped")]
    AlreadyStopped,
    #[error("cannot exec in a stopped container")]
    ExecInStopped,
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecInPaused,
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: String },
    /// The process has a terminal and nobody would hold its other end.
    #[error("cannot allocate tty if the process is detached without setting console socket")]
    ConsoleSocketMissing,
    /// Somebody waits for a terminal that is not made.
    #[error("cannot use console socket if the process is not detached or has no tty")]
    ConsoleSocketUnused,
    /// Fewer descriptors are open than were to be passed on.
    #[error("cannot pass on descriptor {fd}")]
    Preserve { fd: i32, source: io::Error },
    /// A `process` object makes no sense.
    #[error("cannot understand {path}")]
    Process { path: PathBuf, source: berth_runtime::Error },
    /// A file of JSON makes no sense.
    #[error("cannot understand {path}")]
    Json { path: PathBuf, source: serde_json::Error },
    /// Something outside of the container.
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// This program could not be put out of the container's reach.
    #[error("cannot protect this program from the container")]
    Protect(#[source] io::Error),
    /// The process could not be waited for.
    #[error("cannot attend the process")]
    Attend(#[source] io::Error),
    /// Standard output is gone.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// ps(1) did not work.
    #[error("cannot use ps: {reason}")]
    Ps { reason: String },
}

impl Error {
    /// The code to exit with: runc's.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Verb { exit_code, .. } => *exit_code,
            Self::UnknownVerb { .. } => 3,
            _ => 1,
        }
    }

    pub(crate) fn of(verb: &'static str, exit_code: u8) -> impl FnOnce(Self) -> Self {
        move |source| Self::Verb { verb, exit_code, source: Box::new(source) }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn unknown_flag(flag: &str) -> Self {
        Self::Usage(format!("flag provided but not defined: -{flag}"))
    }

    pub(crate) fn value(flag: &str, text: &str, reason: &dyn Display) -> Self {
        Self::Usage(format!("invalid value {text:?} for flag -{flag}: {reason}"))
    }

    pub(crate) fn not_text(word: OsString) -> Self {
        Self::Usage(format!("{word:?} is not text"))
    }
}

impl From<berth_runtime::Error> for Error {
    fn from(error: berth_runtime::Error) -> Self {
        Self::Runtime(Phrase(error))
    }
}

/// An error and all beneath it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
