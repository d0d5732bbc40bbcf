//! Roots that cannot be written to, that belong to a user namespace, and what is written to one.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_rootfs::{Access, IdMap, Image, MountOptions, Owners};

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
    assert!(bench.names("snapshots").is_empty() && bench.names("tmp").is_empty());
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
    assert!(bench.names("snapshots").is_empty() && bench.names("tmp").is_empty());
    assert!(layer.join("etc/passwd").exists());
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
}
