//! The cluster's certificates: its authority, what the master shows and is shown, and what a node needs to join.

#![allow(clippy::todo)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Certificates or kubeconfig files that could not be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {}

/// The files that make a node a member, as [`crate::Master::issue_node`] leaves them in a folder.
#[derive(Debug, Clone)]
pub struct NodeCredentials {
    /// `kubeconfig`: the master's address, its authority and the node's client certificate, all embedded.
    pub kubeconfig: PathBuf,
    /// `ca.crt`: the authority that signs the clients that may call the node on :10250.
    pub ca: PathBuf,
    /// `client.crt`: `CN=system:node:<name>`, `O=system:nodes`.
    pub client_cert: PathBuf,
    /// `client.key`, mode 0600.
    pub client_key: PathBuf,
    /// `serving.crt`: for :10250; names the node and its addresses.
    pub serving_cert: PathBuf,
    /// `serving.key`, mode 0600.
    pub serving_key: PathBuf,
}

/// The cluster's certificate authority, with its key.
#[derive(Debug)]
pub struct Pki {}

impl Pki {
    /// Makes (or renews) a node's credentials in `dir`.
    ///
    /// # Errors
    /// When the folder cannot be written or the name is no valid node name.
    pub fn issue_node(&self, _name: &str, _addresses: &[IpAddr], _dir: &Path) -> Result<NodeCredentials, PkiError> {
        todo!()
    }
}
