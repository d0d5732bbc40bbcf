//! The attacks that image unpackers have had, by name, each in an archive of our own: nothing outside the layer changes.
//!
//! Those of the same lists that need a running container, a copy into one or a helper program have no place here: nothing is
//! copied into a container's root by this crate, it executes nothing, and paths in a root are followed by the runtime
//! (CVE-2014-9357, CVE-2018-15664, CVE-2019-14271, CVE-2024-1753, CVE-2024-9676, CVE-2026-55686).

use std::fs;
use std::path::Path;

use serde_json::json;

use super::support::{Bench, Made, Tar, portrait, told};

/// What becomes of the archive.
enum End {
    /// It is refused, and this is told.
    Refused(&'static str),
    /// It is unpacked to these names and no others.
    Unpacked(&'static [&'static str]),
}

/// One attack on the file `outside/file`, whose folder is given by its absolute path.
struct Attack {
    name: &'static str,
    archive: fn(&str) -> Tar,
    end: End,
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "CVE-2014-9356: a file by way of a link to an absolute path",
        archive: |outside| Tar::new().symlink("way", outside).file("way/file", "evil"),
        end: End::Refused("leads nowhere"),
    },
    Attack {
        name: "CVE-2020-10696: a folder that is made by way of a link",
        archive: |outside| Tar::new().symlink("etc", outside).dir("etc/new").file("etc/new/file", "evil"),
        end: End::Refused("leads nowhere"),
    },
    Attack {
        name: "CVE-2021-29136: a link in the place of the top folder",
        archive: |outside| Tar::new().symlink("/", outside).file("file", "evil"),
        end: End::Refused("top folder"),
    },
    Attack {
        name: "CVE-2021-29136: the same by another name",
        archive: |outside| Tar::new().symlink("./.", outside).file("file", "evil"),
        end: End::Refused("top folder"),
    },
    Attack {
        name: "CVE-2021-32760: a mode that is set by way of a hard link to a link",
        archive: |outside| {
            let target = format!("{outside}/file");
            Tar::new().symlink("soft", &target).hard_link("hard", "soft").described("hard", 0o777, 1).dir("soft")
        },
        end: End::Unpacked(&["hard", "soft"]),
    },
    Attack {
        name: "CVE-2024-0406: a file that takes the name of a link and is written through it",
        archive: |outside| {
            let target = format!("{outside}/file");
            Tar::new().symlink("name", &target).file("name", "mine")
        },
        end: End::Unpacked(&["name"]),
    },
    Attack {
        name: "CVE-2025-62518, RUSTSEC-2026-0112: entries in the data of a file whose size two headers tell differently",
        archive: |_| {
            let size = Tar::new().entry(b'x', "size", "", b"13 size=1024\n");
            size.entry(b'0', "outer", "", b"").file("smuggled", &"x".repeat(512)).file("after", "")
        },
        end: End::Unpacked(&["after", "outer"]),
    },
    Attack {
        name: "RUSTSEC-2026-0113: a folder that takes the name of a link and gives its mode to where that leads",
        archive: |outside| Tar::new().symlink("name", outside).described("name", 0o777, 1),
        end: End::Unpacked(&["name"]),
    },
    Attack {
        name: "CVE-2026-46703: a way out of links that each look harmless",
        archive: |outside| {
            let up =
                Tar::new().dir("a").dir("a/b").symlink("a/b/up", "../..").symlink("a/b/upper", "up/../../../../..");
            up.file(&format!("a/b/upper{outside}/file"), "evil")
        },
        end: End::Unpacked(&["a", "tmp"]),
    },
    Attack {
        name: "a hard link to a file of this machine",
        archive: |outside| Tar::new().hard_link("mine", &format!("{outside}/file")).file("mine", "evil"),
        end: End::Unpacked(&["mine"]),
    },
    Attack {
        name: "a whiteout of a file by way of a link",
        archive: |outside| Tar::new().symlink("way", outside).file("way/.wh.file", ""),
        end: End::Refused("leads nowhere"),
    },
    Attack {
        name: "an opaque mark by way of a link",
        archive: |outside| Tar::new().symlink("way", outside).file("way/.wh..wh..opq", ""),
        end: End::Refused("leads nowhere"),
    },
];

#[tokio::test]
async fn attacks_by_archives_change_nothing_outside_their_layer() {
    for Attack { name, archive, end } in ATTACKS {
        let bench = Bench::new();
        let outside = bench.folder("outside");
        fs::write(outside.join("file"), "outside").unwrap();
        let before = portrait(&bench.path(""));
        let before: Vec<_> = before.iter().filter(|(path, _)| path.starts_with("outside")).collect();
        // A short name: some archives hold it several times in fields that are small.
        let short = tempfile::Builder::new().prefix("o").rand_bytes(3).tempdir_in("/tmp").unwrap();
        let way = short.path().join("w");
        std::os::unix::fs::symlink(&outside, &way).unwrap();
        let result = bench.import_tar(&archive(way.to_str().unwrap()).end()).await;
        let after = portrait(&bench.path(""));
        let after: Vec<_> = after.iter().filter(|(path, _)| path.starts_with("outside")).collect();
        assert_eq!(before, after, "{name}");
        match (result, end) {
            (Err(error), End::Refused(why)) => assert!(told(&error).contains(why), "{name}: {}", told(&error)),
            (Ok(image), End::Unpacked(names)) => assert_eq!(&names_in(&bench.layer(&image, 0)), names, "{name}"),
            (Err(error), End::Unpacked(_)) => panic!("{name}: {}", told(&error)),
            (Ok(_), End::Refused(_)) => panic!("{name}: it was not refused"),
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn cve_2021_41190_what_could_be_an_index_and_a_manifest_is_neither() {
    let bench = Bench::new();
    let layout = bench.folder("layout");
    let mut made = Made::of(&[Tar::new().file("a", "").end()]);
    let descriptor = made.manifest();
    let digest = descriptor["digest"].as_str().unwrap();
    let mut both: serde_json::Value = serde_json::from_slice(&made.blobs[digest]).unwrap();
    both.as_object_mut().unwrap().remove("mediaType");
    both["manifests"] = json!([descriptor]);
    let both = serde_json::to_vec(&both).unwrap();
    let size = both.len();
    let digest = made.blob(both);
    made.lay_out(&layout);
    let entry = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size });
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string()).unwrap();
    let error = bench.try_import(&layout, "test/both").await.unwrap_err();
    assert!(told(&error).contains("an index and of a manifest"), "{}", told(&error));
}

#[tokio::test]
async fn cve_2023_25153_a_document_without_end_is_not_read_to_its_end() {
    let bench = Bench::new();
    let tar = Tar::new().file("oci-layout", "{}").file("index.json", &" ".repeat(5 << 20));
    let error = bench.import_tar(&tar.end()).await.unwrap_err();
    assert!(told(&error).contains("larger than 4194304 bytes"), "{}", told(&error));
}
