//! One HTTP request to a container.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// More of an answer is not read.
const BODY_BYTES_MAX: usize = 10 * 1024;
const AGENT: &str = concat!("berth-probe/", env!("CARGO_PKG_VERSION"));

/// Asks a container by HTTP: its status code, and the beginning of what it says.
pub(super) async fn get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: Option<IpAddr>,
) -> Result<(u16, String), String> {
    let port = berth_api::port::resolve(&action.port, container).map_err(|error| error.to_string())?;
    let host = action.host.as_deref().filter(|host| !host.is_empty());
    let address = super::run::address(host, pod_ip, port).await?;
    let request = request(action, host, address)?;
    let stream = TcpStream::connect(address).await.map_err(|error| format!("Get {address}: {error}"))?;
    match action.scheme.as_deref() {
        Some("HTTPS") => {
            let name = server_name(host, address.ip())?;
            let tls = tokio_rustls::TlsConnector::from(trusting()?).connect(name, stream).await;
            send(tls.map_err(|error| format!("Get {address}: {error}"))?, request).await
        }
        _ => send(stream, request).await,
    }
}

fn request(action: &HTTPGetAction, host: Option<&str>, address: SocketAddr) -> Result<Request<Empty<Bytes>>, String> {
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = Request::get(path).body(Empty::new()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    let authority = host.map_or_else(|| address.to_string(), |host| format!("{host}:{}", address.port()));
    headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|error| error.to_string())?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::try_from(&header.name).map_err(|error| format!("header {:?}: {error}", header.name))?;
        let value = HeaderValue::try_from(&header.value).map_err(|error| format!("header {name}: {error}"))?;
        headers.insert(name, value);
    }
    Ok(request)
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<(u16, String), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Whatever ends the connection is told by the request as well; with this future, it ends too.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    // The status counts, even if what follows is too long or breaks off.
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn server_name(host: Option<&str>, ip: IpAddr) -> Result<ServerName<'static>, String> {
    match host {
        Some(host) => ServerName::try_from(host.to_owned()).map_err(|error| format!("host {host:?}: {error}")),
        None => Ok(ServerName::IpAddress(ip.into())),
    }
}

/// TLS that believes any certificate: a probe asks whether somebody answers, not who (Kubernetes' rule).
fn trusting() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
