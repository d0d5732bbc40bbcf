//! Who a client is: what its certificate says, once the handshake has verified it against the cluster's authority.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::status::Refusal;
use crate::pki::{GROUP_MASTERS, GROUP_NODES, NODE_USER_PREFIX};

const ANONYMOUS: &str = "system:anonymous";

/// A client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    groups: Vec<String>,
}

impl User {
    /// Of a connection: common name and organizations of its certificate, or nobody.
    pub(super) fn of_connection(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        certificates
            .and_then(<[_]>::first)
            .and_then(|certificate| Self::of_certificate(certificate))
            .unwrap_or_else(|| Self { name: ANONYMOUS.to_owned(), groups: Vec::new() })
    }

    fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).filter(|name| !name.is_empty())?;
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
        Some(Self { name: name.to_owned(), groups })
    }

    /// There are no tokens here: one that is sent in place of a certificate is not valid.
    pub(super) fn check_headers(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.is_anonymous() && headers.contains_key(AUTHORIZATION) { Err(Refusal::unauthorized()) } else { Ok(()) }
    }

    pub(super) fn is_master(&self) -> bool {
        self.is_in(GROUP_MASTERS)
    }

    /// The node that this is.
    pub(super) fn node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_USER_PREFIX).filter(|name| !name.is_empty() && self.is_in(GROUP_NODES))
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }

    #[cfg(test)]
    pub(super) fn new(name: &str, groups: &[&str]) -> Self {
        Self { name: name.to_owned(), groups: groups.iter().map(|group| (*group).to_owned()).collect() }
    }
}
