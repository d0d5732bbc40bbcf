//! One master: store, server, scheduler and controllers, started in that order and stopped in the opposite one.

#![allow(clippy::todo)]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use crate::Error;
use crate::pki::{NodeCredentials, PkiError};

/// Everything that a master must be told.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Database, certificates and the admin's kubeconfig; made (mode 0700) when it is missing.
    pub data_dir: PathBuf,
    /// Where the API is served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Further names for the serving certificate; the first address or name is what kubeconfig files point to
    /// (127.0.0.1 when both lists are empty).
    pub advertise_addresses: Vec<IpAddr>,
    /// Host names for the serving certificate.
    pub advertise_names: Vec<String>,
    /// The network that nodes' pod networks are cut from.
    pub cluster_cidr: IpNetwork,
}

/// A running master.
#[derive(Debug)]
pub struct Master {}

impl Master {
    /// Where clients reach the API, such as `https://192.0.2.1:6443`.
    pub fn url(&self) -> &str {
        todo!()
    }

    /// The kubeconfig of the cluster's administrator.
    pub fn admin_kubeconfig(&self) -> &Path {
        todo!()
    }

    /// Makes (or renews) a node's credentials in `dir`; see [`NodeCredentials`] for the files.
    ///
    /// # Errors
    /// When the folder cannot be written or the name is no valid node name.
    pub fn issue_node(&self, _name: &str, _addresses: &[IpAddr], _dir: &Path) -> Result<NodeCredentials, PkiError> {
        todo!()
    }

    /// Returns when the master has stopped: after [`Master::shutdown`], or for a fault.
    ///
    /// # Errors
    /// The fault.
    pub async fn wait(&self) -> Result<(), Error> {
        todo!()
    }

    /// Stops it: no new requests, running ones end within a deadline, the database is closed.
    pub async fn shutdown(self) {
        todo!()
    }
}

/// Opens the store, makes what certificates are missing or near their end, serves the API, then starts the scheduler
/// and the controllers as its clients. The API is reachable when this returns.
///
/// # Errors
/// When the data folder, the database or the certificates cannot be used, or the address cannot be bound.
pub async fn start(_config: MasterConfig) -> Result<Master, Error> {
    todo!()
}
