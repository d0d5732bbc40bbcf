//! How one host is persuaded to let us read one repository: what it asks for is found, tried, and replaced when it no
//! longer does.

use std::collections::VecDeque;
use std::sync::OnceLock;

use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::source::Source;
use crate::error::Error;
use crate::limits::{ANSWER_BYTES_MAX, LOGINS_MAX};
use crate::{Auth, Keyring};

/// Who we are to token servers (OAuth 2, RFC 6749).
const CLIENT_ID: &str = "berth";

#[derive(Debug)]
pub(super) struct Login {
    keyring: Keyring,
    /// The host that credentials are looked up for; the hub's is not the one that is asked.
    host: String,
    repository: String,
    /// How many credentials there are, once the host has asked.
    known: OnceLock<usize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    proof: Proof,
    /// Which proof this is: tells whether another request got a new one meanwhile.
    number: u64,
    /// Whether it has been accepted.
    good: bool,
    /// What the proof was made of; of nothing for an anonymous token.
    auth: Option<Auth>,
    /// What else could be tried; unknown until the host asks.
    untried: Option<VecDeque<Option<Auth>>>,
    challenge: Option<Challenge>,
}

/// What goes with each request.
#[derive(Debug, Clone, Default)]
pub(super) enum Proof {
    #[default]
    None,
    Basic(String, String),
    Token(String),
}

impl Proof {
    pub(super) fn of(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Basic(username, password) => request.basic_auth(username, Some(password)),
            Self::Token(token) => request.bearer_auth(token),
        }
    }
}

/// What is to be done after a refusal.
pub(super) enum Next {
    /// Ask again, with the proof that there is now.
    Again,
    /// All has been tried.
    GiveUp,
}

/// A token server's answer; servers use either name.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Login {
    pub(super) fn new(keyring: Keyring, host: &str, repository: &str) -> Self {
        let (host, repository) = (host.to_owned(), repository.to_owned());
        Self { keyring, host, repository, known: OnceLock::new(), state: Mutex::default() }
    }

    /// What the host could be shown, for whoever is refused.
    pub(super) fn shown(&self) -> String {
        match self.known.get() {
            None | Some(0) => format!("there are no credentials for {}", self.host),
            Some(count) => format!("credentials for {}: {count}", self.host),
        }
    }

    /// The proof for the next request, and its number.
    pub(super) async fn proof(&self) -> (Proof, u64) {
        let state = self.state.lock().await;
        (state.proof.clone(), state.number)
    }

    pub(super) async fn was_accepted(&self, number: u64) {
        let mut state = self.state.lock().await;
        state.good |= state.number == number;
    }

    /// Makes another proof after the one of that number was refused: a new token where the old one ran out, or with the
    /// next credentials. Other requests wait meanwhile and use it too.
    pub(super) async fn next(
        &self,
        source: &Source,
        number: u64,
        status: StatusCode,
        challenge: Option<Challenge>,
    ) -> Result<Next, Error> {
        let mut state = self.state.lock().await;
        if state.number != number {
            return Ok(Next::Again);
        }
        let Some(challenge) = challenge.or(state.challenge.take()) else { return Ok(Next::GiveUp) };
        state.challenge = Some(challenge.clone());
        if state.untried.is_none() {
            state.untried = Some(self.candidates().await?);
        }
        if state.good && status == StatusCode::UNAUTHORIZED {
            let again = state.auth.clone();
            state.untried.get_or_insert_default().push_front(again);
        }
        let mut refusal = None;
        while let Some(auth) = state.untried.as_mut().and_then(VecDeque::pop_front) {
            match self.prove(source, auth.as_ref(), &challenge).await {
                Ok(Some(proof)) => {
                    (state.proof, state.auth, state.good) = (proof, auth, false);
                    state.number += 1;
                    return Ok(Next::Again);
                }
                Ok(None) => {}
                Err(error @ Error::Unauthorized { .. }) => refusal = Some(error),
                Err(error) => {
                    // It was not refused: the next request may try it again.
                    state.untried.get_or_insert_default().push_front(auth);
                    return Err(error);
                }
            }
        }
        refusal.map_or(Ok(Next::GiveUp), Err)
    }

    /// The credentials for this repository; without any, nobody's.
    async fn candidates(&self) -> Result<VecDeque<Option<Auth>>, Error> {
        let found = self.keyring.find(&self.host, &self.repository).await;
        let found = found.map_err(|source| Error::Credentials { registry: self.host.clone(), source })?;
        self.known.get_or_init(|| found.len());
        match found.is_empty() {
            true => Ok(VecDeque::from([None])),
            false => Ok(found.into_iter().map(Some).take(LOGINS_MAX).collect()),
        }
    }

    /// What answers a challenge; `None` if these credentials cannot.
    async fn prove(&self, source: &Source, auth: Option<&Auth>, challenge: &Challenge) -> Result<Option<Proof>, Error> {
        match (auth, challenge) {
            (Some(Auth::Registry { token }), _) => Ok(Some(Proof::Token(token.clone()))),
            (Some(Auth::Password { username, password }), Challenge::Basic) => {
                Ok(Some(Proof::Basic(username.clone(), password.clone())))
            }
            (None | Some(Auth::Identity { .. }), Challenge::Basic) => Ok(None),
            (auth, Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                let server = TokenServer { source, url: self.token_url(source, auth, realm)?, service, scope };
                Ok(Some(Proof::Token(server.token(auth).await?)))
            }
        }
    }

    fn token_url(&self, source: &Source, auth: Option<&Auth>, realm: &str) -> Result<Url, Error> {
        let refused = |why: String| source.refused(format!("its token server {realm:?}: {why}"));
        let url = Url::parse(realm).map_err(|error| refused(error.to_string()))?;
        // A password must not leave the protection that its registry has.
        match auth.is_some() && source.is_secure() && url.scheme() != "https" {
            true => Err(refused("it has no HTTPS, which the credentials need".to_owned())),
            false => Ok(url),
        }
    }
}

/// Where tokens come from, and for what.
struct TokenServer<'a> {
    source: &'a Source,
    url: Url,
    service: &'a Option<String>,
    scope: String,
}

impl TokenServer<'_> {
    async fn token(&self, auth: Option<&Auth>) -> Result<String, Error> {
        let response = match auth {
            Some(Auth::Identity { username, token }) => {
                let response = self.refresh(token).await?;
                match response.status() {
                    // Not every server knows OAuth 2; to the others the token is a password.
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNAUTHORIZED => {
                        self.get(Some((username, token))).await?
                    }
                    _ => response,
                }
            }
            Some(Auth::Password { username, password }) => self.get(Some((username, password))).await?,
            Some(Auth::Registry { .. }) | None => self.get(None).await?,
        };
        self.read(response).await
    }

    /// OAuth 2: the identity token for one that is good for a while.
    async fn refresh(&self, token: &str) -> Result<Response, Error> {
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", CLIENT_ID),
            ("scope", &self.scope),
        ];
        form.extend(self.service.as_deref().map(|service| ("service", service)));
        self.source.ask(|client| client.post(self.url.clone()).form(&form)).await
    }

    async fn get(&self, credentials: Option<(&String, &String)>) -> Result<Response, Error> {
        let mut url = self.url.clone();
        let service = self.service.as_deref().map(|service| ("service", service));
        url.query_pairs_mut().extend_pairs(service.into_iter().chain([("scope", &*self.scope)]));
        let ask = |client: &reqwest::Client| match credentials {
            Some((username, password)) => client.get(url.clone()).basic_auth(username, Some(password)),
            None => client.get(url.clone()),
        };
        self.source.ask(ask).await
    }

    async fn read(&self, response: Response) -> Result<String, Error> {
        let what = format!("a token from {}", self.url.origin().ascii_serialization());
        match response.status() {
            status if status.is_success() => {}
            // How OAuth 2 says that an identity token is no good any more (RFC 6749, section 5.2).
            StatusCode::BAD_REQUEST => {
                return Err(self.source.refused(format!("{what}: the identity token is not accepted")));
            }
            _ => return Err(self.source.complaint(response, &what).await),
        }
        let body = self.source.body(response, &what, ANSWER_BYTES_MAX).await?;
        // The answer is a secret, of which serde's own words could quote a part.
        let token = serde_json::from_slice::<Token>(&body).ok().and_then(|token| token.token.or(token.access_token));
        token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| self.source.refused(format!("{what}: there is none in the answer")))
    }
}
