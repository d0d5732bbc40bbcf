//! What a store keeps between pulls to reach registries: HTTP clients, and which mirrors did not answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, Identity, redirect};

use crate::limits::{CLIENTS_MAX, CONNECT_TIMEOUT, MIRROR_REST, SILENCE_TIMEOUT};

const REDIRECTS_MAX: usize = 10;

/// How a server is known and how long it is waited for. Clients of equal ones are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// Certificates in PEM, trusted beside the system's.
    pub(super) authorities: Vec<Vec<u8>>,
    /// Our own certificate with its key, in PEM; of nothing if the server wants none.
    pub(super) identity: Vec<u8>,
    pub(super) certificate: Check,
    pub(super) connect_timeout: Duration,
}

/// Whether a server's certificate must be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Check {
    Verified,
    /// `skip_verify`.
    Skipped,
}

impl Default for Trust {
    fn default() -> Self {
        let (authorities, identity) = Default::default();
        Self { authorities, identity, certificate: Check::Verified, connect_timeout: CONNECT_TIMEOUT }
    }
}

/// Clients are made when they are first needed: each reads the system's certificates.
#[derive(Debug)]
pub(crate) struct Transport {
    /// How long a server may send nothing.
    silence: Duration,
    clients: Mutex<HashMap<Trust, Client>>,
    /// When a mirror failed, and how.
    silent: Mutex<HashMap<String, (Instant, String)>>,
}

impl Transport {
    pub(crate) fn new(silence: Option<Duration>) -> Self {
        let (clients, silent) = Default::default();
        Self { silence: silence.unwrap_or(SILENCE_TIMEOUT), clients, silent }
    }

    pub(super) fn client(&self, trust: &Trust) -> Result<Client, reqwest::Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let client = make(trust, self.silence)?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }

    /// Remembers that a mirror did not answer.
    pub(super) fn note_silence(&self, base: &str, why: String) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, (since, _)| since.elapsed() < MIRROR_REST);
        silent.insert(base.to_owned(), (Instant::now(), why));
    }

    /// Why a mirror is not worth asking yet.
    pub(super) fn silence(&self, base: &str) -> Option<String> {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(base).filter(|(since, _)| since.elapsed() < MIRROR_REST).map(|(_, why)| why.clone())
    }
}

fn make(trust: &Trust, silence: Duration) -> Result<Client, reqwest::Error> {
    // Whoever was first in the process decides; all of berth says ring.
    drop(rustls::crypto::ring::default_provider().install_default());
    let policy = redirect::Policy::custom(|attempt| {
        let was_secure = attempt.previous().iter().any(|url| url.scheme() == "https");
        match attempt.previous().len() {
            REDIRECTS_MAX.. => attempt.error("too many redirects"),
            _ if was_secure && attempt.url().scheme() != "https" => attempt.error("a redirect from HTTPS to HTTP"),
            _ => attempt.follow(),
        }
    });
    // Silence has a limit and the whole has none: a large blob on a slow line is no failure.
    let mut builder = Client::builder()
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(trust.connect_timeout)
        .read_timeout(silence)
        .redirect(policy)
        .tls_danger_accept_invalid_certs(trust.certificate == Check::Skipped);
    for authority in &trust.authorities {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(authority)?);
    }
    if !trust.identity.is_empty() {
        builder = builder.identity(Identity::from_pem(&trust.identity)?);
    }
    builder.build()
}
