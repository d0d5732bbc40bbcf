//! What can go wrong in the engine.

use std::time::Duration;

/// An engine's failure, with the words that Kubernetes has for it in [`Error::reason`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sandbox could not be made.
    #[error("cannot make the sandbox of pod {pod}: {message}")]
    Sandbox {
        /// `namespace/name`.
        pod: String,
        /// What failed, on what.
        message: String,
    },
    /// The pod's network could not be set up.
    #[error("cannot set up the network of pod {pod}: {message}")]
    Network {
        /// `namespace/name`.
        pod: String,
        /// What failed, on what.
        message: String,
    },
    /// A container could not be created.
    #[error("cannot create container {name:?}: {message}")]
    Create {
        /// The container's name.
        name: String,
        /// What failed, on what.
        message: String,
    },
    /// A container's configuration makes no sense (`CreateContainerConfigError`).
    #[error("container {name:?}: {message}")]
    Config {
        /// The container's name.
        name: String,
        /// Which field and what is wrong with it.
        message: String,
    },
    /// A container's program could not be run.
    #[error("cannot start container {name:?}: {message}")]
    Start {
        /// The container's name.
        name: String,
        /// What failed, on what.
        message: String,
    },
    /// A command did not end in time.
    #[error("command did not end within {timeout:?}")]
    ExecTimeout {
        /// How long it had.
        timeout: Duration,
    },
    /// A command could not be run.
    #[error("cannot run {command:?}: {message}")]
    Exec {
        /// The program.
        command: String,
        /// What failed, on what.
        message: String,
    },
    /// An image could not be fetched.
    #[error("cannot pull image {reference:?}: {message}")]
    Pull {
        /// As it was asked for.
        reference: String,
        /// What failed, on what.
        message: String,
    },
    /// The name of an image makes no sense.
    #[error("image name {reference:?}: {message}")]
    InvalidImageName {
        /// As it was asked for.
        reference: String,
        /// What is wrong with it.
        message: String,
    },
    /// No such sandbox, container or image.
    #[error("{what} {id:?} is not there")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The engine's own state could not be read or written.
    #[error("{message}")]
    Internal {
        /// What failed, on what.
        message: String,
    },
}

impl Error {
    /// The word that Kubernetes shows for this in a container's or pod's status.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Sandbox { .. } | Self::Network { .. } => "FailedCreatePodSandBox",
            Self::Create { .. } => "CreateContainerError",
            Self::Config { .. } => "CreateContainerConfigError",
            Self::Start { .. } => "RunContainerError",
            Self::Pull { .. } => "ErrImagePull",
            Self::InvalidImageName { .. } => "InvalidImageName",
            Self::ExecTimeout { .. } | Self::Exec { .. } => "ExecError",
            Self::NotFound { .. } | Self::Internal { .. } => "InternalError",
        }
    }
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
