//! The server's certificate, given or made once and kept, and whose clients' certificates it believes.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_sys::file::{Durability, replace};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{CertificateFiles, Config};

/// How long a certificate that was made here is good.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// One that ends sooner than this is made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// What is wrong with the server's certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM.
    #[error("cannot read {path}: {message}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make the server's certificate")]
    Make(#[source] rcgen::Error),
    /// Certificate and key cannot be used.
    #[error("certificate {path} and its key cannot be used")]
    Use {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authority of the clients cannot be used.
    #[error("client authority {path} cannot be used: {message}")]
    ClientCa {
        /// Its file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// The server's side of TLS.
pub(super) fn server_config(config: &Config, addresses: &[IpAddr]) -> Result<ServerConfig, TlsError> {
    let files = match &config.server_certificate {
        Some(files) => files.clone(),
        None => own_certificate(&config.state_dir.join("pki"), &config.node_name, addresses)?,
    };
    let chain: Vec<CertificateDer<'static>> = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::Read { path: files.key.clone(), message: error.to_string() })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |source| TlsError::Use { path: files.certificate.clone(), source };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(unusable)?;
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unusable = |message: String| TlsError::ClientCa { path: path.clone(), message };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                // Anybody may ask for /healthz.
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(unusable)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |message: String| TlsError::Read { path: path.to_owned(), message };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(unreadable("there is no certificate in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// The certificate that is kept in `folder`, made anew if there is none that is good for these names.
fn own_certificate(folder: &Path, name: &str, addresses: &[IpAddr]) -> Result<CertificateFiles, TlsError> {
    let files = CertificateFiles { certificate: folder.join("kubelet.crt"), key: folder.join("kubelet.key") };
    if files.key.exists() && is_good(&files.certificate, name, addresses) {
        return Ok(files);
    }
    let (certificate, key) = make(name, addresses).map_err(TlsError::Make)?;
    let write = |path: &Path, text: &str| {
        replace(path, text.as_bytes(), Durability::Power)
            .map_err(|source| TlsError::Write { path: path.to_owned(), source })
    };
    fs::create_dir_all(folder).map_err(|source| TlsError::Write { path: folder.to_owned(), source })?;
    // A crash between the two leaves a certificate that does not fit its key: the old one must not look good.
    let _ = fs::remove_file(&files.certificate);
    write(&files.key, &key)?;
    write(&files.certificate, &certificate)?;
    tracing::info!(certificate = %files.certificate.display(), "made the server's certificate");
    Ok(files)
}

fn make(name: &str, addresses: &[IpAddr]) -> Result<(String, String), rcgen::Error> {
    let mut names = vec![name.to_owned()];
    names.extend(addresses.iter().map(ToString::to_string));
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = std::time::SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALIDITY).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Whether a certificate can be read, will be good for a while, and is for these names.
fn is_good(path: &Path, name: &str, addresses: &[IpAddr]) -> bool {
    let Ok(chain) = certificates(path) else { return false };
    let Some(Ok((_, certificate))) = chain.first().map(|first| X509Certificate::from_der(first)) else { return false };
    let lasts = certificate.validity().time_to_expiration().is_some_and(|left| left.unsigned_abs() > RENEW_BEFORE);
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    let has = |wanted: &GeneralName<'_>| names.value.general_names.contains(wanted);
    let has_address = |address: &IpAddr| match address {
        IpAddr::V4(v4) => has(&GeneralName::IPAddress(&v4.octets())),
        IpAddr::V6(v6) => has(&GeneralName::IPAddress(&v6.octets())),
    };
    lasts && has(&GeneralName::DNSName(name)) && addresses.iter().all(has_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_again_for_other_names() {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path().join("pki");
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let read = |files: &CertificateFiles| fs::read_to_string(&files.certificate).unwrap();
        let first = read(&own_certificate(&pki, "n", &[address]).unwrap());
        assert_eq!(read(&own_certificate(&pki, "n", &[address]).unwrap()), first);
        assert_ne!(read(&own_certificate(&pki, "m", &[address]).unwrap()), first);
        let other = read(&own_certificate(&pki, "m", &["10.0.0.2".parse().unwrap()]).unwrap());
        fs::write(pki.join("kubelet.crt"), "garbage").unwrap();
        assert_ne!(read(&own_certificate(&pki, "m", &["10.0.0.2".parse().unwrap()]).unwrap()), other);
    }
}
