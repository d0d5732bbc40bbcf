//! What can keep a master from starting, or end it.

use std::net::SocketAddr;

use crate::pki::PkiError;

/// What lies beneath, for a reader; no caller decides by it.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A master that could not start, or stopped for a fault of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Certificates could not be read, made or written.
    #[error("cannot set up the cluster's certificates")]
    Pki(#[from] PkiError),
    /// Certificates are there, but TLS cannot use them.
    #[error("cannot set up TLS")]
    Tls(#[source] Cause),
    /// The database cannot be opened.
    #[error("cannot open the store")]
    Store(#[source] Cause),
    /// The namespaces that every cluster has cannot be made.
    #[error("cannot prepare the store")]
    Initial(#[source] Cause),
    /// The address cannot be served on.
    #[error("cannot listen on {address}; is another master running, or the address not this machine's?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The scheduler and the controllers cannot be given a client.
    #[error("cannot make a client for the {part}")]
    Client {
        /// Which of them.
        part: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A part ended though nobody told it to.
    #[error("the {part} ended unexpectedly")]
    Stopped {
        /// Which one.
        part: &'static str,
    },
}
