//! What goes wrong on the way from a registry, which lies, breaks off and is busy: nothing is lost, and the error says what.

use std::time::{Duration, Instant};

use berth_rootfs::{Digest, Error, RegistryConfig, Store};
use serde_json::json;

use super::fake::{Answer, Length, Ranges, Server, assert_nothing_left, noise, one_layer};
use super::support::{Bench, MANIFEST, Made, Mounted, Tar, eventually, told, unfinished};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

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
    refused(&|answer| answer.body.push(0), &blob, &format!("got {} bytes", good.len() + 1)).await;
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

/// A bench that gives a registry up that has sent nothing for so long.
fn waiting(silence: Duration) -> Bench {
    Bench::reaching(RegistryConfig { silence: Some(silence), ..RegistryConfig::default() })
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_asked_again() {
    let (mut made, layer) = one_layer();
    let server = Server::of(&mut made).await;
    let path = format!("blobs/{layer}");
    server.change(&path, |answer| {
        answer.break_off = Some((50_000, 1));
        answer.hangs = true;
    });
    let bench = waiting(Duration::from_millis(500));
    server.pull(&bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(server.seen(&path)[..2], [None, Some("bytes=50000-".to_owned())]);
}

#[tokio::test]
async fn a_pull_that_goes_on_slowly_is_not_cut_off() {
    let silence = Duration::from_secs(3);
    let (mut made, layer) = one_layer();
    let server = Server::of(&mut made).await;
    let path = format!("blobs/{layer}");
    server.change(&path, |answer| answer.trickle = Some((20_000, silence / 6)));
    let begin = Instant::now();
    server.pull(&waiting(silence)).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(begin.elapsed() > silence, "it took longer than any silence");
    assert_eq!(server.seen(&path), [None], "and was never interrupted");
}

#[tokio::test]
async fn a_blob_is_whole_wherever_it_breaks_off() {
    let (mut made, layer) = one_layer();
    let size = made.blobs[&layer].len();
    let server = Server::of(&mut made).await;
    let path = format!("blobs/{layer}");
    for length in [Length::Told, Length::Untold] {
        for point in [0, 1, 511, 512, 100_000, size - 1] {
            server.change(&path, |answer| (answer.length, answer.break_off) = (length, Some((point, 1))));
            let before = server.seen(&path).len();
            server.pull(&Bench::new()).await.unwrap_or_else(|error| panic!("{point}: {}", told(&error)));
            assert_eq!(server.seen(&path).len(), before + 2, "{point}");
        }
    }
    for path in made.blobs.keys().map(|digest| format!("blobs/{digest}")).chain(["manifests/latest".to_owned()]) {
        server.change(&path, |answer| answer.break_off = Some((10, 2)));
    }
    server.pull(&Bench::new()).await.unwrap_or_else(|error| panic!("{}", told(&error)));
}

#[tokio::test]
async fn a_registry_whose_ranges_are_wrong_begins_at_the_start() {
    let (mut made, layer) = one_layer();
    let server = Server::of(&mut made).await;
    let path = format!("blobs/{layer}");
    for (ranges, requests) in [(Ranges::Ignored, 2), (Ranges::Elsewhere, 3), (Ranges::Unsaid, 3), (Ranges::Refused, 3)]
    {
        server.change(&path, |answer| (answer.ranges, answer.break_off) = (ranges, Some((50_000, 1))));
        let before = server.seen(&path).len();
        server.pull(&Bench::new()).await.unwrap_or_else(|error| panic!("{ranges:?}: {}", told(&error)));
        assert_eq!(server.seen(&path).len(), before + requests, "{ranges:?}");
    }
}

#[tokio::test]
async fn a_blob_that_changes_between_two_parts_is_refused() {
    let (mut made, layer) = one_layer();
    let good = made.blobs[&layer].clone();
    let server = Server::of(&mut made).await;
    let path = format!("blobs/{layer}");
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 3] = [
        (|body| body[150_000] ^= 1, "got sha256:"),
        (|body| body.truncate(1000), "got 1000 bytes"),
        (|body| body.resize(1 << 20, 0), "got 1048576 bytes"),
    ];
    for (change, why) in changes {
        // It breaks off until it has changed.
        server.change(&path, |answer| (answer.body, answer.break_off) = (good.clone(), Some((50_000, 3))));
        let bench = Bench::new();
        let before = server.seen(&path).len();
        let changing = async {
            while server.seen(&path).len() == before {
                tokio::task::yield_now().await;
            }
            server.change(&path, |answer| {
                change(&mut answer.body);
                answer.break_off = None;
            });
        };
        let (result, ()) = tokio::join!(server.pull(&bench), changing);
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }) && told(&error).contains(why), "{why}: {}", told(&error));
        assert_nothing_left(&bench);
    }
}

#[tokio::test]
async fn a_blob_that_always_ends_too_early_is_given_up() {
    let (mut made, layer) = one_layer();
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    server.change(&format!("blobs/{layer}"), |answer| {
        (answer.length, answer.ranges, answer.break_off) = (Length::Untold, Ranges::Ignored, Some((1000, usize::MAX)));
    });
    let error = told(&server.pull(&bench).await.unwrap_err());
    let size = made.blobs[&layer].len();
    let wanted =
        format!("no answer from registry {}: blob {layer} after 1000 of {size} bytes: it ended too early", server.host);
    assert_eq!(error, wanted);
    assert_nothing_left(&bench);
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let (mut made, layer) = one_layer();
    let server = Server::of(&mut made).await;
    for refusal in [
        "429 Too Many Requests\r\nRetry-After: 0",
        "429 Too Many Requests\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT",
        "503 Service Unavailable\r\nRetry-After: 0",
    ] {
        let before = server.seen("manifests/latest").len();
        server.change_all(|answer| answer.refusal = Some((refusal, 4)));
        server.pull(&Bench::new()).await.unwrap_or_else(|error| panic!("{refusal}: {}", told(&error)));
        assert_eq!(server.seen("manifests/latest").len(), before + 5, "{refusal}");
    }
    // Longer than without being told.
    let begun = Instant::now();
    server.change("manifests/latest", |answer| {
        answer.refusal = Some(("429 Too Many Requests\r\nRetry-After: 2", 1));
    });
    server.pull(&Bench::new()).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let bench = Bench::new();
    server.change(&format!("blobs/{layer}"), |answer| {
        answer.refusal = Some(("429 Too Many Requests\r\nRetry-After: 0", usize::MAX));
    });
    let error = told(&server.pull(&bench).await.unwrap_err());
    assert_eq!(error, format!("registry {} answered 429 for blob {layer}: too many requests", server.host));
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
    let given_up = tokio::time::timeout(Duration::from_millis(300), server.pull(&bench)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_during_a_pull_is_told_and_the_pull_goes_on_when_there_is_room() {
    let mut made = Made::default();
    for name in ["0", "1", "2"] {
        let tar = Tar::new().file(name, &noise(600_000)).end();
        made.layer(&tar, tar.clone(), "application/vnd.oci.image.layer.v1.tar");
    }
    let server = Server::of(&mut made).await;
    let bench = Bench::new();
    let small = Mounted(bench.folder("small"));
    let mount = |flags, size: &str| {
        nix::mount::mount(Some("tmpfs"), &small.0, Some("tmpfs"), flags, Some(size)).unwrap();
    };
    mount(nix::mount::MsFlags::empty(), "size=2m");
    let store = Store::open(&small.0, RegistryConfig::default()).unwrap();
    let error = told(&store.pull(&server.reference("app"), None, None).await.unwrap_err());
    assert!(error.contains("No space left"), "{error}");
    assert!(store.images().unwrap().is_empty());
    eventually("the other layers are given up", || unfinished(&small.0).is_empty());
    mount(nix::mount::MsFlags::MS_REMOUNT, "size=8m");
    let image =
        store.pull(&server.reference("app"), None, None).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let target = Mounted(bench.folder("target"));
    store.mount(&image, "key", &target.0).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(std::fs::read_dir(&target.0).unwrap().count(), 3);
}

#[tokio::test]
async fn a_manifest_list_of_docker_is_an_index() {
    let (mut made, _) = one_layer();
    let server = Server::start().await;
    let manifest = made.manifest();
    let digest = manifest["digest"].as_str().unwrap().to_owned();
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    let text = String::from_utf8(made.blobs[&digest].clone()).unwrap();
    let text = text
        .replace(MANIFEST, DOCKER)
        .replace("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
        .replace("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip");
    let entry = |architecture: &str, text: &str| {
        let platform = json!({ "os": "linux", "architecture": architecture });
        let digest = Digest::of(text.as_bytes()).to_string();
        json!({ "mediaType": DOCKER, "digest": digest, "size": text.len(), "platform": platform })
    };
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let list = json!({
        "schemaVersion": 2,
        "mediaType": LIST,
        "manifests": [entry("s390x", "not here"), entry(here, &text)],
    });
    server.serve_blobs(&made);
    server.put(&format!("manifests/{}", Digest::of(text.as_bytes())), DOCKER, text.clone().into_bytes());
    server.put("manifests/latest", LIST, list.to_string().into_bytes());
    let image = server.pull(&Bench::new()).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(image.manifest_digest, Digest::of(text.as_bytes()).to_string());
    assert!(image.digests[0].ends_with(&Digest::of(list.to_string().as_bytes()).to_string()), "{:?}", image.digests);
}
