//! What kills, full disks and other processes leave: a sound store.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_rootfs::{Error, GcPolicy, ImportConfig, RegistryConfig, Store};
use nix::mount::{MsFlags, mount};

use super::support::{Bench, Made, Mounted, Tar, eventually, told, unfinished};

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
        eventually("the helper begins", || !bench.unfinished().is_empty() || child.try_wait().unwrap().is_some());
        std::thread::sleep(Duration::from_millis(round * 12));
        child.kill().unwrap();
        child.wait().unwrap();
        interrupted += usize::from(!bench.unfinished().is_empty());
        let store = bench.reopened();
        assert!(bench.unfinished().is_empty());
        // Of images, or of an import that was killed between them: whole all the same.
        for layer in bench.names("layers") {
            let folders = fs::read_dir(bench.inside("layers").join(&layer).join("diff")).unwrap();
            let counts: Vec<_> = folders.map(|it| fs::read_dir(it.unwrap().path()).unwrap().count()).collect();
            assert_eq!(counts, [3000], "{layer}");
        }
        if round % 2 == 1 {
            store.remove("test/whole").await.unwrap();
            store.collect(&GcPolicy { untagged: true, ..GcPolicy::default() }).await.unwrap();
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
    eventually("the helper begins", || !bench.unfinished().is_empty());
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
    assert!(unfinished(&small.0).is_empty());
    assert!(store.images().unwrap().is_empty());
    store.remove("test/none").await.unwrap();
    fs::write(small.0.join("room"), vec![0; 1 << 20]).expect("its room is free again");
}

#[tokio::test]
async fn an_image_can_be_removed_from_a_disk_without_any_room() {
    let bench = Bench::new();
    let (one, other) = (make_layout(&bench, 1, 30), bench.folder("other"));
    Made::of(&[Tar::new().file("other", &"x".repeat(500_000)).end()]).lay_out(&other);
    let small = Mounted(bench.folder("small"));
    mount(Some("tmpfs"), &small.0, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
    let store = Store::open(&small.0, RegistryConfig::default()).unwrap();
    for (source, name) in [(&one, "test/one"), (&other, "test/other")] {
        store.import(source, Some(&name.parse().unwrap()), &ImportConfig::default()).await.unwrap();
    }
    let mut filler = fs::File::create(small.0.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    assert_eq!(nix::sys::statvfs::statvfs(&small.0).unwrap().blocks_available(), 0);
    assert!(store.remove("test/other").await.unwrap_or_else(|error| panic!("{}", told(&error))));
    let names: Vec<_> = store.images().unwrap().into_iter().flat_map(|image| image.tags).collect();
    assert_eq!(names, ["docker.io/test/one:latest"]);
    fs::write(small.0.join("room"), vec![0; 500_000]).expect("its room is free again");
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
}

#[tokio::test]
async fn a_damaged_index_is_an_empty_one_and_costs_no_layer() {
    let bench = Bench::new();
    let source = make_layout(&bench, 2, 3);
    let image = bench.import(&source, "test/damaged").await;
    fs::write(bench.inside("images.json"), "{").unwrap();
    fs::write(bench.inside(".tmp-1-images.json"), "{").unwrap();
    let store = bench.reopened();
    assert!(store.images().unwrap().is_empty());
    assert!(!bench.inside(".tmp-1-images.json").exists());
    assert_eq!(fs::read_to_string(bench.inside("images.json.damaged")).unwrap(), "{");
    let inode = |layer| fs::metadata(bench.layer(&image, layer)).unwrap().ino();
    let before = [inode(0), inode(1)];
    bench.import(&source, "test/damaged").await;
    assert_eq!([inode(0), inode(1)], before, "they were there already");
    store.remove("test/damaged").await.unwrap();
    assert!(bench.names("layers").is_empty(), "an image's layers wait for nobody");
}

#[tokio::test]
async fn several_processes_sweep_at_the_same_time() {
    let bench = Bench::new();
    let source = make_layout(&bench, 6, 3000);
    for _ in 0..4 {
        let mut child = helper(&bench.path("store"), &source);
        eventually("the helper begins", || !bench.unfinished().is_empty() || child.try_wait().unwrap().is_some());
        std::thread::sleep(Duration::from_millis(30));
        child.kill().unwrap();
        child.wait().unwrap();
        let open = || Store::open(&bench.path("store"), RegistryConfig::default()).map(drop);
        let outcomes = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for outcome in outcomes {
            outcome.unwrap_or_else(|error| panic!("{}", told(&error)));
        }
        assert!(bench.unfinished().is_empty());
        bench.store.collect(&GcPolicy { untagged: true, ..GcPolicy::default() }).await.unwrap();
    }
}
