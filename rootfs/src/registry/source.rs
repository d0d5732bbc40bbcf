//! One host that has a repository, the registry itself or a mirror of it: a request at a time.

use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use super::answer::{challenge_of, is_busy, range_of, wait_of, words_of};
use super::login::{Login, Next};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{ANSWER_BYTES_MAX, LOGINS_MAX, MIRROR_ANSWER_TIMEOUT, RETRIES_MAX, RETRY_WAIT};

#[derive(Debug)]
pub(super) struct Source {
    pub(super) client: Client,
    /// How messages call it: the registry as the image's name has it, or the mirror's host.
    pub(super) name: String,
    /// Scheme, host and path, up to the repository.
    pub(super) base: String,
    pub(super) repository: String,
    /// The registry that a mirror is asked about: it may have several.
    pub(super) namespace: Option<String>,
    pub(super) kind: Kind,
    /// Whether it knows tags.
    pub(super) resolves: bool,
    /// Whether it has content by digest.
    pub(super) pulls: bool,
    pub(super) headers: HeaderMap,
    pub(super) login: Login,
}

/// How much is hoped for from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There are others: it is asked once and not waited for.
    Mirror,
    /// Asked last, and again while it is busy.
    Registry,
}

/// A blob on its way.
pub(super) struct Blob {
    pub(super) response: Response,
    /// Where its first byte belongs.
    pub(super) at: u64,
}

impl Source {
    pub(super) fn is_secure(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// A whole small document and what the source calls it, not verified yet.
    pub(super) async fn whole(
        &self,
        rest: &str,
        what: &str,
        headers: &[(HeaderName, HeaderValue)],
        bytes_max: u64,
    ) -> Result<(Vec<u8>, Option<String>), Error> {
        let mut tries = 0;
        loop {
            let response = self.get(rest, what, headers).await?;
            let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.map(str::to_owned);
            match self.body(response, what, bytes_max).await {
                Ok(body) => return Ok((body, content_type)),
                Err(Error::Unreachable { .. }) if tries < self.retries() => tokio::time::sleep(pause(tries)).await,
                Err(error) => return Err(error),
            }
            tries += 1;
        }
    }

    /// A blob of `size` bytes as it comes, from byte `from` on if the source can.
    pub(super) async fn blob(&self, digest: &Digest, from: u64, size: u64) -> Result<Blob, Error> {
        let (rest, what) = (format!("blobs/{digest}"), format!("blob {digest}"));
        let mut whole = None;
        if from > 0 {
            let range =
                HeaderValue::from_str(&format!("bytes={from}-")).unwrap_or(HeaderValue::from_static("bytes=0-"));
            match self.get(&rest, &what, &[(RANGE, range)]).await {
                Ok(response) if response.status() == StatusCode::PARTIAL_CONTENT => {
                    let range = response.headers().get(CONTENT_RANGE).and_then(|value| range_of(value.to_str().ok()?));
                    if range == Some((from, Some(size))) || range == Some((from, None)) {
                        return Ok(Blob { response, at: from });
                    }
                }
                Ok(response) => whole = Some(response),
                Err(Error::Registry { status: 416, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // One that has no ranges, or other ones than it was asked for, begins at the start.
        let response = match whole {
            Some(response) => response,
            None => self.get(&rest, &what, &[]).await?,
        };
        match response.content_length().filter(|length| *length != size) {
            Some(length) => Err(Error::Mismatch {
                what: format!("{what} from {}", self.name),
                expected: format!("{size} bytes"),
                got: format!("{length} bytes"),
            }),
            None => Ok(Blob { response, at: 0 }),
        }
    }

    /// One GET, with the proof that the source wants.
    async fn get(&self, rest: &str, what: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Response, Error> {
        let query = self.namespace.iter().map(|registry| format!("?ns={registry}")).collect::<String>();
        let url = format!("{}/{}/{rest}{query}", self.base, self.repository);
        // More than there are credentials only if tokens run out meanwhile.
        for _ in 0..=LOGINS_MAX {
            let (proof, number) = self.login.proof().await;
            let request = |client: &Client| {
                let request = client.get(&url).headers(self.headers.clone());
                proof.of(headers.iter().fold(request, |request, (key, value)| request.header(key, value)))
            };
            let response = self.ask(request).await?;
            match response.status() {
                status if status.is_success() => {
                    self.login.was_accepted(number).await;
                    return Ok(response);
                }
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    match self.login.next(self, number, status, challenge_of(response.headers())).await? {
                        Next::Again => {}
                        Next::GiveUp => return Err(self.complaint(response, what).await),
                    }
                }
                _ => return Err(self.complaint(response, what).await),
            }
        }
        Err(self.refused("it asks for other credentials without end".to_owned()))
    }

    /// One request, repeated while the source is busy or breaks off.
    pub(super) async fn ask(&self, request: impl Fn(&Client) -> RequestBuilder) -> Result<Response, Error> {
        let mut tries = 0;
        loop {
            let sent = request(&self.client).send();
            let answer = match self.kind {
                Kind::Registry => sent.await,
                Kind::Mirror => match tokio::time::timeout(MIRROR_ANSWER_TIMEOUT, sent).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        let why = format!("it was silent for {} s", MIRROR_ANSWER_TIMEOUT.as_secs());
                        return Err(self.unreachable(why));
                    }
                },
            };
            let wait = match answer {
                Ok(response) if is_busy(response.status()) && tries < self.retries() => {
                    wait_of(response.headers(), jiff::Timestamp::now()).unwrap_or_else(|| pause(tries))
                }
                Ok(response) => return Ok(response),
                Err(error) if broke_off(&error) && tries < self.retries() => pause(tries),
                Err(error) => return Err(self.unreachable(error)),
            };
            tracing::debug!(source = self.name, ?wait, "busy: asking again");
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    fn retries(&self) -> u32 {
        match self.kind {
            Kind::Mirror => 0,
            Kind::Registry => RETRIES_MAX,
        }
    }

    pub(super) async fn body(&self, mut response: Response, what: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > bytes_max {
                return Err(Error::manifest(what, format!("it is larger than {bytes_max} bytes")));
            }
        }
        Ok(body)
    }

    /// The error that a refusal is, in the source's own words.
    pub(super) async fn complaint(&self, response: Response, what: &str) -> Error {
        let status = response.status();
        let (registry, what) = (self.name.clone(), what.to_owned());
        let body = self.body(response, &what, ANSWER_BYTES_MAX).await.unwrap_or_default();
        let message = words_of(&body, status);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.refused(message),
            StatusCode::NOT_FOUND => Error::NotInRegistry { registry, what },
            _ => Error::Registry { registry, status: status.as_u16(), what, message },
        }
    }

    pub(super) fn refused(&self, message: String) -> Error {
        let message = format!("{message} ({})", self.login.shown());
        Error::Unauthorized { registry: self.name.clone(), repository: self.repository.clone(), message }
    }

    pub(super) fn unreachable(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Unreachable { registry: self.name.clone(), source: error.into() }
    }
}

/// The wait before a repetition, when nobody says how long.
pub(super) fn pause(before: u32) -> Duration {
    RETRY_WAIT * 2u32.saturating_pow(before)
}

/// Whether a connection that there was ended before the answer. One that there never was is told at once, as silence is,
/// which was waited for long enough.
fn broke_off(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}
