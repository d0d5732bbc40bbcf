//! Roots that cannot be written to, that belong to a user namespace, and what is written to one.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_rootfs::{Access, Error, IdMap, Image, ImportConfig, MountOptions, Owners, RegistryConfig, Store};

use super::support::{Bench, Made, Mounted, Tar, told};

const OUTSIDE: u32 = 300_000;

async fn two_layers(bench: &Bench) -> Image {
    let lower = Tar::new().described("etc", 0o750, 7).file("etc/passwd", "root").described("home", 0o755, 1000).end();
    let upper = Tar::new().file("etc/shadow", "").end();
    Made::of(&[lower, upper]).lay_out(&bench.folder("layout"));
    bench.import(&bench.path("layout"), "test/two").await
}

fn owners() -> Option<Owners> {
    let map = vec![IdMap { inside: 0, outside: OUTSIDE, count: 65_536 }];
    Some(Owners { users: map.clone(), groups: map })
}

fn owner(path: &Path) -> (u32, u32) {
    let status = fs::symlink_metadata(path).unwrap();
    (status.uid(), status.gid())
}

#[tokio::test]
async fn a_read_only_root_shows_the_image_and_takes_nothing() {
    let bench = Bench::new();
    let image = two_layers(&bench).await;
    let target = Mounted(bench.folder("target"));
    let options = MountOptions { access: Access::ReadOnly, ..MountOptions::default() };
    bench.store.mount_with(&image, "key", &target.0, &options).await.unwrap();
    bench.store.mount_with(&image, "key", &target.0, &options).await.expect("mounted there already");
    assert_eq!(fs::read_to_string(target.0.join("etc/passwd")).unwrap(), "root");
    assert_eq!(owner(&target.0.join("etc")), (7, 7), "as the layer below describes it");
    let error = fs::write(target.0.join("new"), "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    let empty = bench.folder("empty");
    Made::of(&[]).lay_out(&bench.folder("none"));
    let nothing = bench.import(&bench.path("none"), "test/none").await;
    bench
        .store
        .mount_with(&nothing, "empty", &empty, &options)
        .await
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    bench.store.unmount("empty", &empty).await.unwrap();
}

#[tokio::test]
async fn owners_are_those_of_the_user_namespace_and_the_layers_stay_as_they_are() {
    let bench = Bench::new();
    let image = two_layers(&bench).await;
    let target = Mounted(bench.folder("target"));
    for access in [Access::ReadOnly, Access::Writable] {
        let options = MountOptions { access, owners: owners() };
        let mounted = bench.store.mount_with(&image, "key", &target.0, &options).await;
        mounted.unwrap_or_else(|error| panic!("{}", told(&error)));
        bench.store.mount_with(&image, "key", &target.0, &options).await.expect("mounted there already");
        assert_eq!(owner(&target.0.join("etc")), (OUTSIDE + 7, OUTSIDE + 7));
        assert_eq!(owner(&target.0.join("etc/shadow")), (OUTSIDE, OUTSIDE));
        assert_eq!(owner(&target.0), (OUTSIDE, OUTSIDE));
        if access == Access::Writable {
            let new = target.0.join("new");
            fs::write(&new, "").unwrap();
            std::os::unix::fs::chown(&new, Some(OUTSIDE + 5), Some(OUTSIDE)).unwrap();
            assert_eq!(owner(&bench.inside("snapshots/key/upper/new")), (OUTSIDE + 5, OUTSIDE));
        }
        bench.store.unmount("key", &target.0).await.unwrap();
    }
    assert_eq!(owner(&bench.layer(&image, 0).join("etc")), (7, 7));
    assert!(bench.names("snapshots").is_empty() && bench.unfinished().is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bench.path("").to_str().unwrap()), "no mount is left");
}

#[tokio::test]
async fn mounts_that_a_kill_left_are_taken_away_and_harm_no_layer() {
    let bench = Bench::new();
    let image = two_layers(&bench).await;
    let target = Mounted(bench.folder("target"));
    let options = MountOptions { owners: owners(), ..MountOptions::default() };
    bench.store.mount_with(&image, "key", &target.0, &options).await.unwrap();
    // As if the process had been killed before the overlay stood: a layer is mounted in the snapshot's folder.
    let view = bench.inside("snapshots/key/views/0");
    fs::create_dir_all(&view).unwrap();
    let layer = bench.layer(&image, 0);
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&layer), &view, None::<&str>, bind, None::<&str>).unwrap();
    bench.reopened().unmount("key", &target.0).await.unwrap();
    assert!(bench.names("snapshots").is_empty() && bench.unfinished().is_empty());
    assert!(layer.join("etc/passwd").exists());
}

fn tmpfs(target: &Path) {
    nix::mount::mount(Some("stranger"), target, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
}

fn is_busy(outcome: &Result<(), Error>) -> bool {
    outcome.as_ref().is_err_and(|error| told(error).contains("busy"))
}

#[tokio::test]
async fn what_others_mounted_stays() {
    let bench = Bench::new();
    let image = two_layers(&bench).await;
    let theirs = Mounted(bench.folder("theirs"));
    tmpfs(&theirs.0);
    bench.store.unmount("none", &theirs.0).await.unwrap();
    assert!(berth_sys::mountinfo::is_mounted(&theirs.0).unwrap());
    // Over ours, or ours mounted again elsewhere: nothing of it can be forgotten.
    let (ours, again) = (Mounted(bench.folder("ours")), Mounted(bench.folder("again")));
    bench.store.mount(&image, "key", &ours.0).await.unwrap();
    fs::write(ours.0.join("written"), "").unwrap();
    tmpfs(&ours.0);
    assert!(is_busy(&bench.store.unmount("key", &ours.0).await));
    berth_sys::overlay::detach(&ours.0).unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&ours.0), &again.0, None::<&str>, bind, None::<&str>).unwrap();
    assert!(is_busy(&bench.store.unmount("key", &ours.0).await));
    assert!(again.0.join("written").exists() && bench.inside("snapshots/key/upper/written").exists());
    berth_sys::overlay::detach(&again.0).unwrap();
    bench.store.unmount("key", &ours.0).await.unwrap();
    assert!(bench.names("snapshots").is_empty());
}

#[tokio::test]
async fn another_image_or_another_place_is_refused_while_a_root_is_mounted() {
    let bench = Bench::new();
    let image = two_layers(&bench).await;
    Made::of(&[Tar::new().file("a", "").end()]).lay_out(&bench.folder("other"));
    let other = bench.import(&bench.path("other"), "test/other").await;
    let (target, elsewhere) = (Mounted(bench.folder("target")), bench.folder("elsewhere"));
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    assert!(is_busy(&bench.store.mount(&other, "key", &target.0).await));
    assert!(is_busy(&bench.store.mount(&image, "key", &elsewhere).await));
    let read_only = MountOptions { access: Access::ReadOnly, ..MountOptions::default() };
    assert!(is_busy(&bench.store.mount_with(&image, "key", &target.0, &read_only).await));
    assert!(target.0.join("etc/passwd").exists());
}

#[tokio::test]
async fn a_root_is_known_by_a_link_to_its_place_and_below_the_longest_paths() {
    let top = Bench::new();
    let long = top.path(&format!("{}/{}", "l,o:n\\g ".repeat(20), "x".repeat(200)));
    fs::create_dir_all(&long).unwrap();
    let store = Store::open(&long.join("store"), RegistryConfig::default()).unwrap();
    Made::of(&[Tar::new().file("a", "").end()]).lay_out(&top.folder("layout"));
    let images = store.import(&top.path("layout"), None, &ImportConfig::default()).await.unwrap();
    let target = Mounted(top.folder("target"));
    let link = top.path("link");
    std::os::unix::fs::symlink("target", &link).unwrap();
    for place in [&target.0, &link] {
        store.mount(&images[0], "key", place).await.unwrap_or_else(|error| panic!("{}", told(&error)));
        fs::write(target.0.join("new"), "").unwrap();
        // As another process would find it: it does not make the live root's folders anew.
        let again = Store::open(&long.join("store"), RegistryConfig::default()).unwrap();
        again.mount(&images[0], "key", &target.0).await.expect("mounted there already");
        assert!(target.0.join("new").exists());
        fs::rename(target.0.join("new"), target.0.join("newer")).expect("the kernel has its work folder");
        store.unmount("key", place).await.unwrap();
        assert!(!berth_sys::mountinfo::is_mounted(&target.0).unwrap());
    }
}

#[tokio::test]
async fn snapshots_of_an_earlier_run_of_the_machine_go() {
    let bench = Bench::new();
    let image = two_layers(&bench).await;
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    berth_sys::overlay::detach(&target.0).unwrap();
    bench.store.remove("test/two").await.unwrap();
    assert_eq!((bench.names("snapshots").len(), bench.names("layers").len()), (1, 2));
    let record = bench.inside("snapshots/key/snapshot.json");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains(boot_id.trim()));
    fs::write(&record, text.replace(boot_id.trim(), "another")).unwrap();
    bench.reopened();
    assert!(bench.names("snapshots").is_empty() && bench.names("layers").is_empty());
}

#[tokio::test]
async fn what_was_written_is_counted_in_blocks_and_each_file_once() {
    let bench = Bench::new();
    let image = two_layers(&bench).await;
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    let before = bench.store.usage("key").await.unwrap();
    fs::create_dir_all(target.0.join("a/b")).unwrap();
    fs::write(target.0.join("a/b/file"), vec![1; 100_000]).unwrap();
    fs::hard_link(target.0.join("a/b/file"), target.0.join("a/same")).unwrap();
    std::os::unix::fs::symlink("/", target.0.join("a/link")).unwrap();
    let after = bench.store.usage("key").await.unwrap();
    assert_eq!(after.inodes - before.inodes, 4);
    assert!((100_000..200_000).contains(&(after.bytes - before.bytes)), "{after:?}");
    assert!(bench.store.usage("another").await.is_err());
    // Deeper than any path, and than there are descriptors.
    let root = berth_sys::beneath::Root::open(&target.0).unwrap();
    let mut folder = root.folder().folder("a".as_ref()).unwrap();
    for _ in 0..2000 {
        folder.make_folder("deep".as_ref(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        folder = folder.folder("deep".as_ref()).unwrap();
    }
    std::io::Write::write_all(
        &mut folder.create("file".as_ref(), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        &[1; 50_000],
    )
    .unwrap();
    let deepest = bench.store.usage("key").await.unwrap();
    assert_eq!(deepest.inodes - after.inodes, 2001);
    assert!(deepest.bytes - after.bytes >= 50_000);
}

#[test]
fn what_moves_while_it_is_counted_ends_no_count() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let image = runtime.block_on(two_layers(&bench));
    let target = Mounted(bench.folder("target"));
    runtime.block_on(bench.store.mount(&image, "key", &target.0)).unwrap();
    for folder in 0..200 {
        fs::create_dir_all(target.0.join(format!("{folder}/a/b/c"))).unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                let (one, other) = (target.0.join(format!("{}/a", round % 200)), target.0.join("moved"));
                fs::rename(&one, &other).unwrap();
                fs::write(&one, "").unwrap();
                fs::remove_file(&one).unwrap();
                fs::rename(&other, &one).unwrap();
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        let counts: Vec<_> = (0..50).map(|_| runtime.block_on(bench.store.usage("key"))).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        // Each move hides four folders of one branch at most.
        assert!(counts.iter().all(|usage| usage.as_ref().is_ok_and(|usage| usage.inodes > 200)), "{counts:?}");
    });
}
