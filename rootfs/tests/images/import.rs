//! Images from files, made by other programs and by hand.

use std::fs;

use berth_rootfs::{ImportConfig, Reference};

use super::support::{Bench, Mounted, assert_same, make_tree, run};

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
