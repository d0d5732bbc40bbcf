//! Images written out, and read by us and by others.

use std::fs;
use std::path::Path;

use berth_rootfs::ImportConfig;

use super::support::{Bench, Made, Mounted, Tar, assert_same, run, told};

fn layers() -> Vec<Vec<u8>> {
    let layer = |name: &str| Tar::new().described("etc", 0o750, 7).file(&format!("etc/{name}"), name).end();
    ["gzip", "zstd", "plain"].iter().map(|name| layer(name)).collect()
}

async fn export(bench: &Bench, names: &[&str], file: &Path) -> Result<(), berth_rootfs::Error> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    bench.store.export(&names, fs::File::create(file).unwrap()).await
}

#[tokio::test]
async fn an_exported_image_is_the_same_image_here_and_elsewhere() {
    let bench = Bench::new();
    Made::of(&layers()).lay_out(&bench.folder("layout"));
    let image = bench.import(&bench.path("layout"), "test/app:v1").await;
    let (file, again) = (bench.path("app.tar"), bench.path("again.tar"));
    export(&bench, &["test/app:v1"], &file).await.unwrap();
    export(&bench, &[&image.id], &again).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap(), "the same bytes each time");

    let other = Bench::new();
    let images = other.store.import(&file, None, &ImportConfig::default()).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(
        (&images[0].id, &images[0].manifest_digest, &images[0].tags),
        (&image.id, &image.manifest_digest, &image.tags)
    );

    // umoci takes a layout with a tag, skopeo the archive; zstd is newer than this umoci.
    let layout = bench.folder("unpacked");
    run(
        "skopeo",
        &[
            "copy",
            "--insecure-policy",
            &format!("oci-archive:{}", file.display()),
            &format!("dir:{}", layout.display()),
        ],
    );
    let manifest = fs::read(layout.join("manifest.json")).unwrap();
    assert_eq!(berth_rootfs::Digest::of(&manifest).to_string(), image.manifest_digest);
    run(
        "skopeo",
        &[
            "copy",
            "--insecure-policy",
            &format!("docker-archive:{}", file.display()),
            &format!("dir:{}", bench.folder("docker").display()),
        ],
    );
}

#[tokio::test]
async fn what_was_pulled_as_a_folder_runs_as_it_was_after_a_journey() {
    let bench = Bench::new();
    let tree = bench.folder("tree");
    super::support::make_tree(&tree);
    bench.import(&tree, "test/tree").await;
    let file = bench.path("tree.tar");
    export(&bench, &["test/tree"], &file).await.unwrap();
    let other = Bench::new();
    let image = other.store.import(&file, None, &ImportConfig::default()).await.unwrap().remove(0);
    let target = Mounted(other.folder("target"));
    other.store.mount(&image, "key", &target.0).await.unwrap();
    assert_same(&tree, &target.0);
}

#[tokio::test]
async fn several_images_share_their_layers_in_one_archive() {
    let bench = Bench::new();
    let shared = layers();
    Made::of(&shared[..2]).lay_out(&bench.folder("one"));
    Made::of(&shared).lay_out(&bench.folder("two"));
    bench.import(&bench.path("one"), "test/one").await;
    bench.import(&bench.path("two"), "test/two").await;
    let file = bench.path("both.tar");
    export(&bench, &["test/one", "test/two"], &file).await.unwrap();
    let listing = run("tar", &["-tf", file.to_str().unwrap()]);
    assert_eq!(listing.lines().filter(|line| line.starts_with("blobs/")).count(), 3 + 2 + 2);
    let other = Bench::new();
    assert_eq!(other.store.import(&file, None, &ImportConfig::default()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_layer_that_came_with_another_image_is_exported_as_it_came() {
    let bench = Bench::new();
    let tar = Tar::new().file("file", "content").end();
    let mut plain = Made::default();
    plain.layer(&tar, tar.clone(), "application/vnd.oci.image.layer.v1.tar");
    plain.lay_out(&bench.folder("plain"));
    Made::of(&[tar, Tar::new().file("other", "").end()]).lay_out(&bench.folder("zipped"));
    bench.import(&bench.path("plain"), "test/plain").await;
    let image = bench.import(&bench.path("zipped"), "test/zipped").await;
    let file = bench.path("zipped.tar");
    export(&bench, &["test/zipped"], &file).await.unwrap();
    let other = Bench::new();
    let imported = other.store.import(&file, None, &ImportConfig::default()).await.unwrap().remove(0);
    assert_eq!(imported.id, image.id);
    assert_ne!(imported.manifest_digest, image.manifest_digest, "it names the blob that is there");
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_told() {
    let bench = Bench::new();
    Made::of(&layers()).lay_out(&bench.folder("layout"));
    let image = bench.import(&bench.path("layout"), "test/app").await;
    let file = bench.path("app.tar");
    let error = export(&bench, &["test/none"], &file).await.unwrap_err();
    assert!(told(&error).contains("test/none"), "{}", told(&error));
    let note = fs::read_to_string(bench.layer(&image, 2).with_file_name("layer.json")).unwrap();
    let note: serde_json::Value = serde_json::from_str(&note).unwrap();
    let blob = bench.inside("blobs").join(note["blob"]["digest"].as_str().unwrap().split_once(':').unwrap().1);
    let mut content = fs::read(&blob).unwrap();
    content[600] ^= 1;
    fs::write(&blob, &content).unwrap();
    let error = export(&bench, &["test/app"], &file).await.unwrap_err();
    assert!(told(&error).contains("pull it again"), "{}", told(&error));
    fs::remove_file(&blob).unwrap();
    let error = export(&bench, &["test/app"], &file).await.unwrap_err();
    assert!(told(&error).contains("only unpacked"), "{}", told(&error));
}
