//! The node's own HTTPS server, which the master asks for logs (:10250).
//!
//! It holds at most [`CONNECTIONS_MAX`] connections; one that says nothing, or of nobody known, is closed after a while.

mod auth;
mod logs;
mod routes;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use berth_engine::Engine;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::auth::Caller;
pub use self::logs::{Log, LogOptions, Output as LogOutput, open as open_log};
use self::routes::{Served, router};
pub use self::tls::TlsError;
use crate::config::Config;
use crate::pod::Workers;

/// How many connections there are at most; others wait.
const CONNECTIONS_MAX: usize = 256;
/// How long a caller has for the TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a caller has for the head of a request, counted from the end of the one before.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// How long the connection of a caller without a certificate may last.
const UNKNOWN_CALLER_MAX: Duration = Duration::from_secs(30);
/// How large the head of a request may be.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How many requests of one connection are answered at once.
const STREAMS_MAX: u32 = 64;
/// A peer that is silent for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_SECS: u32 = 30;
/// The pause after an accept that failed: it was probably for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its address.
    #[error("cannot listen on {address}; is another agent running here?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The server, listening.
pub(crate) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
}

impl Server {
    /// Listens. `addresses` are the node's, for its certificate.
    pub(crate) async fn listen(
        config: &Config,
        address: SocketAddr,
        addresses: &[IpAddr],
        workers: Workers,
        engine: Engine,
    ) -> Result<Self, ServerError> {
        let tls = tls::server_config(config, addresses)?;
        let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
        let router = router(Served { workers, engine, has_client_ca: config.client_ca_file.is_some() });
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(tls)), router })
    }

    /// Answers for ever.
    pub(crate) async fn run(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, self.acceptor.clone(), self.router.clone(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    _place: OwnedSemaphorePermit,
) {
    keep_alive(&stream);
    let stream = match timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS"),
        Err(_) => return tracing::debug!(%peer, "no TLS within {HANDSHAKE_DEADLINE:?}"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = certificate.and_then(|certificate| Caller::of(certificate)).map(Arc::new);
    let is_known = caller.is_some();
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    let http = http();
    let served = http.serve_connection(TokioIo::new(stream), service);
    let result = if is_known {
        served.await
    } else {
        match timeout(UNKNOWN_CALLER_MAX, served).await {
            Ok(result) => result,
            Err(_) => return,
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, error, "connection ended");
    }
}

fn http() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    builder
}

/// Lets the kernel find out about peers that are gone without a word: a log may be silent for hours.
fn keep_alive(stream: &TcpStream) {
    let set = setsockopt(stream, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_SECS))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_SECS));
    if let Err(error) = set {
        tracing::debug!(%error, "no keep-alive");
    }
}
