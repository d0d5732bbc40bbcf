//! What can keep a master from starting or stop it.

/// A master that could not start, or stopped for a fault of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Certificates could not be read, made or written.
    #[error("cannot set up the cluster's certificates")]
    Pki(#[from] crate::pki::PkiError),
}
