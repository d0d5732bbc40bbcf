//! What the tests share: a store in memory, trees to compare, archives to unpack.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use berth_rootfs::{Error, Image, ImportConfig, Reference, RegistryConfig, Store};
use berth_sys::beneath::Root;
use tempfile::TempDir;

/// A store, and room beside it, on a filesystem that an overlay's upper folder can be on.
pub(crate) struct Bench {
    pub(crate) store: Store,
    top: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::reaching(RegistryConfig::default())
    }

    /// One whose store reaches registries in this way.
    pub(crate) fn reaching(registries: RegistryConfig) -> Self {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        let store = Store::open(&top.path().join("store"), registries).expect("needs root");
        Self { store, top }
    }

    /// A path in the room beside the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// A path in the store itself.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        self.path("store").join(name)
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The store as another process that opens it would have it.
    pub(crate) fn reopened(&self) -> Store {
        Store::open(&self.path("store"), RegistryConfig::default()).unwrap()
    }

    /// Imports what must be one image.
    pub(crate) async fn import(&self, source: &Path, name: &str) -> Image {
        self.try_import(source, name).await.unwrap_or_else(|error| panic!("{}", told(&error)))
    }

    pub(crate) async fn try_import(&self, source: &Path, name: &str) -> Result<Image, Error> {
        let name: Reference = name.parse().unwrap();
        let mut images = self.store.import(source, Some(&name), &ImportConfig::default()).await?;
        assert_eq!(images.len(), 1);
        Ok(images.remove(0))
    }

    /// Imports a tar of those bytes as a root filesystem.
    pub(crate) async fn import_tar(&self, tar: &[u8]) -> Result<Image, Error> {
        let path = self.path("rootfs.tar");
        fs::write(&path, tar).unwrap();
        self.try_import(&path, "test/tar").await
    }

    /// The unpacked tree of an image's layer, counted from below.
    pub(crate) fn layer(&self, image: &Image, index: usize) -> PathBuf {
        let diff_id = &image.config.rootfs().diff_ids()[index];
        self.inside("layers").join(diff_id.split_once(':').unwrap().1).join("diff")
    }

    /// As [`unfinished`], of this store.
    pub(crate) fn unfinished(&self) -> Vec<PathBuf> {
        unfinished(&self.path("store"))
    }

    /// Names in a folder of the store, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.inside(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What lies in a store that is neither finished nor removed: of the processes that live, of dead ones, and of nobody.
pub(crate) fn unfinished(store: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| -> Vec<PathBuf> {
        // A process that ends takes its folder with it.
        fs::read_dir(folder).map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
    };
    let workers = inside(&store.join("tmp"));
    workers.iter().flat_map(|worker| inside(worker)).chain(inside(&store.join("doomed"))).collect()
}

/// A mounted root that goes with the test.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        berth_sys::overlay::detach(&self.0).unwrap();
    }
}

/// How long something may take to come about.
const WAIT_SECS_MAX: u64 = 60;

/// Waits until `holds` does.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(WAIT_SECS_MAX);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An error with all that lies beneath it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All that counts of a tree, path by path, as text: what two equal trees have the same. Not the top folder itself.
pub(crate) fn portrait(top: &Path) -> BTreeMap<PathBuf, String> {
    let root = Root::open(top).unwrap();
    let mut lines = BTreeMap::new();
    let mut first_names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut names: Vec<_> =
            fs::read_dir(top.join(&folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let full = top.join(&path);
            let status = fs::symlink_metadata(&full).unwrap();
            let kind = status.file_type();
            let content = match () {
                () if kind.is_file() => format!("{:?}", berth_rootfs::Digest::of(&fs::read(&full).unwrap())),
                () if kind.is_symlink() => format!("{:?}", fs::read_link(&full).unwrap()),
                () => format!("{}", status.rdev()),
            };
            let size = if kind.is_dir() { 0 } else { status.len() };
            let first =
                if kind.is_dir() { &path } else { first_names.entry(status.ino()).or_insert_with(|| path.clone()) };
            let (above, leaf) = root.parent(&path).unwrap();
            let mut attributes = berth_sys::xattr::list(&above, leaf).unwrap();
            attributes.retain(|name| name.as_bytes() != b"trusted.overlay.opaque");
            attributes.sort();
            let attributes: Vec<_> = attributes
                .into_iter()
                .map(|name| (name.clone(), berth_sys::xattr::get(&above, leaf, &name).unwrap()))
                .collect();
            let line = format!(
                "mode {:o} owner {}:{} size {size} time {}.{:09} first {first:?} content {content} {attributes:?}",
                status.mode(),
                status.uid(),
                status.gid(),
                status.mtime(),
                status.mtime_nsec(),
            );
            if kind.is_dir() {
                folders.push(path.clone());
            }
            lines.insert(path, line);
        }
    }
    lines
}

/// Compares two trees and tells the first difference.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (portrait(one), portrait(other));
    for (path, line) in &one {
        assert_eq!(Some(line), other.get(path), "{}", path.display());
    }
    assert_eq!(one.len(), other.len(), "{:?}", other.keys().find(|path| !one.contains_key(*path)));
}

/// A tree with one of each thing that an image can hold.
pub(crate) fn make_tree(top: &Path) {
    fs::create_dir_all(top.join("etc/deep/er")).unwrap();
    fs::create_dir(top.join("bin")).unwrap();
    fs::write(top.join("etc/hostname"), "tree\n").unwrap();
    fs::write(top.join("bin/tool"), vec![7; 300_000]).unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::hard_link(top.join("bin/tool"), top.join("bin/same")).unwrap();
    symlink("../etc/hostname", top.join("bin/link")).unwrap();
    symlink("/nowhere", top.join("dangling")).unwrap();
    let long = "long".repeat(50);
    fs::write(top.join("etc").join(&long), "long name").unwrap();
    symlink(&long, top.join("etc/to-long")).unwrap();
    fs::write(top.join("etc/ünï \u{1f6a2}"), "name").unwrap();
    nix::unistd::mkfifo(&top.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let owner = |path: &str, owner| std::os::unix::fs::lchown(top.join(path), Some(owner), Some(owner + 1)).unwrap();
    owner("etc/deep", 1000);
    owner("bin/tool", 4_000_000);
    owner("dangling", 5);
    let mode = |path: &str, mode| fs::set_permissions(top.join(path), fs::Permissions::from_mode(mode)).unwrap();
    mode("bin/tool", 0o6755);
    mode("etc/deep", 0o1777);
    mode("etc/deep/er", 0o700);
    mode("etc/hostname", 0o640);
    let root = Root::open(top).unwrap();
    let attribute = |path: &str, name: &str, value: &[u8]| {
        let (above, leaf) = root.parent(Path::new(path)).unwrap();
        berth_sys::xattr::set(&above, leaf, name.as_ref(), value).unwrap();
    };
    attribute("bin/tool", "security.capability", &CAPABILITY);
    attribute("etc/hostname", "user.note", b"a=b\n");
    attribute("etc/deep", "user.folder", b"\0");
}

/// `cap_net_raw=ep`, as the kernel keeps it (revision 2).
pub(crate) const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes tar archives by hand, so that they can say anything.
#[derive(Default, Clone)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any entry: its flag, path, link target and data.
    pub(crate) fn entry(self, flag: u8, path: &str, target: &str, data: &[u8]) -> Self {
        let mode = if flag == b'5' { 0o755 } else { 0o644 };
        self.any(flag, path, target, data, mode, 0)
    }

    /// A folder of that mode and owner.
    pub(crate) fn described(self, path: &str, mode: u32, owner: u64) -> Self {
        self.any(b'5', path, "", b"", mode, owner)
    }

    fn any(mut self, flag: u8, path: &str, target: &str, data: &[u8], mode: u32, owner: u64) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A character device of that number.
    pub(crate) fn device(self, path: &str, major: u32, minor: u32) -> Self {
        let start = self.0.len();
        let mut tar = self.entry(b'3', path, "", b"");
        let block = &mut tar.0[start..start + 512];
        block[329..337].copy_from_slice(format!("{major:07o}\0").as_bytes());
        block[337..345].copy_from_slice(format!("{minor:07o}\0").as_bytes());
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        tar
    }

    pub(crate) fn file(self, path: &str, data: &str) -> Self {
        self.entry(b'0', path, "", data.as_bytes())
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"")
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// An image as its blobs, to be laid out or served.
#[derive(Default, Clone)]
pub(crate) struct Made {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    diff_ids: Vec<String>,
    layers: Vec<serde_json::Value>,
}

impl Made {
    /// An image with these layers, the lowest first, compressed in turn in each way that there is.
    pub(crate) fn of(layers: &[Vec<u8>]) -> Self {
        let mut made = Self::default();
        for (index, tar) in layers.iter().enumerate() {
            match index % 3 {
                0 => made.layer(tar, gzip(tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
                1 => made.layer(
                    tar,
                    zstd::encode_all(&tar[..], 1).unwrap(),
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                ),
                _ => made.layer(tar, tar.clone(), "application/vnd.oci.image.layer.v1.tar"),
            }
        }
        made
    }

    pub(crate) fn layer(&mut self, tar: &[u8], blob: Vec<u8>, media_type: &str) {
        self.diff_ids.push(berth_rootfs::Digest::of(tar).to_string());
        let size = blob.len();
        let digest = self.blob(blob);
        self.layers.push(serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size }));
    }

    pub(crate) fn blob(&mut self, content: Vec<u8>) -> String {
        let digest = berth_rootfs::Digest::of(&content).to_string();
        self.blobs.insert(digest.clone(), content);
        digest
    }

    /// Adds configuration and manifest; gives the manifest's descriptor.
    pub(crate) fn manifest(&mut self) -> serde_json::Value {
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let size = config.len();
        let config = self.blob(config);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
            "layers": self.layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let size = manifest.len();
        serde_json::json!({ "mediaType": MANIFEST, "digest": self.blob(manifest), "size": size })
    }

    /// An OCI layout of the image.
    pub(crate) fn lay_out(mut self, top: &Path) {
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [self.manifest()] });
        fs::create_dir_all(top.join("blobs/sha256")).unwrap();
        fs::write(top.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        fs::write(top.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        for (digest, content) in &self.blobs {
            fs::write(top.join("blobs").join(digest.replace(':', "/")), content).unwrap();
        }
    }
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, content).unwrap();
    encoder.finish().unwrap()
}
