//! Pulls that were cut off, by an error or a kill, and what the next one makes of what they left.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use berth_rootfs::{RegistryConfig, Store};

use super::fake::{Server, one_layer};
use super::support::{Bench, eventually, told};

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
    assert!(bench.names("tmp").is_empty() && bench.names("layers").is_empty());
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
    eventually("the unpacking ends", || bench.names("tmp").is_empty());
    server.pull(&bench).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(server.seen(&format!("blobs/{layer}")), [None, Some(format!("bytes={CUT}-"))]);
}
