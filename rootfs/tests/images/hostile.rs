//! Archives that mean harm, or are broken: nothing comes out of the layer, nothing is left, the reason is told.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use berth_rootfs::{Devices, Error, ImportConfig, RegistryConfig, Store};

use super::support::{Bench, Made, Tar, told};

/// Imports the archive; whatever comes of it, the room beside the store is as it was and no unfinished thing is left.
async fn unpack(tar: Vec<u8>) -> (Bench, Result<berth_rootfs::Image, Error>) {
    let bench = Bench::new();
    let outside = bench.folder("outside");
    fs::write(outside.join("file"), "outside").unwrap();
    let result = bench.import_tar(&tar).await;
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(bench.unfinished().is_empty(), "{:?}", bench.unfinished());
    (bench, result)
}

async fn refused(tar: Tar, why: &str) {
    let (bench, result) = unpack(tar.end()).await;
    let error = told(&result.unwrap_err());
    assert!(error.contains(why), "{error}");
    assert!(bench.names("layers").is_empty());
    assert!(bench.store.images().unwrap().is_empty());
}

#[tokio::test]
async fn paths_that_leave_the_layer_are_refused() {
    refused(Tar::new().file("../outside/file", "evil"), "'..'").await;
    refused(Tar::new().file("a/../../outside/file", "evil"), "'..'").await;
    refused(Tar::new().hard_link("a", "../outside/file"), "'..'").await;
    refused(Tar::new().file("", "evil"), "top folder").await;
    refused(Tar::new().symlink("/", "/outside"), "top folder").await;
    refused(Tar::new().file(".wh.", ""), "names nothing").await;
    refused(Tar::new().file("a/.wh...", ""), "names nothing").await;
}

#[tokio::test]
async fn links_are_followed_within_the_layer_alone() {
    let bench = Bench::new();
    let outside = bench.folder("outside");
    fs::write(outside.join("file"), "outside").unwrap();
    let outside = outside.to_str().unwrap();
    for target in [outside.to_owned(), format!("../../../../../../../..{outside}")] {
        let tar = Tar::new().symlink("way", &target).file("way/file", "evil").end();
        let error = bench.import_tar(&tar).await.unwrap_err();
        assert!(told(&error).contains("leads nowhere"), "{}", told(&error));
        let tar = Tar::new().symlink("way", &target).hard_link("mine", "way/file").end();
        let error = bench.import_tar(&tar).await.unwrap_err();
        assert!(told(&error).contains("way/file leads nowhere"), "{}", told(&error));
    }
    assert_eq!(fs::read_to_string(bench.path("outside/file")).unwrap(), "outside");
    // An absolute link means the layer's own top.
    let tar = Tar::new().dir("usr/lib").symlink("lib", "/usr/lib").symlink("up", "../../usr").file("lib/a", "a");
    let image = bench.import_tar(&tar.file("up/lib/b", "b").file("/absolute", "c").end()).await.unwrap();
    let layer = bench.layer(&image, 0);
    assert_eq!(fs::read_to_string(layer.join("usr/lib/a")).unwrap(), "a");
    assert_eq!(fs::read_to_string(layer.join("usr/lib/b")).unwrap(), "b");
    assert_eq!(fs::read_to_string(layer.join("absolute")).unwrap(), "c");
}

#[tokio::test]
async fn a_link_in_the_way_is_replaced_and_never_written_through() {
    let bench = Bench::new();
    let outside = bench.folder("outside");
    let file = outside.join("file");
    fs::write(&file, "outside").unwrap();
    let tar = Tar::new()
        .symlink("file", file.to_str().unwrap())
        .file("file", "mine")
        .symlink("dir", outside.to_str().unwrap())
        .dir("dir")
        .file("dir/file", "mine")
        .symlink("link", outside.to_str().unwrap())
        .symlink("link", "elsewhere")
        .hard_link("hard", "link")
        .end();
    let image = bench.import_tar(&tar).await.unwrap();
    let layer = bench.layer(&image, 0);
    assert_eq!(fs::read_to_string(layer.join("file")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(layer.join("dir/file")).unwrap(), "mine");
    assert_eq!(fs::read_link(layer.join("hard")).unwrap().to_str(), Some("elsewhere"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "outside");
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap().as_secs() / 3600, 0);
}

#[tokio::test]
async fn kinds_change_and_the_last_entry_counts() {
    let tar = Tar::new()
        .dir("a")
        .file("a/b", "gone")
        .file("a", "file")
        .file("c", "gone")
        .dir("c")
        .file("c/d", "here")
        .hard_link("c/d", "c/d")
        .hard_link("e", "c/d")
        .file("c/d", "new");
    let (bench, image) = unpack(tar.end()).await;
    let layer = bench.layer(&image.unwrap(), 0);
    assert_eq!(fs::read_to_string(layer.join("a")).unwrap(), "file");
    assert_eq!(fs::read_to_string(layer.join("c/d")).unwrap(), "new");
    assert_eq!(fs::read_to_string(layer.join("e")).unwrap(), "here");
}

#[tokio::test]
async fn impossible_links_are_refused() {
    refused(Tar::new().hard_link("a", "not-here"), "a to not-here leads nowhere").await;
    refused(Tar::new().dir("d").hard_link("a", "d"), "to a folder").await;
    refused(Tar::new().hard_link("a", "/"), "top").await;
    refused(Tar::new().file(".wh.w", "").hard_link("a", "w"), "what this layer hides").await;
    refused(Tar::new().file("f", "").file("f/g", ""), "no folder").await;
    refused(Tar::new().symlink("a", ""), "without a target").await;
}

#[tokio::test]
async fn devices_are_left_out_and_cannot_pass_for_whiteouts() {
    let tar = Tar::new()
        .entry(b'3', "dev/null", "", b"")
        .entry(b'4', "dev/disk", "", b"")
        .hard_link("dev/same", "dev/null")
        .file("dev/file", "");
    let (bench, image) = unpack(tar.end()).await;
    let layer = bench.layer(&image.unwrap(), 0);
    let names: Vec<_> = fs::read_dir(layer.join("dev")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
}

#[tokio::test]
async fn a_file_that_takes_the_name_of_a_device_can_be_linked_to() {
    let (bench, image) = unpack(Tar::new().device("x", 1, 3).file("x", "file").hard_link("y", "x").end()).await;
    assert_eq!(fs::read_to_string(bench.layer(&image.unwrap(), 0).join("y")).unwrap(), "file");
}

#[tokio::test]
async fn what_has_no_measure_is_refused() {
    // A name or a target in an extended header, as long as that may be.
    let long = |keyword: &str, bytes: usize| {
        let record = |length: usize| format!("{length} {keyword}={}\n", "x".repeat(bytes));
        let length = record(1_000_000).len();
        record(length - usize::from(length.to_string().len() < 7)).into_bytes()
    };
    for (keyword, flag) in [("linkpath", b'2'), ("linkpath", b'1'), ("path", b'0')] {
        let header = long(keyword, 500_000);
        let tar = Tar::new().file("a", "").entry(b'x', "header", "", &header).entry(flag, "b", "a", b"");
        refused(tar, "too long").await;
    }
    let deep = vec!["d"; 300].join("/");
    refused(Tar::new().entry(b'L', "name", "", format!("{deep}\0").as_bytes()).file("a", ""), "folders above").await;
    let implicit = (0..65_540).fold(Tar::new(), |tar, number| tar.file(&format!("{number}/f"), ""));
    refused(implicit, "folders that are not described").await;
    let links = (0..65_540).fold(Tar::new(), |tar, number| tar.hard_link(&number.to_string(), "below"));
    refused(links, "hard links to layers below").await;
}

#[tokio::test]
async fn devices_are_made_if_that_is_wanted_but_for_whiteouts() {
    let bench = Bench::new();
    let (store, path) = (bench.path("with-devices"), bench.path("rootfs.tar"));
    let store = Store::open_with(&store, RegistryConfig::default(), Devices::Make).unwrap();
    let tar = Tar::new().device("dev/null", 1, 3).device("dev/none", 0, 0).hard_link("dev/same", "dev/null");
    fs::write(&path, tar.end()).unwrap();
    store.import(&path, Some(&"test/devices".parse().unwrap()), &ImportConfig::default()).await.unwrap();
    let layers = fs::read_dir(bench.path("with-devices/layers")).unwrap();
    let dev = layers.map(|entry| entry.unwrap().path()).next().unwrap().join("diff/dev");
    let status = fs::symlink_metadata(dev.join("null")).unwrap();
    assert!(status.file_type().is_char_device());
    assert_eq!((status.rdev(), status.nlink(), status.mode() & 0o777), (nix::sys::stat::makedev(1, 3), 2, 0o644));
    assert!(!dev.join("none").exists());
}

#[tokio::test]
async fn unknown_kinds_and_broken_archives_are_told() {
    refused(Tar::new().entry(b'V', "volume", "", b""), "type is unknown").await;
    let whole = Tar::new().file("a", &"x".repeat(5000)).end();
    let (_, result) = unpack(whole[..3000].to_vec()).await;
    assert!(told(&result.unwrap_err()).contains("ends inside"));
    let mut wrong = whole.clone();
    wrong[0] = b'b';
    let (_, result) = unpack(wrong).await;
    assert!(told(&result.unwrap_err()).contains("checksum"));
    let deep = "d/".repeat(45);
    let mut tar = Tar::new();
    for depth in 1..8 {
        tar = tar.symlink(&format!("l{depth}"), &deep);
    }
    let (bench, result) = unpack(tar.file(&format!("{deep}f"), "deep").end()).await;
    assert!(bench.layer(&result.unwrap(), 0).join(&deep).join("f").is_file());
}

#[tokio::test]
async fn a_layout_cannot_read_outside_itself() {
    let bench = Bench::new();
    let layout = bench.folder("layout");
    Made::of(&[Tar::new().file("a", "a").end()]).lay_out(&layout);
    let blobs: Vec<_> = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for blob in blobs {
        let moved = bench.path("outside").join(blob.file_name().unwrap());
        fs::create_dir_all(bench.path("outside")).unwrap();
        fs::rename(&blob, &moved).unwrap();
        symlink(&moved, &blob).unwrap();
    }
    let error = bench.try_import(&layout, "test/links").await.unwrap_err();
    assert!(told(&error).contains("no file"), "{}", told(&error));
}
