//! Images from files, made by other programs and by hand.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use berth_rootfs::{ImportConfig, Reference};

use super::support::{Bench, Made, Mounted, Tar, assert_same, make_tree, run, told};

#[tokio::test]
async fn a_folder_becomes_an_image_and_a_root_that_looks_like_it() {
    let bench = Bench::new();
    let tree = bench.folder("tree");
    make_tree(&tree);
    let name: Reference = "test/folder:1".parse().unwrap();
    let config = ImportConfig {
        entrypoint: vec!["/bin/tool".into()],
        cmd: vec!["-x".into()],
        env: vec!["A=b".into()],
        user: Some("1000:1000".into()),
        working_dir: Some("/etc".into()),
    };
    let images = bench.store.import(&tree, Some(&name), &config).await.unwrap();
    let image = bench.store.image("test/folder:1").unwrap().unwrap();
    assert_eq!(images[0].id, image.id);
    let run = image.config.config().as_ref().unwrap();
    assert_eq!(run.entrypoint().as_deref(), Some(&["/bin/tool".to_owned()][..]));
    assert_eq!(run.user().as_deref(), Some("1000:1000"));
    assert_same(&tree, &bench.layer(&image, 0));

    let target = Mounted(bench.folder("target"));
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    assert_same(&tree, &target.0);
    fs::write(target.0.join("new"), "").unwrap();
    assert_eq!(bench.store.snapshots().unwrap(), ["key"]);
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    bench.store.unmount("key", &target.0).await.unwrap();
    bench.store.unmount("key", &target.0).await.unwrap();
    assert!(bench.store.snapshots().unwrap().is_empty());
    assert_eq!(fs::read_dir(&target.0).unwrap().count(), 0);
    assert!(!bench.layer(&image, 0).join("new").exists());

    let again = bench.store.import(&tree, Some(&name), &config).await.unwrap();
    assert_eq!(again[0].id, image.id, "the same folder is the same image");
}

#[tokio::test]
async fn a_tar_of_any_writer_becomes_the_tree_that_was_in_it() {
    let bench = Bench::new();
    let tree = bench.folder("tree");
    make_tree(&tree);
    let (tree_text, tar) = (tree.to_str().unwrap(), bench.path("rootfs.tar"));
    let tar_text = tar.to_str().unwrap();
    let attributes = ["--xattrs", "--xattrs-include=*", "-C", tree_text, "-cf", tar_text, "."];
    for format in ["--format=posix", "--format=posix --zstd", "--format=posix -z"] {
        let arguments: Vec<&str> = format.split(' ').chain(attributes).collect();
        run("tar", &arguments);
        let image = bench.import(&tar, "test/tar").await;
        assert_same(&tree, &bench.layer(&image, 0));
    }
}

#[tokio::test]
async fn each_way_to_write_holes_and_long_names_is_read() {
    let bench = Bench::new();
    let tree = bench.folder("tree");
    let holes = fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(5 << 20).unwrap();
    // More pieces than the old format has room for in one block, and a hole at the end.
    (0..40u64).for_each(|piece| holes.write_all_at(&[1; 4096], piece * (100 << 10)).unwrap());
    fs::File::create(tree.join("hole")).unwrap().set_len(1 << 20).unwrap();
    let deep = tree.join("long".repeat(40)).join("name".repeat(40));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "long").unwrap();
    std::os::unix::fs::symlink("target".repeat(40), tree.join("link")).unwrap();
    fs::hard_link(deep.join("file"), tree.join("same")).unwrap();
    // The old format has whole seconds.
    run("find", &[tree.to_str().unwrap(), "-exec", "touch", "-h", "-d", "@1000000", "{}", "+"]);
    let tar = bench.path("archive.tar");
    for format in ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"] {
        let options = format!("--format={format} -S -C {} -cf {} .", tree.display(), tar.display());
        run("tar", &options.split(' ').collect::<Vec<_>>());
        assert!(fs::metadata(&tar).unwrap().len() < 1 << 20, "{format}: without holes");
        let image = bench.import(&tar, "test/holes").await;
        let layer = bench.layer(&image, 0);
        assert_same(&tree, &layer);
        for file in ["holes", "hole"] {
            let taken = |top: &Path| fs::metadata(top.join(file)).unwrap().blocks();
            assert_eq!(taken(&tree), taken(&layer), "{format}: {file}");
        }
    }
}

#[tokio::test]
async fn an_archive_may_come_through_a_pipe() {
    let bench = Bench::new();
    let tree = bench.folder("tree");
    make_tree(&tree);
    let plain = bench.import(&tree, "test/folder").await;
    let pipe = bench.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for compression in ["--format=posix", "-z", "--zstd"] {
        let attributes = "--xattrs --xattrs-include=*";
        let command = format!("tar {attributes} {compression} -C {} -cf - . > {}", tree.display(), pipe.display());
        let mut tar = std::process::Command::new("sh").args(["-c", &command]).spawn().unwrap();
        let image = bench.import(&pipe, "test/pipe").await;
        assert!(tar.wait().unwrap().success());
        assert_same(&bench.layer(&plain, 0), &bench.layer(&image, 0));
        assert!(bench.unfinished().is_empty());
    }
}

#[tokio::test]
async fn compressions_that_no_image_has_are_named() {
    let bench = Bench::new();
    let archive = bench.path("archive");
    for (name, head) in [("xz", &b"\xfd7zXZ\0\0\x04\xe6\xd6"[..]), ("bzip2", b"BZh91AY&SY")] {
        fs::write(&archive, [head, &[0; 2000]].concat()).unwrap();
        let error = bench.try_import(&archive, "test/strange").await.unwrap_err();
        assert!(told(&error).contains(name) && told(&error).contains("gzip"), "{}", told(&error));
        // And so is that of a layer.
        let mut made = Made::default();
        let blob = fs::read(&archive).unwrap();
        made.layer(&blob, blob.clone(), "application/vnd.oci.image.layer.v1.tar+gzip");
        made.lay_out(&bench.folder(name));
        let error = bench.try_import(&bench.path(name), "test/strange").await.unwrap_err();
        assert!(told(&error).contains(name) && told(&error).contains("gzip"), "{}", told(&error));
    }
}

#[tokio::test]
async fn an_archive_that_grows_without_measure_is_refused() {
    let bench = Bench::new();
    let archive = bench.path("bomb.tar.gz");
    // 1.2 GB of nothing in about 1 MB.
    let file = fs::File::create(&archive).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    (0..1200).for_each(|_| gzip.write_all(&zeros).unwrap());
    gzip.finish().unwrap();
    let error = bench.try_import(&archive, "test/bomb").await.unwrap_err();
    assert!(told(&error).contains("more than 1073741824 bytes without compression"), "{}", told(&error));
    assert!(bench.unfinished().is_empty());
}

/// A layout in which images have these names, each an image of its own number.
fn lay_out(top: &Path, entries: &[(u8, &str)]) {
    let mut index = Vec::new();
    for (number, name) in entries {
        let mut made = Made::of(&[Tar::new().file(&number.to_string(), "").end()]);
        let mut entry = made.manifest();
        entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": name });
        index.push(entry);
        made.lay_out(top);
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": index });
    fs::write(top.join("index.json"), index.to_string()).unwrap();
}

#[tokio::test]
async fn of_several_images_the_one_of_the_wanted_name_comes_in() {
    let bench = Bench::new();
    let names = |images: &[berth_rootfs::Image]| -> Vec<Vec<String>> {
        images.iter().map(|image| image.tags.clone()).collect()
    };
    let import = |top: &Path, name: Option<&str>| {
        let (store, top) = (bench.store.clone(), top.to_owned());
        let name = name.map(|name| name.parse().unwrap());
        async move { store.import(&top, name.as_ref(), &ImportConfig::default()).await }
    };
    // One image with two names.
    let one = bench.folder("one");
    lay_out(&one, &[(1, "x.example/app:1"), (1, "x.example/app:latest")]);
    let all = import(&one, None).await.unwrap();
    assert_eq!(names(&all), [["x.example/app:1", "x.example/app:latest"]]);
    let named = import(&one, Some("y.example/app")).await.unwrap();
    assert_eq!((named.len(), &named[0].id), (1, &all[0].id));
    // Two images, called by tags or by names.
    for (dir, first, second) in [("tags", "1", "2"), ("names", "x.example/two:1", "x.example/two:2")] {
        let two = bench.folder(dir);
        lay_out(&two, &[(1, first), (2, second)]);
        let chosen = import(&two, Some("x.example/two:2")).await.unwrap();
        assert!(chosen.len() == 1 && bench.layer(&chosen[0], 0).join("2").exists(), "{dir}");
        let error = told(&import(&two, Some("x.example/two:3")).await.unwrap_err());
        assert!(error.contains(first) && error.contains(second) && error.contains("two:3"), "{error}");
    }
}
