//! Why the agent cannot run.

use std::path::PathBuf;

use crate::server::ServerError;

/// Why the agent cannot start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {message}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A folder cannot be made.
    #[error("cannot make folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The machine cannot be looked at.
    #[error("cannot read this machine's size")]
    Machine(#[source] std::io::Error),
    /// The agent's own server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Pods would not end.
    #[error("pods are left after {waited:?}: {pods}")]
    Left {
        /// Their names.
        pods: String,
        /// How long they had.
        waited: std::time::Duration,
    },
    /// A part ended that never should.
    #[error("part {part} of the agent ended: {message}")]
    Part {
        /// Which.
        part: &'static str,
        /// What is known.
        message: String,
    },
}
