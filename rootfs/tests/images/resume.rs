//! Pulls that were cut off, by an error or a kill, and what the next one makes of what they left.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use berth_rootfs::{GcPolicy, RegistryConfig, Store};

use super::fake::{Server, noise, one_layer};
use super::support::{Bench, Made, Tar, eventually, told};

/// Set for the helper: its store, and what it pulls.
const STORE: &str = "BERTH_TEST_RESUME_STORE";
const IMAGE: &str = "BERTH_TEST_RESUME_IMAGE";
/// After so many bytes the connection breaks off.
const CUT: usize = 50_000;

/// Not a test by itself: the process that others kill.
#[tokio::test]
async fn helper_pulls_until_it_is_killed() {
    let (Ok(store), Ok(image)) = (std::env::var(STORE), std::env::var(IMAGE)) else { return };
    let store = Store::open(store.as_ref(), RegistryConfig::default()).unwrap();
    store.pull(&image.parse().unwrap(), None, None).await.unwrap();
}

fn helper(bench: &Bench, server: &Server) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "resume::helper_pulls_until_it_is_killed"])
        .env(STORE, bench.path("store"))
        .env(IMAGE, server.reference("app").to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The file with the beginning of a blob.
fn part(bench: &Bench, layer: &str) -> PathBuf {
    bench.inside("parts").join(layer.split_once(':').unwrap().1)
}

/// A store in which a pull was killed after [`CUT`] bytes of the one layer.
async fn killed() -> (Bench, Server, String) {
    let (mut made, layer) = one_layer();
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    server.change(&format!("blobs/{layer}"), |answer| answer.break_off = Some((CUT, 1)));
    let mut child = helper(&bench, &server);
    // It breathes before it goes on.
    eventually("the first bytes are here", || {
        fs::metadata(part(&bench, &layer)).is_ok_and(|it| it.len() == CUT as u64)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    bench.reopened();
    assert!(bench.unfinished().is_empty() && bench.names("layers").is_empty());
    (bench, server, layer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_killed_is_gone_on_with() {
    let (bench, server, layer) = killed().await;
    let image = server.pull(&bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let ranges = server.seen(&format!("blobs/{layer}"));
    assert_eq!(ranges.last(), Some(&Some(format!("bytes={CUT}-"))), "{ranges:?}");
    assert_eq!(fs::read(bench.layer(&image, 0).join("file")).unwrap().len(), 200_000);
    assert!(!part(&bench, &layer).exists(), "it became the blob");
    assert!(bench.inside("blobs").join(layer.split_once(':').unwrap().1).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_is_believed_as_little_as_the_network() {
    for (what, length) in
        [("another content", CUT), ("more than the blob", 1_000_000), ("as much as the blob", 202_240)]
    {
        let (bench, server, layer) = killed().await;
        fs::write(part(&bench, &layer), vec![b'x'; length]).unwrap();
        let image = server.pull(&bench).await.unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        let ranges = server.seen(&format!("blobs/{layer}"));
        assert_eq!(ranges.last(), Some(&None), "{what}: from the start, {ranges:?}");
        let content = fs::read(bench.layer(&image, 0).join("file")).unwrap();
        assert!(content.len() == 200_000 && !content.starts_with(b"xxx"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_goes_on_with_is_swept_away_after_a_day() {
    let (bench, _server, layer) = killed().await;
    let part = part(&bench, &layer);
    assert!(part.exists());
    let file = fs::File::options().write(true).open(&part).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(25 * 3600)).unwrap();
    bench.reopened();
    assert!(!part.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_given_up_is_gone_on_with() {
    let (mut made, layer) = one_layer();
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    server.change(&format!("blobs/{layer}"), |answer| answer.break_off = Some((CUT, 1)));
    let pulling = server.pull(&bench);
    let cut = async {
        while fs::metadata(part(&bench, &layer)).map_or(0, |it| it.len()) < CUT as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! { _ = pulling => panic!("it cannot be whole yet"), () = cut => {} }
    eventually("the unpacking ends", || bench.unfinished().is_empty());
    server.pull(&bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(server.seen(&format!("blobs/{layer}")), [None, Some(format!("bytes={CUT}-"))]);
}

/// Layers that do not compress, each with its digest.
fn layers(count: usize, bytes: usize) -> (Made, Vec<String>) {
    let mut made = Made::default();
    let layer = |layer: usize| {
        let tar = Tar::new().file(&layer.to_string(), &noise(bytes)).end();
        made.layer(&tar, tar.clone(), "application/vnd.oci.image.layer.v1.tar");
        berth_rootfs::Digest::of(&tar).to_string()
    };
    let digests = (0..count).map(layer).collect();
    (made, digests)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_killed_pull_finished_is_not_fetched_again() {
    let (mut made, digests) = layers(6, 300_000);
    let server = Server::of(&mut made).await;
    // The last layer does not come to its end, so that kills fall between it and the others.
    let bench = Bench::new();
    server.change_all(|answer| answer.trickle = Some((20_000, Duration::from_millis(1))));
    server.change(&format!("blobs/{}", digests[5]), |answer| {
        (answer.break_off, answer.hangs) = (Some((0, usize::MAX)), true);
    });
    let mut here: Vec<String> = Vec::new();
    for round in 0.. {
        let before = server.all_seen().len();
        let mut child = helper(&bench, &server);
        eventually("the helper begins", || server.all_seen().len() > before + 1);
        std::thread::sleep(Duration::from_millis(round * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        bench.reopened();
        assert!(bench.unfinished().is_empty());
        let present = bench.names("layers");
        let is_here = |digest: &&String| present.iter().any(|name| digest.ends_with(name.as_str()));
        for digest in &here {
            assert!(is_here(&digest), "a layer that was here went with a sweep");
            let again = server.all_seen().split_off(before).into_iter().filter(|it| it.path.ends_with(digest.as_str()));
            assert_eq!(again.count(), 0, "a layer that was here came again");
        }
        here = digests.iter().filter(is_here).cloned().collect();
        if round >= 20 && here.len() == 5 {
            break;
        }
        assert!(round < 60, "{} of the layers have come", here.len());
    }
    server.change(&format!("blobs/{}", digests[5]), |answer| answer.break_off = None);
    let before = server.all_seen().len();
    server.pull(&bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let asked: Vec<_> = server.all_seen().split_off(before).into_iter().map(|it| it.path).collect();
    assert!(!asked.iter().any(|path| here.iter().any(|digest| path.ends_with(digest.as_str()))), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_remove_during_a_pull_goes_at_once_but_not_what_the_pull_counts_on() {
    let (mut made, digests) = layers(2, 100_000);
    let (server, bench) = (Server::of(&mut made).await, Bench::new());
    // An image that shares a layer with the one that is pulled, and one that shares none.
    let shared = Tar::new().file("0", &noise(100_000)).end();
    for (name, tars) in [("shares", vec![shared]), ("other", vec![Tar::new().file("other", "").end()])] {
        Made::of(&tars).lay_out(&bench.folder(name));
        bench.import(&bench.path(name), &format!("test/{name}")).await;
    }
    server.change(&format!("blobs/{}", digests[1]), |answer| {
        (answer.break_off, answer.hangs) = (Some((50_000, 1)), true);
    });
    let pulling = server.pull(&bench);
    let remove = async {
        while fs::metadata(part(&bench, &digests[1])).map_or(0, |it| it.len()) < 50_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(bench.store.remove("test/other").await.unwrap());
        assert_eq!(bench.names("layers").len(), 1, "it took no part in the pull");
        let policy = GcPolicy { max_age: Some(Duration::ZERO), untagged: true, ..GcPolicy::default() };
        let collected = bench.reopened().collect(&policy).await.unwrap();
        assert_eq!((collected.removed.len(), collected.removed[0].freed_bytes), (1, 0), "nothing is free yet");
        assert_eq!(bench.names("layers").len(), 1, "the pull counts on it");
        assert!(part(&bench, &digests[1]).exists(), "somebody writes it");
    };
    tokio::select! { _ = pulling => panic!("it hangs"), () = remove => {} }
    eventually("the unpacking ends", || bench.unfinished().is_empty());
    bench.store.remove("test/none").await.unwrap();
    assert!(bench.names("layers").is_empty(), "the pull was given up");
}
