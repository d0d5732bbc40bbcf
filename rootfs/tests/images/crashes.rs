//! What kills, full disks and other processes leave: a sound store.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_rootfs::{Error, ImportConfig, RegistryConfig, Store};
use nix::mount::{MsFlags, mount};

use super::support::{Bench, Made, Mounted, Tar, eventually, told};

/// Set for the helper: where its store is.
const STORE: &str = "BERTH_TEST_STORE";
const SOURCE: &str = "BERTH_TEST_SOURCE";

/// Not a test by itself: the process that the next one kills.
#[tokio::test]
async fn helper_imports_until_it_is_killed() {
    let (Some(store), Some(source)) = (std::env::var_os(STORE), std::env::var_os(SOURCE)) else { return };
    let store = Store::open(Path::new(&store), RegistryConfig::default()).unwrap();
    store.import(Path::new(&source), None, &ImportConfig::default()).await.unwrap();
}

fn helper(store: &Path, source: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::helper_imports_until_it_is_killed"])
        .env(STORE, store)
        .env(SOURCE, source)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Layers of many files, so that there is time to be killed in.
fn make_layout(bench: &Bench, layers: usize, files: usize) -> std::path::PathBuf {
    let layer = |layer: usize| {
        let add = |tar: Tar, file: usize| tar.file(&format!("{layer}/{file}"), "content");
        (0..files).fold(Tar::new(), add).end()
    };
    let layers: Vec<_> = (0..layers).map(layer).collect();
    let path = bench.folder("layout");
    Made::of(&layers).lay_out(&path);
    path
}

#[tokio::test]
async fn a_store_is_sound_after_a_kill_at_any_moment() {
    let bench = Bench::new();
    let source = make_layout(&bench, 6, 3000);
    let mut interrupted = 0;
    for round in 0..12u64 {
        let mut child = helper(&bench.path("store"), &source);
        eventually("the helper begins", || !bench.names("tmp").is_empty() || child.try_wait().unwrap().is_some());
        std::thread::sleep(Duration::from_millis(round * 12));
        child.kill().unwrap();
        child.wait().unwrap();
        interrupted += usize::from(!bench.names("tmp").is_empty());
        let store = bench.reopened();
        assert!(bench.names("tmp").is_empty());
        for image in store.images().unwrap() {
            for layer in 0..6 {
                assert_eq!(fs::read_dir(bench.layer(&image, layer).join(layer.to_string())).unwrap().count(), 3000);
            }
        }
        if store.images().unwrap().is_empty() {
            assert!(bench.names("layers").is_empty() && bench.names("blobs").is_empty());
        }
    }
    assert!(interrupted > 0, "no kill came in time");
    bench.import(&source, "test/whole").await;
    let target = Mounted(bench.folder("target"));
    let image = bench.store.image("test/whole").unwrap().unwrap();
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    assert_eq!(fs::read_dir(&target.0).unwrap().count(), 6);
}

#[tokio::test]
async fn a_living_process_is_not_swept_and_its_images_are_seen() {
    let bench = Bench::new();
    let source = make_layout(&bench, 6, 3000);
    let mut child = helper(&bench.path("store"), &source);
    eventually("the helper begins", || !bench.names("tmp").is_empty());
    while child.try_wait().unwrap().is_none() {
        bench.reopened();
        bench.store.remove("test/none").await.unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.store.images().unwrap().len(), 1, "seen by a store that was open before");
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let bench = Bench::new();
    let source = make_layout(&bench, 2, 3000);
    let small = Mounted(bench.folder("small"));
    let options = "size=4m";
    mount(Some("tmpfs"), &small.0, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
    let store = Store::open(&small.0, RegistryConfig::default()).unwrap();
    let error = store.import(&source, None, &ImportConfig::default()).await.unwrap_err();
    assert!(told(&error).contains("No space left"), "{}", told(&error));
    assert_eq!(fs::read_dir(small.0.join("tmp")).unwrap().count(), 0);
    assert!(store.images().unwrap().is_empty());
    store.remove("test/none").await.unwrap();
    fs::write(small.0.join("room"), vec![0; 1 << 20]).expect("its room is free again");
}

#[tokio::test]
async fn what_a_loss_of_power_may_have_cut_is_forgotten() {
    let bench = Bench::new();
    let source = make_layout(&bench, 2, 3);
    let image = bench.import(&source, "test/cut").await;
    let marked = bench.layer(&image, 1).with_file_name("unwritten");
    eventually("the layer is written out", || !marked.exists());
    assert_eq!(bench.reopened().images().unwrap().len(), 1);
    fs::write(&marked, "another boot").unwrap();
    assert!(bench.reopened().images().unwrap().is_empty());
    assert!(bench.names("layers").is_empty());
    let image = bench.import(&source, "test/cut").await;
    fs::remove_dir_all(bench.layer(&image, 0)).unwrap();
    let target = bench.folder("target");
    assert!(matches!(bench.store.mount(&image, "key", &target).await, Err(Error::NoImage { .. })));
    assert!(bench.store.snapshots().unwrap().is_empty());
    fs::write(bench.inside("images.json"), "{").unwrap();
    fs::write(bench.inside(".tmp-1-images.json"), "{").unwrap();
    assert!(bench.reopened().images().unwrap().is_empty(), "a damaged index is an empty one");
    assert!(!bench.inside(".tmp-1-images.json").exists());
}
