//! From the name of an image to a mounted root directory.
//!
//! | room | what it does |
//! |---|---|
//! | [`Reference`] | what an image is called |
//! | `manifest` | indexes, manifests, configurations, the choice of a platform; pure |
//! | [`Auth`], [`Keyring`] | credentials, and which of them is for whom |
//! | `registry`, `pull` | HTTP, mirrors, blobs as streams; layers side by side |
//! | `import` | OCI layouts, docker archives, plain root filesystems |
//! | `unpack` | a stranger's tar into a folder, by way of `berth_sys::beneath` |
//! | `store` | what is here: index, layers, locks, the sweep |
//! | `snapshot` | layers and an upper folder as one overlay mount |
//! | `gc` | which images go when the disk is full: a pure plan, and what carries it out |
//! | `export` | images as an OCI layout in a tar |
//!
//! On disk, below the store's folder:
//!
//! ```text
//! images.json              the index; replaced whole, under index.lock
//! blobs/<digest>           manifests, configurations and layers as they came, verified; verified again when they are used
//! parts/<digest>           the beginning of a layer's blob whose pull was cut off
//! layers/<diff id>/diff    a layer, unpacked; it came here by one rename, verified
//!                 /implicit   folders that the layer uses without describing them
//!                 /links      hard links to files of layers below, if it has any
//!                 /hiding      folders with whiteouts in them, if it has any
//!                 /layer.json the blob that it came from, and its size
//!                 /unwritten  the boot id, until the disk has the layer
//!                 /unclaimed  empty, until an image has the layer: a pull that was cut off left it for the next
//! snapshots/<key>/upper    what a container wrote
//!                /work     overlayfs's own
//!                /snapshot.json   image, layers, boot id
//! uses/<image id>          empty; its time is when the image was last used
//! tmp/<process>/           what it has not finished; locked as long as it lives
//!              /claim-…    the layers that one of its pulls, imports or exports counts on
//! doomed/                  what is being removed
//! unswept                  a sweep is wanted when somebody is done who had claims
//! reserve                  room for the index on a full disk
//! index.lock  use.lock     who writes the index; who is about to use what he sees (shared) or sweeps (exclusive); held
//!                          for moments, and waited for no longer than a deadline
//! ```
//!
//! A layer is one streaming pass, network > hash > inflate > hash > untar. Its compressed blob is written down on the way
//! and never read again for the image to run: it is there for a pull that was cut off to go on, and to export the image as
//! it came. The unpacked layer is named by the digest of its archive, so that it is shared whatever it was compressed with. Nothing waits for the disk: `kill -9` leaves a sound store because all
//! comes into sight by a rename, a loss of power because layers that the disk did not have yet are marked.
#![forbid(unsafe_code)]

mod auth;
mod digest;
mod error;
mod export;
mod gc;
mod import;
mod limits;
mod manifest;
mod pull;
mod reference;
mod registry;
mod snapshot;
mod store;
mod unpack;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

pub use self::auth::{Auth, CredentialsError, Keyring};
pub use self::digest::Digest;
pub use self::error::{Error, UnpackError};
pub use self::gc::{Collected, GcPolicy, GcReason, Removal, Thresholds};
pub use self::reference::Reference;
pub use self::snapshot::{IdMap, Owners, Usage};
pub use self::store::Store;
pub use self::unpack::Devices;

/// How to reach registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// `host:port` of registries that speak plain HTTP. Those on the loopback interface are tried with HTTPS first and
    /// with HTTP then, as other clients do, without being named here.
    pub insecure: Vec<String>,
    /// A folder with `<host>/hosts.toml` files, in containerd's format, which say by which mirrors and with which
    /// certificates a registry is reached. Read anew for each pull.
    pub config_dir: Option<PathBuf>,
    /// How long a registry may send nothing before it is asked again; a minute if this is none. How long the whole takes
    /// has no limit: a large layer on a slow line is no failure.
    pub silence: Option<Duration>,
}

/// What happens during a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The manifest is known: these layers, by digest and compressed size.
    Layers(Vec<(String, u64)>),
    /// So many bytes of a layer are here.
    Bytes {
        /// The layer's digest.
        layer: String,
        /// How many bytes.
        done: u64,
    },
    /// A layer is unpacked.
    Unpacked {
        /// The layer's digest.
        layer: String,
    },
}

/// What a plain root filesystem should run when it is made an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// A user name or uid, with an optional group.
    pub user: Option<String>,
    /// The working directory.
    pub working_dir: Option<String>,
}

/// Unpacks a layer's archive, without compression, into `folder`, which is made new, as overlayfs wants a lower folder to
/// be: whiteouts as devices 0:0, opaque folders with their attribute. Nothing outside is touched whatever the archive says.
/// Hard links to what it does not hold are left out: layers below would be needed. Needs root.
pub fn unpack_layer(archive: impl std::io::Read, folder: &std::path::Path) -> Result<(), UnpackError> {
    let write = |action| move |source| UnpackError::Write { path: String::new(), action, source };
    let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(write("make the folder")(std::io::ErrorKind::InvalidInput.into()));
    };
    let root = berth_sys::beneath::Root::open(above).map_err(write("open what is above the folder"))?;
    unpack::unpack(archive, root.folder(), name, Devices::LeaveOut).map(drop)
}

/// Whether these bytes are a manifest or an index that can be believed to be what `media_type`, if it is told, says. The
/// error names the field.
pub fn check_manifest(bytes: &[u8], media_type: Option<&str>) -> Result<(), Error> {
    match manifest::parse("the document", bytes, media_type)? {
        manifest::Document::Index(index) => manifest::choose("the document", &index, manifest::Host::this()).map(drop),
        manifest::Document::Manifest(found) => {
            let mut descriptors = std::iter::once(found.config()).chain(found.layers());
            descriptors.try_for_each(|one| manifest::digest_of("field digest", one).map(drop))
        }
    }
}

/// How a root is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// Whether it can be written to.
    #[serde(default)]
    pub access: Access,
    /// What the image's owners are on the host: those of a user namespace. Needs a filesystem that can map owners (ext4,
    /// xfs, btrfs; tmpfs since Linux 6.3) below the store.
    #[serde(default)]
    pub owners: Option<Owners>,
}

/// Whether something can be written to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// It can.
    #[default]
    Writable,
    /// It cannot.
    ReadOnly,
}

/// An image that is present, its layers unpacked.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the configuration, `sha256:…`.
    pub id: String,
    /// The digest of the manifest.
    pub manifest_digest: String,
    /// `repository:tag` names, with their registry.
    pub tags: Vec<String>,
    /// `repository@sha256:…` names, with their registry: the digest of what the tag led to, an index or a manifest.
    pub digests: Vec<String>,
    /// Compressed size in bytes.
    pub size_bytes: u64,
    /// The image's own configuration.
    pub config: ImageConfiguration,
    /// When it came here.
    pub created_at: Timestamp,
    /// Whether it is never collected.
    pub pinned: bool,
}
