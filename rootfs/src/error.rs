//! What can go wrong with images, in words for whoever asked.

use std::io;
use std::path::PathBuf;

use crate::auth::CredentialsError;
use crate::store::layer::TransferFailed;

/// A failure of the store, of a registry, or of what came from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that makes no sense.
    #[error("image name {text:?}: {why}")]
    Reference {
        /// As given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file or folder of the store, or one to import, could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process does not let go of the store.
    #[error("another process holds {} for more than {} s", path.display(), wait.as_secs())]
    Held {
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        wait: std::time::Duration,
    },
    /// A registry could not be reached or did not answer.
    #[error("no answer from registry {registry}")]
    Unreachable {
        /// Its `host:port`.
        registry: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A registry wants other credentials than it got, or any at all.
    #[error("registry {registry} does not let us read {repository}: {message}")]
    Unauthorized {
        /// Its `host:port`.
        registry: String,
        /// What was asked for.
        repository: String,
        /// Its own words.
        message: String,
    },
    /// A registry does not have it.
    #[error("registry {registry} has no {what}")]
    NotInRegistry {
        /// Its `host:port`.
        registry: String,
        /// A manifest or blob.
        what: String,
    },
    /// A registry answered with an error.
    #[error("registry {registry} answered {status} for {what}: {message}")]
    Registry {
        /// Its `host:port`.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// A manifest, blob or token.
        what: String,
        /// Its own words.
        message: String,
    },
    /// A registry has mirrors, and neither they nor it could help.
    #[error("no mirror of registry {registry} could help ({mirrors}), and neither could the registry")]
    Mirrors {
        /// The registry, as the image's name has it.
        registry: String,
        /// Each mirror's failure.
        mirrors: String,
        /// The registry's own failure.
        #[source]
        source: Box<Error>,
    },
    /// What was configured for a registry makes no sense.
    #[error("cannot use {}: {why}", path.display())]
    Hosts {
        /// The `hosts.toml`, or a file that it names.
        path: PathBuf,
        /// The field, and what is wrong with it.
        why: String,
    },
    /// The credentials for a registry could not be got.
    #[error("cannot get credentials for registry {registry}")]
    Credentials {
        /// Its `host:port`.
        registry: String,
        /// Why not.
        #[source]
        source: CredentialsError,
    },
    /// A manifest, index or configuration makes no sense or is not for us.
    #[error("{what}: {why}")]
    Manifest {
        /// Which document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Content is not what its digest or size says.
    #[error("{what} is not what its digest or size says: expected {expected}, got {got}")]
    Mismatch {
        /// A manifest, configuration or layer.
        what: String,
        /// Digest or size.
        expected: String,
        /// What it was instead.
        got: String,
    },
    /// A layer could not be unpacked.
    #[error("cannot unpack layer {layer}")]
    Layer {
        /// Its digest.
        layer: String,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// What was to be imported is no image.
    #[error("cannot import {}: {why}", path.display())]
    Import {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// An image could not be written out.
    #[error("cannot write the archive")]
    Export {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A layer is here only unpacked, which is enough to run it but not to pass it on.
    #[error("layer {layer} of image {image} is here only unpacked: remove the image and pull it again")]
    NoBlob {
        /// The image's id.
        image: String,
        /// The layer's diff id.
        layer: String,
    },
    /// No such image.
    #[error("there is no image {name:?} here")]
    NoImage {
        /// As asked for.
        name: String,
    },
    /// Some digits that begin the ids of several images.
    #[error("{name:?} begins the ids of several images: give more digits")]
    Ambiguous {
        /// As asked for.
        name: String,
    },
    /// A snapshot's key that cannot name a folder.
    #[error("snapshot key {key:?} is no name for a folder")]
    Key {
        /// As given.
        key: String,
    },
    /// A root could not be mounted or unmounted.
    #[error("cannot {action} the root of {key:?} at {}", target.display())]
    Mount {
        /// What was tried.
        action: &'static str,
        /// The snapshot.
        key: String,
        /// Where.
        target: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A task of the crate's own was stopped from outside: the runtime shuts down.
    #[error("stopped while {doing}")]
    Stopped {
        /// What it was at.
        doing: &'static str,
    },
}

/// An error with all that lies beneath it, in one line.
pub(crate) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why a layer's archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The archive's own structure is broken.
    #[error("the archive is damaged: {why}")]
    Damaged {
        /// How.
        why: &'static str,
    },
    /// The archive, or the stream that it comes by, could not be read.
    #[error("cannot read the archive")]
    Read {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An entry that is refused.
    #[error("entry {path:?}: {why}")]
    Entry {
        /// Its path in the archive.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry that could not be made.
    #[error("entry {path:?}: cannot {action}")]
    Write {
        /// Its path in the archive.
        path: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The blob could not be written down while it came.
    #[error("cannot keep its blob")]
    Keep {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// More of something than any honest layer has.
    #[error("more than {max} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: u64,
    },
}

impl Error {
    /// Makes an I/O error say what failed on which file.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Whether a layer's blob stopped coming, and nothing is known against what came.
    pub(crate) fn is_interruption(&self) -> bool {
        let Self::Layer { source: UnpackError::Read { source }, .. } = self else { return false };
        source.get_ref().is_some_and(|inner| inner.is::<TransferFailed>())
    }

    /// Whether a blob is not what it should be.
    pub(crate) fn is_about_content(&self) -> bool {
        match self {
            Self::Mismatch { .. } => true,
            Self::Layer { source: UnpackError::Damaged { .. }, .. } => true,
            Self::Layer { source: UnpackError::Read { .. }, .. } => !self.is_interruption(),
            _ => false,
        }
    }

    pub(crate) fn manifest(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Manifest { what: what.into(), why: why.into() }
    }
}
