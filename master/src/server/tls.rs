//! TLS on both sides of this server: what it shows to clients, and how it calls kubelets.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::Identity;

/// A certificate or key that TLS cannot use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The text is no certificate or key.
    #[error("cannot read {what}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate and the key do not fit, or are of no known kind.
    #[error("cannot use the certificate")]
    Certificate(#[source] rustls::Error),
    /// The authority cannot verify clients.
    #[error("cannot verify clients")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes());
    let ca = ca.map_err(|source| TlsError::Pem { what: "the authority's certificate", source })?;
    roots.add(ca).map_err(TlsError::Certificate)?;
    Ok(roots)
}

fn parts(identity: &Identity) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
    let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes());
    Ok((
        cert.map_err(|source| TlsError::Pem { what: "the certificate", source })?,
        key.map_err(|source| TlsError::Pem { what: "the key", source })?,
    ))
}

/// For clients, who may show a certificate of the authority. One of another authority ends the handshake.
pub(crate) fn server_config(ca_pem: &str, identity: &Identity) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let (cert, key) = parts(identity)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert], key)
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For kubelets, whose certificates the authority must have signed.
pub(super) fn client_config(ca_pem: &str, identity: &Identity) -> Result<ClientConfig, TlsError> {
    let (cert, key) = parts(identity)?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Certificate)?
        .with_root_certificates(roots(ca_pem)?)
        .with_client_auth_cert(vec![cert], key)
        .map_err(TlsError::Certificate)
}
