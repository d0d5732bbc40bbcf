//! A registry that lies, breaks off and asks for tokens: by hand, in this process, so that it can count and misbehave.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use berth_rootfs::{Digest, Error, Image, Reference};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Bench, MANIFEST, Made, Tar, told};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a path is answered.
#[derive(Clone, Default)]
struct Answer {
    content_type: &'static str,
    body: Vec<u8>,
    /// Breaks the connection off after so many bytes, this often.
    break_off: Option<(usize, usize)>,
}

#[derive(Default)]
struct Fake {
    answers: HashMap<String, Answer>,
    /// Each request's path, and its range if it has one.
    seen: Vec<(String, Option<String>)>,
    token: Option<&'static str>,
}

struct Server {
    host: String,
    fake: Arc<Mutex<Fake>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let fake: Arc<Mutex<Fake>> = Arc::default();
        let (shared, own) = (Arc::clone(&fake), host.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), own.clone()));
            }
        });
        Self { host, fake }
    }

    /// Serves an image as `app:latest`.
    async fn of(made: &mut Made) -> Self {
        let server = Self::start().await;
        let manifest = made.manifest();
        let digest = manifest["digest"].as_str().unwrap().to_owned();
        server.serve_blobs(made);
        server.put("manifests/latest", MANIFEST, made.blobs[&digest].clone());
        server
    }

    fn serve_blobs(&self, made: &Made) {
        for (digest, content) in &made.blobs {
            self.put(&format!("blobs/{digest}"), "application/octet-stream", content.clone());
            self.put(&format!("manifests/{digest}"), MANIFEST, content.clone());
        }
    }

    fn put(&self, path: &str, content_type: &'static str, body: Vec<u8>) {
        let answer = Answer { content_type, body, break_off: None };
        self.fake.lock().unwrap().answers.insert(format!("/v2/app/{path}"), answer);
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Answer)) {
        change(self.fake.lock().unwrap().answers.get_mut(&format!("/v2/app/{path}")).unwrap());
    }

    fn seen(&self, path: &str) -> Vec<Option<String>> {
        let path = format!("/v2/app/{path}");
        let fake = self.fake.lock().unwrap();
        fake.seen.iter().filter(|(seen, _)| *seen == path).map(|(_, range)| range.clone()).collect()
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    async fn pull(&self, bench: &Bench) -> Result<Image, Error> {
        bench.store.pull(&self.reference("app"), None, None).await
    }
}

async fn serve(stream: TcpStream, fake: Arc<Mutex<Fake>>, host: String) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let path = lines[0].split(' ').nth(1)?.to_owned();
        let header = |name: &str| {
            let find = |line: &String| {
                line.split_once(": ")
                    .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_owned())
            };
            lines.iter().find_map(find)
        };
        let (text, body, whole) = answer(&mut fake.lock().unwrap(), &path, &host, &header);
        let length = whole.unwrap_or(body.len());
        let head = format!("HTTP/1.1 {text}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
        stream.flush().await.ok()?;
        whole.map_or(Some(()), |_| None)?;
    }
}

/// Status with headers, body, and the length that was promised if the connection is to break off.
fn answer(
    fake: &mut Fake,
    path: &str,
    host: &str,
    header: &impl Fn(&str) -> Option<String>,
) -> (String, Vec<u8>, Option<usize>) {
    if let Some(query) = path.strip_prefix("/token?") {
        assert!(query.contains("service=fake") && query.contains("scope=repository%3Aapp%3Apull"), "{query}");
        let token = json!({ "token": fake.token });
        return ("200 OK".into(), serde_json::to_vec(&token).unwrap(), None);
    }
    let range = header("range");
    fake.seen.push((path.to_owned(), range.clone()));
    if let Some(token) = fake.token
        && header("authorization") != Some(format!("Bearer {token}"))
    {
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"fake\",scope=\"repository:app:pull\"");
        return (format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"), Vec::new(), None);
    }
    let Some(answer) = fake.answers.get_mut(path) else { return ("404 Not Found".into(), Vec::new(), None) };
    let from = range.map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let text = format!("{status}\r\nContent-Type: {}", answer.content_type);
    let body = answer.body[from..].to_vec();
    match &mut answer.break_off {
        Some((bytes, times)) if *times > 0 => {
            *times -= 1;
            (text, body[..*bytes].to_vec(), Some(body.len()))
        }
        _ => (text, body, None),
    }
}

/// Data that does not compress.
fn noise(bytes: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + u8::try_from(state >> 58).unwrap())
    };
    (0..bytes).map(|_| next()).collect()
}

fn one_layer() -> (Made, String) {
    let tar = Tar::new().file("file", &noise(200_000)).end();
    let mut made = Made::default();
    let digest = Digest::of(&tar).to_string();
    made.layer(&tar, tar.clone(), "application/vnd.oci.image.layer.v1.tar");
    (made, digest)
}

fn assert_nothing_left(bench: &Bench) {
    assert!(bench.store.images().unwrap().is_empty());
    assert!(bench.names("tmp").is_empty() && bench.names("layers").is_empty(), "{:?}", bench.names("layers"));
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_refused() {
    let (mut made, layer) = one_layer();
    let server = Server::of(&mut made).await;
    let good = made.blobs[&layer].clone();
    let refused = async |change: &dyn Fn(&mut Answer), path: &str, why: &str| {
        let bench = Bench::new();
        let mut before = Vec::new();
        server.change(path, |answer| {
            before = answer.body.clone();
            change(answer);
        });
        let error = server.pull(&bench).await.unwrap_err();
        server.change(path, |answer| answer.body = before);
        assert!(matches!(error, Error::Mismatch { .. }) && told(&error).contains(why), "{why}: {}", told(&error));
        assert_nothing_left(&bench);
    };
    let blob = format!("blobs/{layer}");
    refused(&|answer| answer.body[600] ^= 1, &blob, "sha256:").await;
    refused(&|answer| answer.body[0] ^= 1, &blob, "sha256:").await;
    refused(&|answer| answer.body.truncate(1000), &blob, "1000 bytes").await;
    refused(&|answer| answer.body.clear(), &blob, "0 bytes").await;
    refused(&|answer| answer.body.push(0), &blob, "more").await;
    let config = made.blobs.iter().find(|(_, content)| content.starts_with(b"{\"arch")).unwrap().0;
    refused(&|answer| answer.body[20] ^= 1, &format!("blobs/{config}"), "configuration").await;
    assert_eq!(good, made.blobs[&layer]);
    server.pull(&Bench::new()).await.unwrap();
}

#[tokio::test]
async fn an_archive_that_is_not_what_the_configuration_says_is_refused() {
    let mut made = Made::default();
    let tar = Tar::new().file("file", "").end();
    made.layer(b"another", tar, "application/vnd.oci.image.layer.v1.tar");
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    let error = server.pull(&bench).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }) && told(&error).contains("archive"), "{}", told(&error));
    assert_nothing_left(&bench);
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let (mut made, layer) = one_layer();
    let server = Server::of(&mut made).await;
    let path = format!("blobs/{layer}");
    server.change(&path, |answer| answer.break_off = Some((50_000, 2)));
    server.pull(&Bench::new()).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let ranges = server.seen(&path);
    assert_eq!(ranges, [None, Some("bytes=50000-".to_owned()), Some("bytes=100000-".to_owned())]);

    let bench = Bench::new();
    server.change(&path, |answer| answer.break_off = Some((0, usize::MAX)));
    let error = server.pull(&bench).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && told(&error).contains("after 0 of"), "{}", told(&error));
    assert_nothing_left(&bench);
}

#[tokio::test]
async fn two_pulls_at_once_fetch_a_layer_once() {
    let (mut made, layer) = one_layer();
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    let (one, other) = tokio::join!(server.pull(&bench), server.pull(&bench));
    assert_eq!(one.unwrap().id, other.unwrap().id);
    assert_eq!(server.seen(&format!("blobs/{layer}")).len(), 1);
    server.pull(&bench).await.unwrap();
    assert_eq!(server.seen(&format!("blobs/{layer}")).len(), 1);
}

#[tokio::test]
async fn a_pull_that_is_given_up_hinders_no_other() {
    let (mut made, layer) = one_layer();
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    let path = format!("blobs/{layer}");
    // Its blob never comes: the retries wait longer and longer.
    server.change(&path, |answer| answer.break_off = Some((0, 3)));
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(300), server.pull(&bench)).await;
    assert!(given_up.is_err());
    server.change(&path, |answer| answer.break_off = None);
    server.pull(&bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says() {
    let (mut made, _) = one_layer();
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    server.fake.lock().unwrap().token = Some("first");
    server.pull(&bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(server.seen("manifests/latest").len(), 2, "asked, then asked with the token");
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_this_machine() {
    let (mut made, _) = one_layer();
    let manifest = made.manifest();
    let server = Server::start().await;
    server.serve_blobs(&made);
    let mut entry = manifest.clone();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    entry["platform"] = json!({ "os": "linux", "architecture": architecture });
    let mut foreign = entry.clone();
    foreign["platform"]["architecture"] = "s390x".into();
    let index = |entries: &[&serde_json::Value]| {
        serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries })).unwrap()
    };
    let good = index(&[&foreign, &entry]);
    server.put("manifests/latest", INDEX, good.clone());
    let bench = Bench::new();
    let image = server.pull(&bench).await.unwrap();
    assert_eq!(image.manifest_digest, manifest["digest"].as_str().unwrap());
    assert_eq!(image.digests, [format!("{}/app@{}", server.host, Digest::of(&good))]);

    server.put("manifests/latest", INDEX, index(&[&foreign]));
    assert!(told(&server.pull(&bench).await.unwrap_err()).contains("s390x"));
    let mut nested = entry.clone();
    nested["digest"] = json!(Digest::of(&good).to_string());
    nested["size"] = json!(good.len());
    server.put(&format!("manifests/{}", Digest::of(&good)), INDEX, good);
    server.put("manifests/latest", INDEX, index(&[&nested]));
    assert!(told(&server.pull(&bench).await.unwrap_err()).contains("index in an index"));
    server.put("manifests/latest", MANIFEST, index(&[&entry]));
    assert!(told(&server.pull(&bench).await.unwrap_err()).contains("mediaType"));
    let by_digest = server.reference(&format!("app@sha256:{}", "0".repeat(64)));
    assert!(matches!(bench.store.pull(&by_digest, None, None).await, Err(Error::NotInRegistry { .. })));
    server.put(&format!("manifests/sha256:{}", "0".repeat(64)), INDEX, index(&[&entry]));
    assert!(matches!(bench.store.pull(&by_digest, None, None).await, Err(Error::Mismatch { .. })));
    assert_eq!(bench.store.images().unwrap().len(), 1);
}
