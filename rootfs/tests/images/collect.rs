//! Which images go, of a real store.

use std::fs;
use std::time::Duration;

use berth_rootfs::{GcPolicy, Image, ImportConfig, Thresholds};

use super::support::{Bench, Made, Mounted, Tar};

fn all() -> GcPolicy {
    GcPolicy { max_age: Some(Duration::ZERO), ..GcPolicy::default() }
}

/// An image of two layers, of which the lower is that of all others too.
async fn image(bench: &Bench, name: &str) -> Image {
    let layers = [Tar::new().file("shared", "").end(), Tar::new().file(name, &"x".repeat(5000)).end()];
    let layout = tempfile::tempdir_in("/dev/shm").unwrap();
    Made::of(&layers).lay_out(layout.path());
    bench.import(layout.path(), &format!("test/{name}")).await
}

/// Makes an image look as if it had not been used for so long.
fn age(bench: &Bench, image: &Image, secs: u64) {
    let file = fs::File::options().write(true).open(bench.inside("uses").join(image.id.split_once(':').unwrap().1));
    file.unwrap().set_modified(std::time::SystemTime::now() - Duration::from_secs(secs)).unwrap();
    let index = bench.inside("images.json");
    let text = fs::read_to_string(&index).unwrap();
    let created = image.created_at.to_string();
    let earlier = (image.created_at - jiff::SignedDuration::from_secs(i64::try_from(secs).unwrap())).to_string();
    fs::write(&index, text.replace(&created, &earlier)).unwrap();
}

fn names(images: &[Image]) -> Vec<&str> {
    images.iter().flat_map(|image| &image.tags).filter_map(|tag| tag.split(['/', ':']).nth(2)).collect()
}

#[tokio::test]
async fn what_is_mounted_or_pinned_stays_with_its_layers() {
    let bench = Bench::new();
    let (mounted, pinned) = (image(&bench, "mounted").await, image(&bench, "pinned").await);
    let idle = image(&bench, "idle").await;
    bench.store.pin("test/pinned", true).await.unwrap();
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&mounted, "key", &target.0).await.unwrap();
    let collected = bench.store.collect(&all()).await.unwrap();
    assert_eq!(collected.removed.iter().map(|gone| &gone.id).collect::<Vec<_>>(), [&idle.id]);
    assert!((5000..20_000).contains(&collected.removed[0].freed_bytes), "the shared layer is not freed");
    assert_eq!(names(&bench.store.images().unwrap()), ["mounted", "pinned"]);
    assert_eq!(bench.names("layers").len(), 3);
    assert!(target.0.join("mounted").exists());
    assert_eq!(bench.store.image(&pinned.id).unwrap().map(|image| image.pinned), Some(true));
    bench.store.unmount("key", &target.0).await.unwrap();
    bench.store.pin("test/pinned", false).await.unwrap();
    bench.store.collect(&all()).await.unwrap();
    for folder in ["layers", "blobs", "uses"] {
        assert!(bench.names(folder).is_empty(), "{folder}");
    }
    assert_eq!(bench.unfinished(), [""; 0].map(std::path::PathBuf::from));
    assert!(bench.store.pin("test/pinned", true).await.is_err());
}

#[tokio::test]
async fn a_full_disk_costs_the_longest_unused() {
    let bench = Bench::new();
    let (one, two) = (image(&bench, "one").await, image(&bench, "two").await);
    let young = image(&bench, "young").await;
    age(&bench, &one, 1000);
    age(&bench, &two, 2000);
    // Whatever disk this is, it is fuller than that.
    let space = Some(Thresholds { high_percent: 0, low_percent: 0 });
    let policy = GcPolicy { space, min_age: Duration::from_secs(600), ..GcPolicy::default() };
    let collected = bench.store.collect(&policy).await.unwrap();
    assert_eq!(collected.removed.iter().map(|gone| &gone.id).collect::<Vec<_>>(), [&two.id, &one.id]);
    assert!(collected.missing_bytes > 0);
    assert_eq!(names(&bench.store.images().unwrap()), ["young"]);
    // A mount is a use.
    age(&bench, &young, 1000);
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&young, "key", &target.0).await.unwrap();
    bench.store.unmount("key", &target.0).await.unwrap();
    assert!(bench.store.collect(&policy).await.unwrap().removed.is_empty());
}

#[tokio::test]
async fn what_nobody_has_a_name_for_goes_if_that_is_wanted() {
    let bench = Bench::new();
    image(&bench, "named").await;
    bench.store.import(&nameless(&bench), None, &ImportConfig::default()).await.unwrap();
    let policy = GcPolicy { untagged: true, ..GcPolicy::default() };
    assert_eq!(bench.store.collect(&GcPolicy::default()).await.unwrap().removed.len(), 0);
    assert_eq!(bench.store.collect(&policy).await.unwrap().removed.len(), 1);
    assert_eq!(names(&bench.store.images().unwrap()), ["named"]);
}

fn nameless(bench: &Bench) -> std::path::PathBuf {
    let folder = bench.folder("nameless");
    fs::write(folder.join("file"), "").unwrap();
    folder
}

#[tokio::test]
async fn a_sweep_that_somebody_is_in_the_way_of_is_made_up_for() {
    let bench = Bench::new();
    let image = image(&bench, "gone").await;
    // Another process works in the store.
    let lock = fs::File::options().write(true).open(bench.inside("use.lock")).unwrap();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockShared).unwrap();
    bench.store.remove("test/gone").await.unwrap();
    assert_eq!(bench.names("layers").len(), 2, "it may be at just these");
    drop(lock);
    bench.import(&nameless(&bench), "test/other").await;
    let gone = bench.layer(&image, 1);
    super::support::eventually("the layers go with the next work that ends", || !gone.exists());
}
