//! Hard links of a layer to files of layers below.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::support::{Bench, Made, Mounted, Tar, run, told};

async fn mounted(layers: &[Tar]) -> (Mounted, Bench) {
    let bench = Bench::new();
    let layers: Vec<_> = layers.iter().map(|tar| tar.clone().end()).collect();
    Made::of(&layers).lay_out(&bench.folder("layout"));
    let image = bench.import(&bench.path("layout"), "test/links").await;
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&image, "key", &target.0).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    (target, bench)
}

#[tokio::test]
async fn a_link_into_a_layer_below_is_the_file_that_is_there() {
    let below = Tar::new().described("lib", 0o711, 3).file("lib/file", "content").symlink("lib/soft", "file");
    let above = Tar::new().dir("bin").hard_link("bin/same", "lib/file").hard_link("bin/soft", "lib/soft");
    let (target, _bench) = mounted(&[below, Tar::new().file("between", ""), above]).await;
    let status = |path: &str| fs::symlink_metadata(target.0.join(path)).unwrap();
    assert_eq!(fs::read_to_string(target.0.join("bin/same")).unwrap(), "content");
    assert_eq!(status("bin/same").ino(), status("lib/file").ino());
    assert_eq!((status("bin/same").nlink(), status("bin/same").mtime()), (2, 1_000_000));
    assert_eq!((status("lib").mode() & 0o7777, status("lib").uid()), (0o711, 3), "its folder is as below");
    assert_eq!(fs::read_link(target.0.join("bin/soft")).unwrap().to_str(), Some("file"));
}

#[tokio::test]
async fn links_of_links_and_of_what_is_hidden_above_find_the_file() {
    let (target, _bench) = mounted(&[
        Tar::new().file("a", "lowest"),
        Tar::new().hard_link("b", "a").hard_link("c", "b"),
        Tar::new().hard_link("d", "c").file(".wh.a", "").file("b", "replaced"),
    ])
    .await;
    let read = |path: &str| fs::read_to_string(target.0.join(path)).unwrap();
    assert!(!target.0.join("a").exists());
    assert_eq!([read("b"), read("c"), read("d")], ["replaced", "lowest", "lowest"]);
}

#[tokio::test]
async fn a_link_that_is_replaced_or_hidden_later_is_not_made() {
    let (target, _bench) = mounted(&[
        Tar::new().file("a", "lowest"),
        Tar::new().hard_link("b", "a").file("b", "a file after all").hard_link("c", "a"),
        Tar::new().file(".wh.c", ""),
    ])
    .await;
    assert_eq!(fs::read_to_string(target.0.join("b")).unwrap(), "a file after all");
    assert!(!target.0.join("c").exists());
    assert_eq!(fs::symlink_metadata(target.0.join("a")).unwrap().nlink(), 1);
}

#[tokio::test]
async fn a_link_to_what_no_layer_has_is_an_error_when_the_image_comes() {
    let bench = Bench::new();
    let refused = async |layers: &[Tar], why: &str| {
        let layers: Vec<_> = layers.iter().map(|tar| tar.clone().end()).collect();
        let layout = tempfile::tempdir_in("/dev/shm").unwrap();
        Made::of(&layers).lay_out(layout.path());
        let error = bench.try_import(layout.path(), "test/refused").await.unwrap_err();
        assert!(told(&error).contains(why), "{}", told(&error));
        assert!(bench.store.images().unwrap().is_empty());
    };
    refused(&[Tar::new().hard_link("b", "a")], "b to a").await;
    refused(&[Tar::new().dir("a"), Tar::new().hard_link("b", "a")], "b to a").await;
    refused(&[Tar::new().file("a", ""), Tar::new().file(".wh.a", ""), Tar::new().hard_link("b", "a")], "b to a").await;
    let below = [Tar::new().file("a", ""), Tar::new().hard_link("b", "a").file("b/c", "")];
    refused(&below, "is no folder").await;
    // An absolute link below leads nowhere: the target is looked for in the layers, not on this machine.
    refused(&[Tar::new().symlink("etc", "/etc"), Tar::new().hard_link("b", "etc/passwd")], "b to etc/passwd").await;
}

#[tokio::test]
async fn a_link_stays_when_its_layer_then_hides_or_replaces_the_target() {
    let below = Tar::new().file("a", "lowest").file("b", "below");
    let hides = Tar::new().hard_link("link", "a").hard_link("b", "a").file(".wh.a", "").file(".wh.b", "");
    let (target, _bench) = mounted(&[below.clone(), hides]).await;
    let read = |target: &Mounted, path: &str| fs::read_to_string(target.0.join(path)).unwrap();
    assert_eq!([read(&target, "link"), read(&target, "b")], ["lowest", "lowest"]);
    assert!(!target.0.join("a").exists(), "the layer hides it");
    let (target, _bench) = mounted(&[below, Tar::new().hard_link("link", "a").file("a", "new")]).await;
    assert_eq!([read(&target, "link"), read(&target, "a")], ["lowest", "new"]);
}

#[tokio::test]
async fn what_stands_between_a_link_and_its_file_counts() {
    let read = |target: &Mounted, path: &str| fs::read_to_string(target.0.join(path)).unwrap();
    // A top that hides all below it.
    let hides = Tar::new().file("b", "new").file(".wh..wh..opq", "");
    let (target, _bench) = mounted(&[Tar::new().file("a", "old"), hides, Tar::new().hard_link("c", "b")]).await;
    assert!(!target.0.join("a").exists());
    assert_eq!([read(&target, "b"), read(&target, "c")], ["new", "new"]);
    // A folder of the link's name in layers below, of which one does not describe it.
    let folder = Tar::new().dir("f").file("a", "file");
    let (target, _bench) = mounted(&[folder, Tar::new().file("f/x", ""), Tar::new().hard_link("f", "a")]).await;
    assert_eq!(read(&target, "f"), "file");
    // A folder by way of a link, and one that is replaced.
    let (target, _bench) = mounted(&[
        Tar::new().file("a", "file"),
        Tar::new()
            .dir("n")
            .symlink("l", "n")
            .hard_link("l/b", "a")
            .hard_link("l/c", "l/b")
            .hard_link("d/b", "a")
            .file("d", "no folder"),
    ])
    .await;
    assert_eq!([read(&target, "n/b"), read(&target, "n/c"), read(&target, "d")], ["file", "file", "no folder"]);
    // A layer that comes twice.
    let (lower, link) = (Tar::new().file("a", "file"), Tar::new().hard_link("b", "a"));
    let (target, _bench) = mounted(&[lower.clone(), link, lower]).await;
    assert_eq!([read(&target, "a"), read(&target, "b")], ["file", "file"]);
}

#[tokio::test]
async fn links_to_one_file_are_one_copy_whose_holes_are_holes() {
    // One block of data in the middle of a gigabyte.
    let (size, at) = (1u64 << 30, 300u64 << 20);
    let sparse = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = fs::File::create(sparse.path().join("big")).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&[7; 4096], at).unwrap();
    let below = sparse.path().join("below.tar");
    let folder = sparse.path().to_str().unwrap();
    run("tar", &["-C", folder, "-S", "--format=posix", "-cf", below.to_str().unwrap(), "big"]);
    let bench = Bench::new();
    let above = Tar::new().hard_link("b", "big").hard_link("c", "big").hard_link("d", "c").file(".wh.big", "").end();
    Made::of(&[fs::read(&below).unwrap(), above]).lay_out(&bench.folder("layout"));
    let image = bench.import(&bench.path("layout"), "test/sparse").await;
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    let status = |name: &str| fs::metadata(target.0.join(name)).unwrap();
    assert_eq!((status("b").len(), status("b").nlink()), (size, 3));
    assert!(status("b").ino() == status("c").ino() && status("c").ino() == status("d").ino());
    let mut block = [0; 4096];
    fs::File::open(target.0.join("c")).unwrap().read_exact_at(&mut block, at).unwrap();
    assert_eq!(block, [7; 4096]);
    let taken = bench.store.usage("key").await.unwrap().bytes;
    assert!(taken < 100_000, "{taken} bytes for one block");
}

#[tokio::test]
async fn an_image_that_leaves_too_much_to_its_other_layers_is_refused() {
    let bench = Bench::new();
    let links = (0..41_000).fold(Tar::new(), |tar, link| tar.hard_link(&format!("link{link}"), "a"));
    let mut layers = vec![Tar::new().file("a", "").end(), links.end()];
    layers.extend((0..198).map(|layer: u32| Tar::new().file(&format!("file{layer}"), "").end()));
    Made::of(&layers).lay_out(&bench.folder("layout"));
    let error = told(&bench.try_import(&bench.path("layout"), "test/many").await.unwrap_err());
    assert!(error.contains("too many in 200 layers"), "{error}");
    assert!(bench.store.images().unwrap().is_empty() && bench.names("layers").is_empty());
}
