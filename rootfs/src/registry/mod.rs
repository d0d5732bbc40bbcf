//! A registry by HTTP (OCI distribution spec 1.1): manifests and blobs of one repository, from its mirrors or itself.
//!
//! | room | what it does |
//! |---|---|
//! | `hosts` | where to ask: containerd's `hosts.toml` |
//! | `source` | one host, a request at a time, repeated with patience |
//! | `login`, `challenge` | what a host wants to know before it answers |
//! | `answer` | what answers say beside their content; pure |
//! | `transfer` | a blob as a stream, resumed where it was interrupted |
//! | `transport` | clients and silent mirrors, from one pull to the next |
//!
//! Written on `reqwest` directly. `oci-client` has the requests, but one registry for each image's name where we have a
//! list to go through, nothing between one user and none, and bodies that are read without a limit; with what stands
//! above around it, only the URLs would be left to it.

mod answer;
mod challenge;
mod hosts;
mod login;
mod source;
mod transfer;
mod transport;

use std::net::{IpAddr, Ipv4Addr};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Client;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};

use self::hosts::Endpoint;
use self::login::Login;
use self::source::{Kind, Source};
pub(crate) use self::transfer::{Served, incoming, send_blob};
pub(crate) use self::transport::Transport;
use crate::digest::Digest;
use crate::error::{Error, told};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::manifest::ACCEPTED;
use crate::reference::Reference;
use crate::store::Shared;
use crate::{Keyring, RegistryConfig};

/// One repository, asked by one user.
#[derive(Debug)]
pub(crate) struct Repository {
    transport: Arc<Transport>,
    /// As the image's name has it.
    registry: String,
    path: String,
    /// In the order in which they are asked, the registry itself last.
    sources: Vec<Source>,
    /// Whether a mirror gave something else than it was asked for: none is asked any more.
    is_distrusting: AtomicBool,
}

/// What a source has to know to be asked.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// What a tag means.
    Tag,
    /// Content by its digest.
    Content,
}

impl Repository {
    /// Prepares to ask for `reference`; a registry is first spoken to with the first request.
    pub(crate) async fn of(store: &Shared, reference: &Reference, keyring: Keyring) -> Result<Self, Error> {
        let registry = reference.registry();
        let found = hosts::load(store.registries.config_dir.as_deref(), registry).await?;
        let mirrors = found.mirrors.into_iter().map(|mirror| (Kind::Mirror, mirror));
        let mut sources = Vec::new();
        for (kind, endpoint) in mirrors.chain([(Kind::Registry, found.server)]) {
            sources.push(source(store, reference, &keyring, kind, endpoint).await?);
        }
        Ok(Self {
            transport: Arc::clone(&store.transport),
            registry: registry.to_owned(),
            path: reference.repository().to_owned(),
            sources,
            is_distrusting: AtomicBool::new(false),
        })
    }

    /// A manifest or index, by tag or digest, and what `read` makes of it and of what the source calls it. What cannot be
    /// read is asked for elsewhere.
    pub(crate) async fn manifest<T>(
        &self,
        name: &str,
        read: impl Fn(&[u8], Option<&str>) -> Result<T, Error>,
    ) -> Result<(Vec<u8>, T), Error> {
        // A tag has no colon, and a digest has one.
        let (need, joint) = if name.contains(':') { (Need::Content, '@') } else { (Need::Tag, ':') };
        let accepted = HeaderValue::from_str(&ACCEPTED.join(", ")).unwrap_or(HeaderValue::from_static("*/*"));
        let (rest, what) = (format!("manifests/{name}"), format!("manifest {}{joint}{name}", self.path));
        self.small(need, &rest, &what, &[(ACCEPT, accepted)], MANIFEST_BYTES_MAX, read).await
    }

    /// A whole small blob that `check` finds good.
    pub(crate) async fn small_blob(
        &self,
        digest: &Digest,
        bytes_max: u64,
        check: impl Fn(&[u8]) -> Result<(), Error>,
    ) -> Result<Vec<u8>, Error> {
        let (rest, what) = (format!("blobs/{digest}"), format!("blob {digest}"));
        let read = |bytes: &[u8], _: Option<&str>| check(bytes);
        let (bytes, ()) = self.small(Need::Content, &rest, &what, &[], bytes_max, read).await?;
        Ok(bytes)
    }

    async fn small<T>(
        &self,
        need: Need,
        rest: &str,
        what: &str,
        headers: &[(HeaderName, HeaderValue)],
        bytes_max: u64,
        read: impl Fn(&[u8], Option<&str>) -> Result<T, Error>,
    ) -> Result<(Vec<u8>, T), Error> {
        let mut walk = self.walk(need);
        while let Some(source) = walk.next() {
            match source.whole(rest, what, headers, bytes_max).await {
                Ok((bytes, content_type)) => match read(&bytes, content_type.as_deref()) {
                    Ok(made) => return Ok((bytes, made)),
                    Err(error) => walk.failed(source, error),
                },
                Err(error) => walk.failed(source, error),
            }
        }
        Err(walk.error())
    }

    /// To be told when what a mirror gave was something else: from now on only the registry itself is asked.
    pub(crate) fn distrust_mirrors(&self) {
        self.is_distrusting.store(true, Ordering::Relaxed);
    }

    fn walk(&self, need: Need) -> Walk<'_> {
        Walk { repository: self, need, rest: self.sources.iter(), failures: Vec::new() }
    }
}

/// The way from one source to the next, until one has what is wanted.
struct Walk<'r> {
    repository: &'r Repository,
    need: Need,
    rest: slice::Iter<'r, Source>,
    failures: Vec<Error>,
}

impl<'r> Walk<'r> {
    fn next(&mut self) -> Option<&'r Source> {
        for source in self.rest.by_ref() {
            let knows = match self.need {
                Need::Tag => source.resolves,
                Need::Content => source.pulls,
            };
            let is_mirror = source.kind == Kind::Mirror;
            if !knows || (is_mirror && self.repository.is_distrusting.load(Ordering::Relaxed)) {
                continue;
            }
            match self.repository.transport.silence(&source.base).filter(|_| is_mirror) {
                Some(why) => self.failures.push(source.unreachable(format!("not asked again so soon: {why}"))),
                None => return Some(source),
            }
        }
        None
    }

    fn failed(&mut self, source: &'r Source, error: Error) {
        if source.kind == Kind::Mirror {
            tracing::warn!(mirror = source.base, error = told(&error), "a mirror could not help");
            if let Error::Unreachable { source: why, .. } = &error {
                self.repository.transport.note_silence(&source.base, told(&**why));
            }
        }
        self.failures.push(error);
    }

    /// What to say when nobody had it.
    fn error(mut self) -> Error {
        let registry = self.repository.registry.clone();
        let Some(last) = self.failures.pop() else {
            let why = "its hosts.toml lets no host be asked: see the capabilities there";
            return Error::Unreachable { registry, source: why.into() };
        };
        if self.failures.is_empty() {
            return last;
        }
        let mirrors: Vec<_> = self.failures.iter().map(|error| told(error)).collect();
        Error::Mirrors { registry, mirrors: mirrors.join("; "), source: Box::new(last) }
    }
}

async fn source(
    store: &Shared,
    reference: &Reference,
    keyring: &Keyring,
    kind: Kind,
    endpoint: Endpoint,
) -> Result<Source, Error> {
    let registry = reference.registry();
    let is_itself = endpoint.is(registry);
    let name = if is_itself { registry } else { &endpoint.host };
    let unreachable = |source: reqwest::Error| Error::Unreachable { registry: name.to_owned(), source: source.into() };
    let client = store.transport.client(&endpoint.trust).map_err(unreachable)?;
    let scheme = match &endpoint.scheme {
        Some(scheme) => scheme,
        None => scheme_of(&client, &endpoint.host, &store.registries).await,
    };
    Ok(Source {
        client,
        base: format!("{scheme}://{}{}", endpoint.host, endpoint.path),
        repository: reference.repository().to_owned(),
        namespace: Some(registry.to_owned()).filter(|_| !is_itself),
        kind,
        resolves: endpoint.resolves,
        pulls: endpoint.pulls,
        // Credentials are for the host that they name, a mirror's own too, and never for another in its place.
        login: Login::new(keyring.clone(), name, reference.repository()),
        name: name.to_owned(),
        headers: endpoint.headers,
    })
}

/// HTTP for registries that are known to have nothing else, and for one of this machine that does not speak HTTPS.
async fn scheme_of(client: &Client, host: &str, config: &RegistryConfig) -> &'static str {
    if config.insecure.iter().any(|known| known == host) {
        return "http";
    }
    if !is_loopback(host) {
        return "https";
    }
    match client.get(format!("https://{host}/v2/")).send().await {
        Err(error) if error.is_connect() && !is_distrust(&error) => "http",
        _ => "https",
    }
}

/// Whether a registry does speak HTTPS and only its certificate is no good: plain HTTP is no way around that.
fn is_distrust(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An I/O error passes over what it wraps when it is asked for its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    name == "localhost" || address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_known() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1:5000", "[fe80::1]:5000", "docker.io", "127.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
