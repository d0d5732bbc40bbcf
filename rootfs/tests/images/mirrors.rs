//! Mirrors: asked first, never waited for twice, and never believed more than the registry.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;

use berth_rootfs::{Auth, Error, Keyring, RegistryConfig};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, listen, socket,
};
use tempfile::TempDir;

use super::fake::{Answer, Server, assert_nothing_left, one_layer};
use super::registry::{Registry, make_image};
use super::support::{Bench, told};

/// A store that finds `text` as the `hosts.toml` of the registry at `host`.
fn bench_with(host: &str, text: &str) -> (Bench, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), host, text);
    let config_dir = Some(folder.path().to_owned());
    (Bench::reaching(RegistryConfig { config_dir, ..RegistryConfig::default() }), folder)
}

fn configure(folder: &Path, host: &str, text: &str) {
    fs::create_dir_all(folder.join(host)).unwrap();
    fs::write(folder.join(host).join("hosts.toml"), text).unwrap();
}

fn mirror_at(host: &str) -> String {
    format!("[host.\"http://{host}\"]\n")
}

async fn pull(server: &Server, bench: &Bench) {
    server.pull(bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
}

#[tokio::test]
async fn a_mirror_is_asked_in_the_registrys_name_and_the_registry_is_not() {
    let (mut made, _) = one_layer();
    let (mirror, registry) = (Server::of(&mut made).await, Server::start().await);
    let header = "[host.\"http://HOST\".header]\nx-one = [\"1\", \"2\"]\n".replace("HOST", &mirror.host);
    let (bench, _folder) = bench_with(&registry.host, &(mirror_at(&mirror.host) + &header));
    pull(&registry, &bench).await;
    assert!(registry.all_seen().is_empty());
    let seen = mirror.all_seen();
    assert_eq!(seen.len(), 3, "manifest, configuration, layer");
    for request in seen {
        assert_eq!(request.query, format!("ns={}", registry.host));
        assert_eq!(request.header("x-one"), Some("1"));
    }
    let image = &bench.store.images().unwrap()[0];
    assert_eq!(image.tags, [format!("{}/app:latest", registry.host)], "it is the registry's image all the same");
}

#[tokio::test]
async fn what_a_mirror_cannot_do_the_registry_does() {
    let (mut made, layer) = one_layer();
    let (registry, mirror) = (Server::of(&mut made).await, Server::start().await);
    let config = made.blobs.iter().find(|(_, content)| content.starts_with(b"{\"arch")).unwrap().0;
    let (config, layer) = (format!("blobs/{config}"), format!("blobs/{layer}"));
    let manifest = "manifests/latest".to_owned();
    let refusal = |status| move |answer: &mut Answer| answer.refusal = Some((status, usize::MAX));
    type Trouble<'t> = &'t dyn Fn(&mut Answer);
    let troubles: [(&str, &str, Trouble<'_>); 14] = [
        ("no manifest", &manifest, &refusal("404 Not Found")),
        ("no layer", &layer, &refusal("404 Not Found")),
        ("an error", &manifest, &refusal("500 Internal Server Error")),
        ("an error for a layer", &layer, &refusal("500 Internal Server Error")),
        ("too busy", &manifest, &refusal("429 Too Many Requests\r\nRetry-After: 999")),
        ("too busy for a layer", &layer, &refusal("429 Too Many Requests\r\nRetry-After: 999")),
        ("forbidden", &config, &refusal("403 Forbidden")),
        ("wants a password", &manifest, &refusal("401 Unauthorized\r\nWWW-Authenticate: Basic")),
        ("a page for people", &manifest, &|answer| answer.body = b"<html>".to_vec()),
        ("another configuration", &config, &|answer| answer.body[20] ^= 1),
        ("another layer", &layer, &|answer| answer.body[600] ^= 1),
        ("a shorter layer", &layer, &|answer| answer.body.truncate(1000)),
        ("a layer that breaks off", &layer, &|answer| answer.break_off = Some((1000, usize::MAX))),
        ("a layer that never begins", &layer, &|answer| answer.break_off = Some((0, usize::MAX))),
    ];
    for (what, path, trouble) in troubles {
        mirror.serve(&mut made.clone());
        mirror.change(path, trouble);
        let (bench, _folder) = bench_with(&registry.host, &mirror_at(&mirror.host));
        let (seen, asked) = (registry.all_seen().len(), mirror.seen(path).len());
        registry.pull(&bench).await.unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert!(mirror.seen(path).len() > asked, "{what}: the mirror was asked");
        // A layer that broke off in the middle goes on where it was, at whoever has it.
        assert!(registry.all_seen().len() == seen + 1 || what.contains("breaks off"), "{what}: only what was missing");
    }
}

#[tokio::test]
async fn a_mirror_that_is_not_there_is_not_asked_again_so_soon() {
    let (mut made, _) = one_layer();
    let registry = Server::of(&mut made).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (bench, _folder) = bench_with(&registry.host, &mirror_at(&free));
    pull(&registry, &bench).await;
    let mirror = Server::start_at(&free).await;
    mirror.serve(&mut made);
    pull(&registry, &bench).await;
    assert!(mirror.all_seen().is_empty());
    // Another store knows nothing of it.
    let (bench, _folder) = bench_with(&registry.host, &mirror_at(&free));
    pull(&registry, &bench).await;
    assert!(!mirror.all_seen().is_empty());
}

/// A listener whose queue is full: it answers no connection at all, as behind a firewall that drops.
struct BlackHole {
    _sockets: Vec<std::os::fd::OwnedFd>,
    host: String,
}

impl BlackHole {
    fn new() -> Self {
        let open = |flags| socket(AddressFamily::Inet, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None).unwrap();
        let listener = open(SockFlag::empty());
        bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let address: SockaddrIn = getsockname(listener.as_raw_fd()).unwrap();
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let client = open(SockFlag::SOCK_NONBLOCK);
            assert!(connect(client.as_raw_fd(), &address).is_err(), "in progress");
            sockets.push(client);
        }
        Self { _sockets: sockets, host: address.to_string() }
    }
}

#[tokio::test]
async fn a_mirror_that_does_not_answer_costs_one_short_wait() {
    let (mut made, _) = one_layer();
    let registry = Server::of(&mut made).await;
    let hole = BlackHole::new();
    let text = mirror_at(&hole.host) + "dial_timeout = \"100ms\"\n";
    let (bench, _folder) = bench_with(&registry.host, &text);
    pull(&registry, &bench).await;

    // One that takes the connection and then says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (bench, _folder) = bench_with(&registry.host, &mirror_at(&mute.local_addr().unwrap().to_string()));
    pull(&registry, &bench).await;
    mute.set_nonblocking(true).unwrap();
    let connections: Vec<TcpStream> = mute.incoming().map_while(Result::ok).collect();
    assert_eq!(connections.len(), 1, "three requests, of which one waited");
}

#[tokio::test]
async fn a_mirror_is_asked_only_for_what_it_is_trusted_with() {
    let (mut made, _) = one_layer();
    let (mirror, registry) = (Server::of(&mut made).await, Server::of(&mut made).await);
    let (bench, folder) = bench_with(&registry.host, &(mirror_at(&mirror.host) + "capabilities = [\"pull\"]"));
    pull(&registry, &bench).await;
    let paths = |server: &Server| server.all_seen().into_iter().map(|request| request.path).collect::<Vec<_>>();
    assert_eq!(paths(&registry), ["/v2/app/manifests/latest"]);
    assert_eq!(paths(&mirror).len(), 2);
    configure(folder.path(), &registry.host, "capabilities = [\"push\"]");
    let error = told(&registry.pull(&bench).await.unwrap_err());
    assert!(error.contains("see the capabilities"), "{error}");
}

#[tokio::test]
async fn when_nobody_can_help_each_is_told_of() {
    let (mut made, layer) = one_layer();
    let (mirror, registry) = (Server::of(&mut made).await, Server::of(&mut made).await);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (bench, folder) = bench_with(&registry.host, &(mirror_at(&free) + &mirror_at(&mirror.host)));
    for server in [&mirror, &registry] {
        server.change("manifests/latest", |answer| answer.refusal = Some(("500 Internal Server Error", 1)));
    }
    let error = registry.pull(&bench).await.unwrap_err();
    let words = told(&error);
    assert!(matches!(error, Error::Mirrors { .. }), "{words}");
    let parts = [
        format!("no mirror of registry {} could help (no answer from registry {free}: ", registry.host),
        "Connection refused".to_owned(),
        format!("; registry {} answered 500 for manifest app:latest: internal server error)", mirror.host),
        format!("neither could the registry: registry {} answered 500 for manifest app:latest", registry.host),
    ];
    for part in parts {
        assert!(words.contains(&part), "{part}: {words}");
    }

    let path = format!("blobs/{layer}");
    for server in [&mirror, &registry] {
        server.change(&path, |answer| answer.body[600] ^= 1);
    }
    let error = registry.pull(&bench).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }) && told(&error).contains(&layer), "{}", told(&error));
    assert_eq!((mirror.seen(&path).len(), registry.seen(&path).len()), (1, 1));
    assert_nothing_left(&bench);

    configure(folder.path(), &registry.host, "[host.m]\nskip_verify = 7");
    let error = told(&registry.pull(&bench).await.unwrap_err());
    assert!(error.contains("hosts.toml: host.\"m\".skip_verify: "), "{error}");
}

#[tokio::test]
async fn credentials_are_shown_to_nobody_but_whom_they_are_for() {
    let (mut made, _) = one_layer();
    let (mirror, registry) = (Server::of(&mut made).await, Server::of(&mut made).await);
    let wants = |server: &Server, basic: &str| {
        server.fake.lock().unwrap().wants = Some((format!("Basic {basic}"), "Basic realm=\"fake\"".to_owned()));
    };
    // one:secret and two:secret
    wants(&mirror, "b25lOnNlY3JldA==");
    wants(&registry, "dHdvOnNlY3JldA==");
    let text = mirror_at(&mirror.host);
    let proofs = |server: &Server| {
        let seen = server.all_seen().into_iter();
        let mut proofs: Vec<_> =
            seen.filter_map(|request| request.header("authorization").map(str::to_owned)).collect();
        proofs.dedup();
        proofs
    };
    let (bench, _folder) = bench_with(&registry.host, &text);
    let two = Auth::Password { username: "two".into(), password: "secret".into() };
    let reference = registry.reference("app");
    bench.store.pull(&reference, Some(Keyring::of(&reference, two)), None).await.unwrap();
    assert_eq!(proofs(&mirror), [""; 0]);
    assert_eq!(proofs(&registry), ["Basic dHdvOnNlY3JldA=="]);

    let (bench, _folder) = bench_with(&registry.host, &text);
    let before = registry.all_seen().len();
    let config = serde_json::json!({
        registry.host.clone(): { "username": "two", "password": "secret" },
        mirror.host.clone(): { "username": "one", "password": "secret" },
    });
    let keyring = Keyring::of_docker_cfg(config.to_string().as_bytes()).unwrap();
    bench.store.pull(&reference, Some(keyring), None).await.unwrap();
    assert_eq!(proofs(&mirror), ["Basic b25lOnNlY3JldA=="]);
    assert_eq!(registry.all_seen().len(), before);
}

#[tokio::test]
async fn a_registrys_certificate_is_trusted_where_its_folder_says() {
    let bench = Bench::new();
    let layout = bench.path("layout");
    make_image(&bench, &layout);
    let path = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let variables =
        [("REGISTRY_HTTP_TLS_CERTIFICATE", &*path("cert.pem")), ("REGISTRY_HTTP_TLS_KEY", &*path("key.pem"))];
    let registry = Registry::start(&bench, &variables);
    registry.push(&format!("oci:{}:v1", layout.to_str().unwrap()), "app", &[]);
    let pull = async |text: &str| {
        let (bench, folder) = bench_with(&registry.host, text);
        fs::write(folder.path().join(&registry.host).join("ca.pem"), made.cert.pem()).unwrap();
        bench.store.pull(&registry.reference("app"), None, None).await.map(drop).map_err(|error| told(&error))
    };
    for trusting in ["ca = \"ca.pem\"", "ca = [\"ca.pem\"]", "skip_verify = true"] {
        assert_eq!(pull(trusting).await, Ok(()), "{trusting}");
    }
    let mirror = format!("server = \"https://none.invalid\"\n[host.\"https://{}\"]\nca = \"ca.pem\"", registry.host);
    assert_eq!(pull(&mirror).await, Ok(()), "as a mirror");
    let error = pull("").await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");

    // Now one that wants to know us by a certificate, too.
    drop(registry);
    let authorities = format!("[\"{}\"]", path("cert.pem"));
    let registry =
        Registry::start(&bench, &[&variables[..], &[("REGISTRY_HTTP_TLS_CLIENTCAS", &authorities)]].concat());
    let pull = async |client: &str| {
        let (bench, folder) = bench_with(&registry.host, &format!("ca = \"ca.pem\"\n{client}"));
        let folder = folder.path().join(&registry.host);
        fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        bench.store.pull(&registry.reference("app"), None, None).await.map(drop).map_err(|error| told(&error))
    };
    assert_eq!(pull("client = [\"ca.pem\", \"key.pem\"]").await, Ok(()));
    // The refusal comes after the handshake (TLS 1.3): sometimes only the closed connection is seen of it.
    let error = pull("").await.unwrap_err();
    assert!(error.starts_with("no answer from registry"), "{error}");
}
