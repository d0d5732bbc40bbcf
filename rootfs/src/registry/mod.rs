//! A registry by HTTP (OCI distribution spec 1.1): manifests and blobs of one repository, with whatever proof it asks for.
//!
//! Written on `reqwest` directly: every answer has a limit, credentials go to the host that they are for and never from
//! HTTPS to HTTP, and a blob can go on where it was interrupted.

mod challenge;
mod transfer;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde::Deserialize;
use tokio::sync::Mutex;

use self::challenge::Challenge;
pub(crate) use self::transfer::{incoming, send_blob};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{
    ANSWER_BYTES_MAX, CONNECT_TIMEOUT, MANIFEST_BYTES_MAX, RETRIES_MAX, RETRY_WAIT, RETRY_WAIT_MAX, SILENCE_TIMEOUT,
};
use crate::manifest::ACCEPTED;
use crate::reference::Reference;
use crate::store::Shared;
use crate::{Auth, RegistryConfig};

/// Letters of a registry's own words in our message.
const MESSAGE_LETTERS_MAX: usize = 300;
const REDIRECTS_MAX: usize = 10;

/// One repository, asked by one user.
#[derive(Debug)]
pub(crate) struct Repository {
    client: Client,
    /// As the image's name has it.
    registry: String,
    /// Scheme and host.
    base: String,
    path: String,
    auth: Option<Auth>,
    proof: Mutex<Proof>,
}

/// What goes with each request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    None,
    Basic,
    Token(String),
}

/// A token server's answer; servers use either name.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// A registry's words about an error.
#[derive(Deserialize)]
struct Complaints {
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Repository {
    /// Prepares to ask for `reference`; the registry is first spoken to with the first request.
    pub(crate) async fn of(store: &Shared, reference: &Reference, auth: Option<Auth>) -> Result<Self, Error> {
        let client = client(store).map_err(|source| unreachable(reference.registry(), source))?;
        // The hub's web site and its registry have different hosts.
        let host = match reference.registry() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let scheme = scheme(&client, host, &store.registries).await;
        Ok(Self {
            client,
            registry: reference.registry().to_owned(),
            base: format!("{scheme}://{host}"),
            path: reference.repository().to_owned(),
            auth,
            proof: Mutex::new(Proof::None),
        })
    }

    /// A manifest or index, by tag or digest, and what the registry calls it.
    pub(crate) async fn manifest(&self, name: &str) -> Result<(Vec<u8>, Option<String>), Error> {
        let what = format!("manifest {}:{name}", self.path);
        let accepted = HeaderValue::from_str(&ACCEPTED.join(", ")).unwrap_or(HeaderValue::from_static("*/*"));
        let response = self.get(&format!("manifests/{name}"), &what, &[(ACCEPT, accepted)]).await?;
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((self.body(response, &what, MANIFEST_BYTES_MAX).await?, content_type))
    }

    /// A whole small blob, not verified yet.
    pub(crate) async fn small_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let what = format!("blob {digest}");
        let response = self.get(&format!("blobs/{digest}"), &what, &[]).await?;
        self.body(response, &what, bytes_max).await
    }

    /// A blob as it comes, if the registry can from byte `from` on; its status tells.
    async fn blob(&self, digest: &Digest, from: u64) -> Result<Response, Error> {
        let range = HeaderValue::from_str(&format!("bytes={from}-")).ok().filter(|_| from > 0);
        let headers: Vec<_> = range.map(|range| (RANGE, range)).into_iter().collect();
        self.get(&format!("blobs/{digest}"), &format!("blob {digest}"), &headers).await
    }

    /// One GET, with the proof that the registry wants, repeated while it is busy.
    async fn get(
        &self,
        rest: &str,
        what: &str,
        headers: &[(reqwest::header::HeaderName, HeaderValue)],
    ) -> Result<Response, Error> {
        let url = format!("{}/v2/{}/{rest}", self.base, self.path);
        let (mut busy, mut asked) = (0, false);
        loop {
            let proof = self.proof.lock().await.clone();
            let request =
                headers.iter().fold(self.client.get(&url), |request, (key, value)| request.header(key, value));
            let response =
                self.proven(request, &proof).send().await.map_err(|error| unreachable(&self.registry, error))?;
            match response.status() {
                status if status.is_success() => return Ok(response),
                StatusCode::UNAUTHORIZED if !asked => {
                    asked = true;
                    let challenge = challenge_of(response.headers());
                    let Some(challenge) = challenge else { return Err(self.complaint(response, what).await) };
                    self.prove(challenge, &proof, response).await?;
                }
                status if is_busy(status) && busy < RETRIES_MAX => {
                    tokio::time::sleep(wait_of(response.headers(), busy)).await;
                    busy += 1;
                }
                _ => return Err(self.complaint(response, what).await),
            }
        }
    }

    fn proven(&self, request: RequestBuilder, proof: &Proof) -> RequestBuilder {
        match (proof, &self.auth) {
            (Proof::Token(token), _) => request.bearer_auth(token),
            (Proof::Basic, Some(auth)) => request.basic_auth(&auth.username, Some(&auth.password)),
            _ => request,
        }
    }

    /// Gets the proof that a challenge asks for, unless another request just did.
    async fn prove(&self, challenge: Challenge, used: &Proof, refusal: Response) -> Result<(), Error> {
        let mut proof = self.proof.lock().await;
        if *proof != *used {
            return Ok(());
        }
        *proof = match challenge {
            Challenge::Basic if self.auth.is_some() && *used != Proof::Basic => Proof::Basic,
            Challenge::Basic => return Err(self.complaint(refusal, "a request").await),
            Challenge::Bearer { realm, service, scope } => Proof::Token(self.token(&realm, service, scope).await?),
        };
        Ok(())
    }

    async fn token(&self, realm: &str, service: Option<String>, scope: Option<String>) -> Result<String, Error> {
        let refused = |message: String| Error::Unauthorized {
            registry: self.registry.clone(),
            repository: self.path.clone(),
            message,
        };
        let mut url =
            reqwest::Url::parse(realm).map_err(|error| refused(format!("its token server {realm:?}: {error}")))?;
        // A password must not leave the protection that its registry has.
        if self.auth.is_some() && self.base.starts_with("https:") && url.scheme() != "https" {
            return Err(refused(format!("its token server {realm} has no HTTPS, which the password needs")));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.path));
        let query = [("service", service), ("scope", Some(scope))];
        url.query_pairs_mut().extend_pairs(query.into_iter().filter_map(|(key, value)| Some((key, value?))));
        let mut request = self.client.get(url);
        if let Some(auth) = &self.auth {
            request = request.basic_auth(&auth.username, Some(&auth.password));
        }
        let response = request.send().await.map_err(|error| unreachable(&self.registry, error))?;
        if !response.status().is_success() {
            return Err(self.complaint(response, "a token").await);
        }
        let body = self.body(response, "token", ANSWER_BYTES_MAX).await?;
        let token: Token = serde_json::from_slice(&body).map_err(|error| refused(format!("its token: {error}")))?;
        token.token.or(token.access_token).ok_or_else(|| refused("its token server gave no token".to_owned()))
    }

    async fn body(&self, mut response: Response, what: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&self.registry, error))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > bytes_max {
                return Err(Error::manifest(what, format!("it is larger than {bytes_max} bytes")));
            }
        }
        Ok(body)
    }

    /// The error that a refusal is, in the registry's own words.
    async fn complaint(&self, response: Response, what: &str) -> Error {
        let status = response.status();
        let (registry, what) = (self.registry.clone(), what.to_owned());
        let body = self.body(response, &what, ANSWER_BYTES_MAX).await.unwrap_or_default();
        let message = words_of(&body, status);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::Unauthorized { registry, repository: self.path.clone(), message }
            }
            StatusCode::NOT_FOUND => Error::NotInRegistry { registry, what },
            _ => Error::Registry { registry, status: status.as_u16(), what, message },
        }
    }
}

fn unreachable(registry: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unreachable { registry: registry.to_owned(), source: error.into() }
}

/// The client of a store, made when it is first needed.
fn client(store: &Shared) -> Result<Client, reqwest::Error> {
    if let Some(client) = store.client.get() {
        return Ok(client.clone());
    }
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
    let client = Client::builder()
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .redirect(policy)
        .build()?;
    Ok(store.client.get_or_init(|| client).clone())
}

/// HTTP for registries that are known to have nothing else, and for one of this machine that does not speak HTTPS.
async fn scheme(client: &Client, host: &str, config: &RegistryConfig) -> &'static str {
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

fn challenge_of(headers: &HeaderMap) -> Option<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).find_map(challenge::parse)
}

fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// How long to wait: as long as the registry says, or twice as long each time.
fn wait_of(headers: &HeaderMap, before: u32) -> Duration {
    let told = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    told.unwrap_or(RETRY_WAIT * 2u32.saturating_pow(before)).min(RETRY_WAIT_MAX)
}

fn words_of(body: &[u8], status: StatusCode) -> String {
    let words = match serde_json::from_slice::<Complaints>(body) {
        Ok(complaints) => {
            let words = complaints.errors.into_iter().map(|one| match one.message.is_empty() {
                true => one.code,
                false => one.message,
            });
            words.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    match words.is_empty() {
        true => status.canonical_reason().unwrap_or("no reason given").to_lowercase(),
        false => words.chars().filter(|letter| !letter.is_control()).take(MESSAGE_LETTERS_MAX).collect(),
    }
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

    #[test]
    fn waits_are_told_or_grow_and_end() {
        let mut headers = HeaderMap::new();
        assert!(wait_of(&headers, 1) > wait_of(&headers, 0));
        assert_eq!(wait_of(&headers, 31), RETRY_WAIT_MAX);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        assert_eq!(wait_of(&headers, 0), Duration::from_secs(2));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("999999"));
        assert_eq!(wait_of(&headers, 0), RETRY_WAIT_MAX);
    }

    #[test]
    fn a_registry_is_quoted_with_measure() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no \u0007access"},{"code":"X"}]}"#;
        assert_eq!(words_of(body, StatusCode::FORBIDDEN), "no access; X");
        assert_eq!(words_of(b"", StatusCode::FORBIDDEN), "forbidden");
        assert_eq!(words_of(&[b'a'; 999], StatusCode::FORBIDDEN).len(), MESSAGE_LETTERS_MAX);
    }
}
