//! Docker's `config.json` and what Kubernetes keeps of it in secrets. Pure.
//!
//! Walked by hand: a message must name the field, and must not quote what is in it.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::{Auth, CredentialsError, Entry};
use crate::limits::KEYRING_BYTES_MAX;

/// Some programs leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Programs to be asked for credentials: `docker-credential-NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Helpers {
    /// `credHelpers`.
    by_host: Vec<(Pattern, String)>,
    /// `credsStore`.
    store: Option<String>,
}

impl Helpers {
    /// The name of the helper for a repository at `host`.
    pub(super) fn of(&self, host: &str, repository: &str) -> Option<&str> {
        let own = self.by_host.iter().find(|(pattern, _)| pattern.fits(host, repository));
        own.map(|(_, name)| name).or(self.store.as_ref()).map(String::as_str)
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.by_host.extend(other.by_host);
        self.store = self.store.take().or(other.store);
    }
}

/// Reads `config.json`.
pub(super) fn parse_config(text: &[u8]) -> Result<(Vec<Entry>, Helpers), CredentialsError> {
    let config = json(text)?;
    let config = object("config", &config)?;
    let entries = match find(config, "auths") {
        Some(auths) => entries("auths", object("auths", auths)?)?,
        None => Vec::new(),
    };
    let mut helpers = Helpers::default();
    if let Some(by_host) = find(config, "credHelpers") {
        for (host, name) in object("credHelpers", by_host)? {
            let name = helper_name(&format!("credHelpers[{host:?}]"), name)?;
            helpers.by_host.extend(name.map(|name| (Pattern::parse(host), name)));
        }
    }
    if let Some(name) = find(config, "credsStore") {
        helpers.store = helper_name("credsStore", name)?;
    }
    Ok((entries, helpers))
}

/// Reads `.dockercfg`, docker's older format: the entries alone.
pub(super) fn parse_cfg(text: &[u8]) -> Result<Vec<Entry>, CredentialsError> {
    entries("", object("config", &json(text)?)?)
}

fn json(text: &[u8]) -> Result<Value, CredentialsError> {
    if text.len() as u64 > KEYRING_BYTES_MAX {
        return Err(CredentialsError::Size { max: KEYRING_BYTES_MAX });
    }
    serde_json::from_slice(text).map_err(|source| CredentialsError::Json { source })
}

fn entries(field: &str, auths: &Map<String, Value>) -> Result<Vec<Entry>, CredentialsError> {
    let mut found = Vec::new();
    for (server, entry) in auths {
        let field = format!("{field}[{server:?}]");
        let auth = auth(&field, object(&field, entry)?)?;
        found.extend(auth.map(|auth| Entry { pattern: Pattern::parse(server), auth }));
    }
    Ok(found)
}

/// The credentials of an entry; none in one that only says that a helper has them.
fn auth(field: &str, entry: &Map<String, Value>) -> Result<Option<Auth>, CredentialsError> {
    let text = |key: &str| match find(entry, key) {
        Some(value) => text(&format!("{field}.{key}"), value).map(|text| Some(text).filter(|text| !text.is_empty())),
        None => Ok(None),
    };
    let (mut username, mut password) = (text("username")?.map(str::to_owned), text("password")?.map(str::to_owned));
    if let Some(encoded) = text("auth")? {
        let (name, secret) = user_and_password(encoded)
            .ok_or_else(|| wrong(&format!("{field}.auth"), "is no USER:PASSWORD in base64"))?;
        (username, password) = (Some(name), Some(secret).filter(|secret| !secret.is_empty()));
    }
    if let Some(token) = text("registrytoken")? {
        return Ok(Some(Auth::Registry { token: token.to_owned() }));
    }
    if let Some(token) = text("identitytoken")? {
        return Ok(Some(Auth::Identity { username: username.unwrap_or_default(), token: token.to_owned() }));
    }
    Ok(username.zip(password).map(|(username, password)| Auth::Password { username, password }))
}

fn user_and_password(encoded: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    // Old versions of docker filled it up.
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

/// A name that stays the last part of a program's: with a slash in it, it would lead out of the search path.
fn helper_name(field: &str, value: &Value) -> Result<Option<String>, CredentialsError> {
    let name = text(field, value)?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match name.bytes().all(letter) {
        true => Ok(Some(name.to_owned()).filter(|name| !name.is_empty())),
        false => Err(wrong(field, "is no helper's name: letters, digits, '-', '_' and '.'")),
    }
}

/// Whatever the case of its letters, as docker reads it.
fn find<'v>(map: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    let value = map.get(key).or_else(|| map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| v));
    value.filter(|value| !value.is_null())
}

fn object<'v>(field: &str, value: &'v Value) -> Result<&'v Map<String, Value>, CredentialsError> {
    value.as_object().ok_or_else(|| wrong(field, "is no object"))
}

fn text<'v>(field: &str, value: &'v Value) -> Result<&'v str, CredentialsError> {
    value.as_str().ok_or_else(|| wrong(field, "is no text"))
}

fn wrong(field: &str, why: &'static str) -> CredentialsError {
    CredentialsError::Field { field: field.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(entry: Value, expected: Option<Auth>) {
        let (mut entries, _) = parse_config(json!({ "auths": { "r.io": entry } }).to_string().as_bytes()).unwrap();
        assert_eq!(entries.pop().map(|entry| entry.auth), expected, "{entry}");
    }

    #[test]
    fn entries_have_passwords_or_tokens() {
        let password = |password: &str| Some(Auth::Password { username: "u".into(), password: password.into() });
        check(json!({ "username": "u", "password": "p" }), password("p"));
        check(json!({ "auth": BASE64.encode("u:p:q") }), password("p:q"));
        check(json!({ "auth": "dTpw" , "username": "x", "password": "y" }), password("p"));
        check(json!({ "auth": BASE64.encode("u:p\0\0") }), password("p"));
        check(json!({ "auth": BASE64.encode("u:pp").trim_end_matches('=') }), password("pp"));
        check(json!({ "Auth": "dTpw" }), password("p"));
        let identity = |username: &str| Some(Auth::Identity { username: username.into(), token: "t".into() });
        check(json!({ "identitytoken": "t", "auth": BASE64.encode("u:") }), identity("u"));
        check(json!({ "identitytoken": "t" }), identity(""));
        check(json!({ "registrytoken": "t", "auth": "dTpw" }), Some(Auth::Registry { token: "t".into() }));
        for nothing in
            [json!({}), json!({ "email": 7 }), json!({ "auth": "" }), json!({ "username": "u", "auth": null })]
        {
            check(nothing, None);
        }
    }

    #[test]
    fn helpers_are_for_their_host_or_for_all() {
        let config = json!({ "credsStore": "all", "credHelpers": { "r.io": "own", "docker.io": "hub" } });
        let (_, helpers) = parse_config(config.to_string().as_bytes()).unwrap();
        assert_eq!(helpers.of("r.io", "app"), Some("own"));
        assert_eq!(helpers.of("docker.io", "library/app"), Some("hub"));
        assert_eq!(helpers.of("other.io", "app"), Some("all"));
        assert_eq!(parse_config(br#"{"credsStore":""}"#).unwrap().1.of("r.io", "app"), None);
    }

    #[test]
    fn what_makes_no_sense_is_told_by_field_and_never_quoted() {
        for (config, told) in [
            (json!(["secret"]), "field config: is no object"),
            (json!({ "auths": "secret" }), "field auths: is no object"),
            (json!({ "auths": { "r.io": "secret" } }), r#"field auths["r.io"]: is no object"#),
            (json!({ "auths": { "r.io": { "password": ["secret"] } } }), r#"field auths["r.io"].password: is no text"#),
            (json!({ "auths": { "r.io": { "auth": "secret!" } } }), r#"field auths["r.io"].auth: is no USER"#),
            (json!({ "auths": { "r.io": { "auth": "c2VjcmV0" } } }), r#"field auths["r.io"].auth: is no USER"#),
            (json!({ "credsStore": 7 }), "field credsStore: is no text"),
            (json!({ "credHelpers": { "r.io": "../secret" } }), r#"field credHelpers["r.io"]: is no helper's name"#),
        ] {
            let error = parse_config(config.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(told) && !error.contains("secret"), "{error}");
        }
        assert!(matches!(parse_config(b"{\"auths\": secret"), Err(CredentialsError::Json { .. })));
        assert!(matches!(parse_cfg(b"\xff"), Err(CredentialsError::Json { .. })));
    }

    /// Values that are nearly what is wanted.
    fn nearly() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[a-zA-Z0-9:=/.*]{0,12}|.{0,6}".prop_map(Value::from)
        ];
        let key = "auths|credHelpers|credsStore|auth|username|password|identitytoken|registrytoken|r.io|.{0,5}";
        leaf.prop_recursive(4, 32, 5, move |inner| {
            proptest::collection::btree_map(key, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_credentials_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_config(&text), parse_cfg(&text));
        }

        #[test]
        fn any_config_is_credentials_or_an_error(config in nearly()) {
            let text = config.to_string();
            let _ = (parse_config(text.as_bytes()), parse_cfg(text.as_bytes()));
        }
    }
}
