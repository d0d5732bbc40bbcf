//! Connections: accepted, shaken hands with, served, and ended in order.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::authn::User;
use super::{Api, expiry};
use crate::limits::{
    CONNECTIONS_MAX, HANDSHAKE_DEADLINE, HEADER_BYTES_MAX, HEADER_DEADLINE, PING_EVERY, SHUTDOWN_DEADLINE,
    STREAMS_PER_CONNECTION_MAX,
};

/// After an accept that failed, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `api.stop`, then lets running requests end.
pub(crate) async fn serve(api: Arc<Api>, listener: TcpListener, tls: ServerConfig) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let sweeper = Arc::clone(&api);
    connections.spawn(async move { expiry::run(&sweeper, sweeper.stop.clone()).await });
    while let Some((stream, slot)) = accept(&api, &listener, &slots).await {
        connections.spawn(connection(Arc::clone(&api), acceptor.clone(), stream, slot));
    }
    drop(listener);
    connections.close();
    if timeout(SHUTDOWN_DEADLINE, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were still running when the server ended");
    }
}

/// The next connection with its slot; `None` when the server is to stop.
async fn accept(
    api: &Api,
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        // The semaphore is never closed, so this ends only with a slot.
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = api.stop.cancelled() => None,
        accepted = next => accepted,
    }
}

async fn connection(api: Arc<Api>, acceptor: TlsAcceptor, stream: TcpStream, _slot: OwnedSemaphorePermit) {
    // Small answers must not wait for one another.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let tls = match timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let user = Arc::new(User::of_connection(tls.get_ref().1.peer_certificates()));
    let stop = api.stop.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (api, user) = (Arc::clone(&api), Arc::clone(&user));
        async move { Ok::<_, Infallible>(api.answer(user, request).await) }
    });
    let builder = builder();
    let connection = builder.serve_connection(TokioIo::new(tls), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    builder
}
