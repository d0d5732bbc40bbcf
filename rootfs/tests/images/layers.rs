//! Several layers as one root: what is hidden, what is replaced, and what folders look like.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use berth_rootfs::Image;

use super::support::{Bench, Made, Mounted, Tar};

struct Root {
    /// Unmounted first: fields go in this order.
    target: Mounted,
    image: Image,
    bench: Bench,
}

impl Root {
    async fn of(layers: &[Tar]) -> Self {
        let bench = Bench::new();
        let layers: Vec<_> = layers.iter().map(|tar| tar.clone().end()).collect();
        Made::of(&layers).lay_out(&bench.folder("layout"));
        let image = bench.import(&bench.path("layout"), "test/layers").await;
        let target = Mounted(bench.folder("target"));
        bench.store.mount(&image, "key", &target.0).await.unwrap();
        Self { target, image, bench }
    }

    /// All paths below a folder of the mounted root, sorted.
    fn all(&self, folder: &str) -> Vec<String> {
        let top = self.target.0.join(folder);
        let mut found = Vec::new();
        let mut folders = vec![top.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

#[tokio::test]
async fn a_whiteout_hides_what_is_below_and_nothing_else() {
    let root = Root::of(&[
        Tar::new().dir("d").file("d/gone", "").file("d/kept", "").dir("e").file("e/all", ""),
        Tar::new().dir("d").file("d/.wh.gone", "").file(".wh.e", "").file(".wh.never", ""),
    ])
    .await;
    assert_eq!(root.all(""), ["d", "d/kept"]);
    let whiteout = fs::symlink_metadata(root.bench.layer(&root.image, 1).join("e")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
}

#[tokio::test]
async fn a_whiteout_that_hides_nothing_does_not_show() {
    let below = || Tar::new().dir("d").file("d/below", "");
    let new = Tar::new().described("n", 0o700, 4).file("n/mine", "").file("n/m/.wh.x", "").file("n/.wh.y", "");
    for (layers, all) in [
        // A folder that no layer below has, or that a layer between hides.
        (vec![below(), new.clone()], vec!["d", "d/below", "n", "n/m", "n/mine"]),
        (vec![new.clone()], vec!["n", "n/m", "n/mine"]),
        (vec![new.clone(), Tar::new().file(".wh.n", ""), new.clone().file("z", "")], vec!["n", "n/m", "n/mine", "z"]),
        (vec![below(), new, Tar::new().file("n/top", "")], vec!["d", "d/below", "n", "n/m", "n/mine", "n/top"]),
        (vec![Tar::new().file("d", ""), Tar::new().dir("d").file("d/.wh.x", "")], vec!["d"]),
        // Folders that are opaque, further above too.
        (
            vec![below(), Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/e/f/.wh.x", "")],
            vec!["d", "d/e", "d/e/f"],
        ),
        (vec![below(), Tar::new().file("d/e/.wh.x", "").file(".wh..wh..opq", "")], vec!["d", "d/e"]),
        // By way of a link.
        (vec![below(), Tar::new().dir("n").symlink("l", "n").file("l/.wh.x", "")], vec!["d", "d/below", "l", "n"]),
    ] {
        let root = Root::of(&layers).await;
        let mut found = root.all("");
        found.retain(|path| !path.starts_with("l/"));
        assert_eq!(found, all);
    }
    let root = Root::of(&[Tar::new().described("n", 0o700, 4).file("n/.wh.y", "").file("n/a", "")]).await;
    let status = fs::symlink_metadata(root.target.0.join("n")).unwrap();
    assert_eq!((status.mode() & 0o7777, status.uid(), status.mtime()), (0o700, 4, 1_000_000));
}

#[tokio::test]
async fn an_opaque_folder_hides_all_below_wherever_its_mark_stands() {
    for last in [false, true] {
        let below = Tar::new().dir("d").file("d/below", "").dir("d/e").file("d/e/below", "");
        let upper = match last {
            true => Tar::new().dir("d").file("d/mine", "").file("d/.wh.below", "").file("d/.wh..wh..opq", ""),
            false => Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/.wh.below", "").file("d/mine", ""),
        };
        let root = Root::of(&[below, upper]).await;
        assert_eq!(root.all(""), ["d", "d/mine"], "mark last: {last}");
    }
}

#[tokio::test]
async fn a_folder_that_replaces_one_hides_it_wherever_the_whiteout_stands() {
    let below = || Tar::new().dir("d").file("d/below", "").dir("x/y").file("x/y/below", "");
    for upper in [
        Tar::new().file(".wh.d", "").dir("d").file("d/mine", "").file("x/.wh.y", "").file("x/y/mine", ""),
        Tar::new().dir("d").file("d/mine", "").file(".wh.d", "").file("x/y/mine", "").file("x/.wh.y", ""),
    ] {
        let root = Root::of(&[below(), upper]).await;
        assert_eq!(root.all(""), ["d", "d/mine", "x", "x/y", "x/y/mine"]);
    }
}

#[tokio::test]
async fn an_opaque_top_hides_all_layers_below() {
    let root = Root::of(&[Tar::new().file("a", ""), Tar::new().file(".wh..wh..opq", "").file("b", "")]).await;
    assert_eq!(root.all(""), ["b"]);
}

#[tokio::test]
async fn folders_that_a_layer_does_not_describe_look_as_below() {
    let root = Root::of(&[
        Tar::new()
            .described("./", 0o711, 7)
            .described("tmp", 0o1777, 3)
            .described("tmp/deep", 0o700, 4)
            .file("tmp/deep/a", ""),
        Tar::new().file("tmp/deep/b", "").file("other/c", ""),
        Tar::new().file("tmp/deep/d", ""),
    ])
    .await;
    assert_eq!(root.all("tmp"), ["deep", "deep/a", "deep/b", "deep/d"]);
    let looks = |path: &str| {
        let status = fs::symlink_metadata(root.target.0.join(path)).unwrap();
        (status.mode() & 0o7777, status.uid(), status.mtime())
    };
    assert_eq!(looks("."), (0o711, 7, 1_000_000));
    assert_eq!(looks("tmp"), (0o1777, 3, 1_000_000));
    assert_eq!(looks("tmp/deep"), (0o700, 4, 1_000_000));
    assert_eq!((looks("other").0, looks("other").1), (0o755, 0));
}

#[tokio::test]
async fn many_layers_and_equal_layers_stack() {
    let layer = |index: usize| Tar::new().file("all", &index.to_string()).file(&format!("own-{index}"), "");
    let mut layers: Vec<Tar> = (0..100).map(layer).collect();
    layers.push(layer(3));
    let root = Root::of(&layers).await;
    assert_eq!(root.all("").len(), 101);
    assert_eq!(fs::read_to_string(root.target.0.join("all")).unwrap(), "3");
    assert_eq!(root.bench.names("layers").len(), 100);
}

#[tokio::test]
async fn an_image_without_layers_is_an_empty_root() {
    let root = Root::of(&[]).await;
    assert!(root.all("").is_empty());
    fs::write(root.target.0.join("new"), "").unwrap();
}

#[tokio::test]
async fn a_root_keeps_what_was_written_until_it_is_forgotten() {
    let root = Root::of(&[Tar::new().file("a", "")]).await;
    let (store, target) = (&root.bench.store, &root.target.0);
    fs::write(target.join("new"), "kept").unwrap();
    berth_sys::overlay::detach(target).unwrap();
    // As after a crash: another process finds the snapshot and mounts it again.
    let store_again = root.bench.reopened();
    assert_eq!(store_again.snapshots().unwrap(), ["key"]);
    store_again.mount(&root.image, "key", target).await.unwrap();
    assert_eq!(fs::read_to_string(target.join("new")).unwrap(), "kept");
    let elsewhere = root.bench.folder("elsewhere");
    assert!(store.mount(&root.image, "key", &elsewhere).await.is_err(), "one root cannot be in two places");
    store.unmount("key", target).await.unwrap();
    store.mount(&root.image, "key", target).await.unwrap();
    assert!(!target.join("new").exists());
    fs::write(target.join("new"), "of an earlier boot").unwrap();
    berth_sys::overlay::detach(target).unwrap();
    let record = root.bench.inside("snapshots/key/snapshot.json");
    let text = fs::read_to_string(&record).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(&record, text.replace(boot.trim(), "another")).unwrap();
    store.mount(&root.image, "key", target).await.unwrap();
    assert!(!target.join("new").exists());
    for key in ["", ".", "..", "a/b", ".tmp-x"] {
        assert!(store.mount(&root.image, key, &elsewhere).await.is_err(), "{key:?}");
    }
}

#[tokio::test]
async fn layers_go_with_the_last_that_needs_them() {
    let bench = Bench::new();
    let (shared, one, two) =
        (Tar::new().file("s", "").end(), Tar::new().file("1", "").end(), Tar::new().file("2", "").end());
    Made::of(&[shared.clone(), one]).lay_out(&bench.folder("one"));
    Made::of(&[shared, two]).lay_out(&bench.folder("two"));
    let first = bench.import(&bench.path("one"), "test/one").await;
    bench.import(&bench.path("two"), "test/two").await;
    assert_eq!(bench.names("layers").len(), 3);
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&first, "key", &target.0).await.unwrap();
    bench.store.remove("test/one").await.unwrap();
    bench.store.remove("test/one").await.unwrap();
    assert!(bench.store.image("test/one").unwrap().is_none());
    assert_eq!(bench.names("layers").len(), 3, "a snapshot stands on them");
    assert!(target.0.join("1").exists());
    bench.store.unmount("key", &target.0).await.unwrap();
    assert_eq!(bench.names("layers").len(), 2);
    bench.store.remove("test/two").await.unwrap();
    assert!(bench.names("layers").is_empty() && bench.names("blobs").is_empty() && bench.unfinished().is_empty());
}
