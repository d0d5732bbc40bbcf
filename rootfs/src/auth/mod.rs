//! Credentials: what users and clusters keep for registries, and which of it is for whom.
//!
//! | room | what it does |
//! |---|---|
//! | `docker` | docker's `config.json` and Kubernetes' pull secrets: bytes in, checked values out; pure |
//! | `pattern` | which registries and repositories an entry is for; pure |
//! | `helper` | asks a `docker-credential-…` program |

mod docker;
mod helper;
mod pattern;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use self::docker::Helpers;
use self::pattern::Pattern;
use crate::limits::KEYRING_BYTES_MAX;
use crate::reference::{DEFAULT_REGISTRY, Reference};

/// What a registry is shown to be let in.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// A user's name and password.
    Password {
        /// The user's name.
        username: String,
        /// The password.
        password: String,
    },
    /// A long-lived token that the registry's token server changes for short-lived ones: OAuth 2's refresh token.
    Identity {
        /// The user's name, if it is known; token servers that know no OAuth 2 take the token for its password.
        username: String,
        /// The token.
        token: String,
    },
    /// A token that the registry takes as it is.
    Registry {
        /// The token.
        token: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password must not come into a log.
        match self {
            Self::Password { username, .. } => {
                out.debug_struct("Password").field("username", username).finish_non_exhaustive()
            }
            Self::Identity { username, .. } => {
                out.debug_struct("Identity").field("username", username).finish_non_exhaustive()
            }
            Self::Registry { .. } => out.debug_struct("Registry").finish_non_exhaustive(),
        }
    }
}

/// Why credentials could not be read or got. No message has a secret in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file of credentials is no good.
    #[error("cannot use the credentials in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<CredentialsError>,
    },
    /// It could not be read.
    #[error("cannot read it")]
    Read {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than anybody's credentials.
    #[error("it is larger than {max} bytes")]
    Size {
        /// The limit.
        max: u64,
    },
    /// It is no JSON.
    #[error("it is no JSON")]
    Json {
        /// Where not.
        #[source]
        source: serde_json::Error,
    },
    /// A field of it makes no sense.
    #[error("field {field}: {why}")]
    Field {
        /// Its path.
        field: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A credential helper could not be started or did not do its work.
    #[error("{program}: {why}")]
    Helper {
        /// The program.
        program: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Credentials by registry and repository, and the helpers to be asked for more. The empty one lets nobody in anywhere
/// but where everybody is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    /// The most particular first.
    entries: Vec<Entry>,
    helpers: Helpers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    pattern: Pattern,
    auth: Auth,
}

impl Keyring {
    /// Credentials for the registry of `reference` and for no other.
    pub fn of(reference: &Reference, auth: Auth) -> Self {
        let pattern = Pattern::parse(reference.registry());
        Self { entries: vec![Entry { pattern, auth }], helpers: Helpers::default() }
    }

    /// Reads docker's `config.json`, with the helpers that it names.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let read = || {
            let mut text = Vec::new();
            let file = std::fs::File::open(path).map_err(|source| CredentialsError::Read { source })?;
            file.take(KEYRING_BYTES_MAX + 1)
                .read_to_end(&mut text)
                .map_err(|source| CredentialsError::Read { source })?;
            let (entries, helpers) = docker::parse_config(&text)?;
            Ok(Self { entries, helpers }.sorted())
        };
        read().map_err(|source| CredentialsError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Reads the value of a `kubernetes.io/dockerconfigjson` secret. Helpers in it are passed over: whoever may write a
    /// secret may not run programs on a node.
    pub fn of_docker_config_json(text: &[u8]) -> Result<Self, CredentialsError> {
        let (entries, _) = docker::parse_config(text)?;
        Ok(Self { entries, helpers: Helpers::default() }.sorted())
    }

    /// Reads the value of a `kubernetes.io/dockercfg` secret: what is below `auths` in the newer format.
    pub fn of_docker_cfg(text: &[u8]) -> Result<Self, CredentialsError> {
        Ok(Self { entries: docker::parse_cfg(text)?, helpers: Helpers::default() }.sorted())
    }

    /// Adds what another has; where both fit equally well, this one's come first.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self.helpers.extend(other.helpers);
        self.sorted()
    }

    /// In the kubelet's order: backwards by host and path puts what is longer before what it continues, and a name
    /// before a star.
    fn sorted(mut self) -> Self {
        self.entries.sort_by(|one, other| other.pattern.cmp(&one.pattern));
        self
    }

    /// What to try for a repository at `host` (`host[:port]`), in order.
    pub(crate) async fn find(&self, host: &str, repository: &str) -> Result<Vec<Auth>, CredentialsError> {
        let mut found = Vec::new();
        if let Some(name) = self.helpers.of(host, repository) {
            found.extend(helper::ask(&format!("docker-credential-{name}"), server_of(host)).await?);
        }
        let fitting = self.entries.iter().filter(|entry| entry.pattern.fits(host, repository));
        found.extend(fitting.map(|entry| entry.auth.clone()));
        Ok(found)
    }
}

/// What docker calls a registry when it asks a helper.
fn server_of(host: &str) -> &str {
    match host {
        DEFAULT_REGISTRY => "https://index.docker.io/v1/",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(servers: &[&str]) -> Keyring {
        let entries = servers.iter().map(|server| ((*server).to_owned(), entry(server)));
        let config = serde_json::json!({ "auths": entries.collect::<serde_json::Map<_, _>>() });
        Keyring::of_docker_config_json(config.to_string().as_bytes()).unwrap()
    }

    fn entry(server: &str) -> serde_json::Value {
        serde_json::json!({ "username": server, "password": "secret" })
    }

    async fn users(keyring: &Keyring, host: &str, repository: &str) -> Vec<String> {
        let found = keyring.find(host, repository).await.unwrap();
        let user = |auth| match auth {
            Auth::Password { username, .. } => username,
            other => panic!("{other:?}"),
        };
        found.into_iter().map(user).collect()
    }

    #[tokio::test]
    async fn the_most_particular_credentials_come_first() {
        let keyring = config(&["r.io", "*.io", "r.io/team", "https://r.io/v1/team/app", "r.io:5000", "docker.io"]);
        assert_eq!(
            users(&keyring, "r.io", "team/app").await,
            ["https://r.io/v1/team/app", "r.io/team", "r.io", "*.io"]
        );
        assert_eq!(users(&keyring, "r.io", "other").await, ["r.io", "*.io"]);
        assert_eq!(users(&keyring, "q.io", "team/app").await, ["*.io"]);
        assert_eq!(users(&keyring, "r.io:5000", "team/app").await, ["r.io:5000"]);
        assert!(users(&keyring, "r.com", "team/app").await.is_empty());
    }

    #[tokio::test]
    async fn of_several_secrets_the_first_comes_first() {
        let secret = |user: &str| {
            let config = serde_json::json!({ "r.io": entry(user) });
            Keyring::of_docker_cfg(config.to_string().as_bytes()).unwrap()
        };
        let keyring = secret("one").and(secret("two")).and(config(&["r.io/app"]));
        assert_eq!(users(&keyring, "r.io", "app").await, ["r.io/app", "one", "two"]);
    }

    #[tokio::test]
    async fn a_secret_names_no_programs() {
        let config = br#"{"credsStore":"none","credHelpers":{"r.io":"none"},"auths":{}}"#;
        let keyring = Keyring::of_docker_config_json(config).unwrap();
        assert_eq!(keyring.find("r.io", "app").await.unwrap(), []);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let secret = || "hidden".to_owned();
        let username = || "user".to_owned();
        for auth in [
            Auth::Password { username: username(), password: secret() },
            Auth::Identity { username: username(), token: secret() },
            Auth::Registry { token: secret() },
        ] {
            assert!(!format!("{:?}", Keyring::of(&"r.io/app".parse().unwrap(), auth)).contains("hidden"));
        }
    }

    #[test]
    fn a_file_is_named_when_it_is_no_good() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("config.json");
        let told = |path: &Path| {
            let error = Keyring::read(path).unwrap_err();
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        };
        assert!(told(&path).contains("config.json: cannot read it: No such file"), "{}", told(&path));
        std::fs::write(&path, r#"{"auths":{"r.io":{"auth":7}}}"#).unwrap();
        assert!(told(&path).ends_with(r#"config.json: field auths["r.io"].auth: is no text"#), "{}", told(&path));
        std::fs::write(&path, vec![b' '; usize::try_from(KEYRING_BYTES_MAX).unwrap() + 1]).unwrap();
        assert!(told(&path).contains("larger than"), "{}", told(&path));
    }
}
