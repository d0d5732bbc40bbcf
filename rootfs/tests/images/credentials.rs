//! Credentials of every kind against the docker registry, with a token server of our own, and the ways that they come by.

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use berth_rootfs::{Auth, Error, Keyring};
use rcgen::SigningKey;
use serde_json::{Value, json};

use super::fake::{Reply, Request, Server, listen, one_layer};
use super::registry::{AUTHFILE, Registry, make_image, pulled_elsewhere};
use super::support::{Bench, told};

/// Signs tokens for those who know `user:secret` or the identity token `identity`.
struct TokenServer {
    host: String,
    certificate: String,
    /// Whether it knows OAuth 2, and what it was asked.
    shared: Arc<Mutex<(Knows, Vec<Request>)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    OAuth,
    PasswordsOnly,
}

impl TokenServer {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["token.test".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let shared = Arc::new(Mutex::new((Knows::OAuth, Vec::new())));
        let own = Arc::clone(&shared);
        let host = listen(move |_, request| {
            let mut shared = own.lock().unwrap();
            shared.1.push(request.clone());
            answer(&made, shared.0, &request)
        });
        Self { host: host.await, certificate, shared }
    }

    fn knows(&self, what: Knows) {
        *self.shared.lock().unwrap() = (what, Vec::new());
    }

    /// The methods by which it was asked.
    fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().1.iter().map(|request| request.method.clone()).collect()
    }

    /// The docker registry that believes it.
    fn registry(&self, bench: &Bench) -> Registry {
        let certificate = bench.path("token.pem");
        fs::write(&certificate, &self.certificate).unwrap();
        let variables = [
            ("REGISTRY_AUTH", "token"),
            ("REGISTRY_AUTH_TOKEN_REALM", &*format!("http://{}/token", self.host)),
            ("REGISTRY_AUTH_TOKEN_SERVICE", "test"),
            ("REGISTRY_AUTH_TOKEN_ISSUER", "issuer"),
            ("REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE", certificate.to_str().unwrap()),
        ];
        Registry::start(bench, &variables)
    }
}

fn answer(made: &rcgen::CertifiedKey<rcgen::KeyPair>, knows: Knows, request: &Request) -> Reply {
    let parameters = if request.method == "POST" { &request.body } else { &request.query };
    let find = |key: &str| {
        let all = reqwest::Url::parse(&format!("http://x/?{parameters}")).unwrap();
        all.query_pairs().find(|(name, _)| name == key).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    assert!(request.method == "GET" || find("client_id") == "berth" || knows == Knows::PasswordsOnly);
    let is_known = match (&*request.method, knows) {
        ("POST", Knows::PasswordsOnly) => return Reply::new("404 Not Found", ""),
        ("POST", Knows::OAuth) if find("grant_type") == "refresh_token" => find("refresh_token") == "identity",
        _ => {
            let known = ["user:secret", "user:identity"].map(|text| format!("Basic {}", STANDARD.encode(text)));
            match request.header("authorization") {
                Some(basic) if known.iter().any(|known| known == basic) => true,
                Some(_) => return Reply::new("401 Unauthorized", ""),
                None => false,
            }
        }
    };
    if request.method == "POST" && !is_known {
        return Reply::new("400 Bad Request", r#"{"error":"invalid_grant"}"#);
    }
    // repository:NAME:pull,push; what is below public/ anybody may read.
    let scope = find("scope");
    let mut parts = scope.split(':');
    let (kind, name, actions) = (parts.next().unwrap(), parts.next(), parts.next());
    let may_read = is_known || name.is_some_and(|name| name.starts_with("public/"));
    let access = match (name, actions) {
        (Some(name), Some(actions)) if may_read => {
            json!([{ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }])
        }
        _ => json!([]),
    };
    let token = sign(made, &find("service"), access);
    let name = if request.method == "POST" { "access_token" } else { "token" };
    Reply::new("200 OK\r\nContent-Type: application/json", json!({ name: token }).to_string())
}

/// A JSON web token (RFC 7515), as the docker registry wants it.
fn sign(made: &rcgen::CertifiedKey<rcgen::KeyPair>, service: &str, access: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(made.cert.der())] });
    let claims = json!({
        "iss": "issuer", "sub": "", "aud": service, "jti": "1",
        "iat": now - 60, "nbf": now - 60, "exp": now + 600, "access": access,
    });
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = made.signing_key.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(flat(&signature)))
}

/// An ECDSA signature as 64 bytes: ASN.1 has its two numbers with their lengths and without leading zeros.
fn flat(signature: &[u8]) -> Vec<u8> {
    let mut rest = &signature[2..];
    let mut flat = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        flat.resize(flat.len() + 32 - number.len(), 0);
        flat.extend_from_slice(number);
        rest = &rest[2 + length..];
    }
    flat
}

fn keyring(host: &str, entry: Value) -> Option<Keyring> {
    let config = json!({ "auths": { host: entry } });
    Some(Keyring::of_docker_config_json(config.to_string().as_bytes()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_got_with_credentials_of_every_kind() {
    let bench = Bench::new();
    let layout = bench.path("layout");
    make_image(&bench, &layout);
    let tokens = TokenServer::start().await;
    let registry = tokens.registry(&bench);
    let source = format!("oci:{}:v1", layout.to_str().unwrap());
    for name in ["public/app", "private/app"] {
        registry.push(&source, name, &["--dest-creds", "user:secret"]);
    }
    let pull = async |name: &str, keyring: Option<Keyring>| {
        Bench::new().store.pull(&registry.reference(name), keyring, None).await.map(drop)
    };
    let with = |entry: Value| keyring(&registry.host, entry);
    let let_in = async |name: &str, entry: Option<Value>, asked: &[&str]| {
        tokens.shared.lock().unwrap().1.clear();
        let told_of = entry.as_ref().map(Value::to_string);
        pull(name, entry.and_then(with)).await.unwrap_or_else(|error| panic!("{told_of:?}: {}", told(&error)));
        assert_eq!(tokens.asked(), asked, "{told_of:?}");
    };
    let_in("public/app", None, &["GET"]).await;
    let_in("private/app", Some(json!({ "username": "user", "password": "secret" })), &["GET"]).await;
    let_in("private/app", Some(json!({ "auth": STANDARD.encode("user:secret") })), &["GET"]).await;
    let identity = json!({ "auth": STANDARD.encode("user:"), "identitytoken": "identity" });
    let_in("private/app", Some(identity.clone()), &["POST"]).await;
    tokens.knows(Knows::PasswordsOnly);
    let_in("private/app", Some(identity), &["POST", "GET"]).await;
    tokens.knows(Knows::OAuth);
    let scope = |name: &str| format!("http://{}/token?service=test&scope=repository:{name}:pull", tokens.host);
    let ready = reqwest::Client::new().get(scope("private/app")).basic_auth("user", Some("secret"));
    let ready: Value = serde_json::from_slice(&ready.send().await.unwrap().bytes().await.unwrap()).unwrap();
    let_in("private/app", Some(json!({ "registrytoken": ready["token"] })), &[]).await;

    for refused in [
        None,
        with(json!({ "username": "user", "password": "wrong" })),
        with(json!({ "identitytoken": "wrong" })),
        with(json!({ "registrytoken": "wrong" })),
        keyring("other.test", json!({ "username": "user", "password": "secret" })),
    ] {
        let words = format!("{refused:?}");
        let error = pull("private/app", refused).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{words}: {}", told(&error));
        assert!(!told(&error).contains("wrong"), "{}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_credentials_are_tried_until_one_is_let_in() {
    let bench = Bench::new();
    let layout = bench.path("layout");
    make_image(&bench, &layout);
    let tokens = TokenServer::start().await;
    let registry = tokens.registry(&bench);
    registry.push(&format!("oci:{}:v1", layout.to_str().unwrap()), "private/app", &["--dest-creds", "user:secret"]);
    let reference = registry.reference("private/app");
    let auth = |password: &str| Auth::Password { username: "user".into(), password: password.into() };
    let config = json!({
        format!("{}/private/app", registry.host): { "registrytoken": "wrong" },
        format!("{}/private", registry.host): { "identitytoken": "wrong" },
        registry.host.clone(): { "username": "user", "password": "wrong" },
    });
    let wrong = Keyring::of_docker_cfg(config.to_string().as_bytes()).unwrap();
    let right = wrong.clone().and(Keyring::of(&reference, auth("secret"))).and(Keyring::of(&reference, auth("wrong")));
    bench.store.pull(&reference, Some(right), None).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let error = bench.store.pull(&reference, Some(wrong), None).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{}", told(&error));
}

#[tokio::test]
async fn a_token_that_runs_out_is_renewed() {
    let (mut made, layer) = one_layer();
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    server.fake.lock().unwrap().token = Some("first");
    let path = format!("blobs/{layer}");
    server.change(&path, |answer| answer.break_off = Some((1000, 1)));
    let running_out = async {
        while server.seen(&path).is_empty() {
            tokio::task::yield_now().await;
        }
        server.fake.lock().unwrap().token = Some("second");
    };
    let (result, ()) = tokio::join!(server.pull(&bench), running_out);
    result.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(server.all_seen().last().unwrap().header("authorization"), Some("Bearer second"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helper_is_asked_for_what_it_keeps() {
    let (mut made, _) = one_layer();
    let server = Server::of(&mut made).await;
    let basic = format!("Basic {}", STANDARD.encode(format!("user:{}", server.host)));
    server.fake.lock().unwrap().wants = Some((basic, "Basic".to_owned()));
    let top = tempfile::tempdir().unwrap();
    let path = |name: &str| top.path().join(name).to_str().unwrap().to_owned();
    let script = "#!/bin/sh\nprintf '{\"Username\":\"user\",\"Secret\":\"%s\"}' \"$(cat)\"\n";
    // Written by another process: a program that this one has open for writing cannot be started.
    let write = format!("printf '%s' \"$1\" > {0} && chmod 755 {0}", path("docker-credential-test"));
    assert!(Command::new("sh").args(["-c", &write, "sh", script]).status().unwrap().success());
    let search = format!("{}:{}", top.path().display(), std::env::var("PATH").unwrap());
    let pull = |config: Value| {
        fs::write(path("config.json"), config.to_string()).unwrap();
        pulled_elsewhere(&server.reference("app"), &[("PATH", &search), (AUTHFILE, &path("config.json"))])
    };
    for config in [json!({ "credsStore": "test" }), json!({ "credHelpers": { server.host.clone(): "test" } })] {
        let (success, words) = pull(config);
        assert!(success, "{words}");
    }
    let (success, words) = pull(json!({ "credHelpers": { "other.test": "test" } }));
    assert!(!success && words.contains("does not let us read app"), "{words}");
    let (success, words) = pull(json!({ "credsStore": "none" }));
    let wanted =
        format!("cannot get credentials for registry {}: docker-credential-none: cannot start it", server.host);
    assert!(!success && words.contains(&wanted), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_used_where_the_environment_says() {
    let (mut made, _) = one_layer();
    let proxy = Server::of(&mut made).await;
    let reference = "registry.invalid/app".parse().unwrap();
    let url = format!("http://{}", proxy.host);
    let (success, words) = pulled_elsewhere(&reference, &[("HTTP_PROXY", &url)]);
    assert!(success, "{words}");
    assert_eq!(proxy.all_seen().len(), 3);
    let (success, words) = pulled_elsewhere(&reference, &[("HTTP_PROXY", &url), ("NO_PROXY", ".invalid")]);
    assert!(!success && words.contains("no answer from registry registry.invalid"), "{words}");
    assert_eq!(proxy.all_seen().len(), 3);
}
