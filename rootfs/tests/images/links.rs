//! Hard links of a layer to files of layers below.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::support::{Bench, Made, Mounted, Tar, told};

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
    // An absolute link below leads nowhere: the target is looked for in the layers, not on this machine.
    refused(&[Tar::new().symlink("etc", "/etc"), Tar::new().hard_link("b", "etc/passwd")], "b to etc/passwd").await;
}
