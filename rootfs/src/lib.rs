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
//!
//! On disk, below the store's folder:
//!
//! ```text
//! images.json              the index; replaced whole, under index.lock
//! blobs/<digest>           manifests and configurations as they came
//! layers/<diff id>/diff    a layer, unpacked; it came here by one rename, verified
//!                 /implicit   folders that the layer uses without describing them
//!                 /unwritten  the boot id, until the disk has the layer
//! snapshots/<key>/upper    what a container wrote
//!                /work     overlayfs's own
//!                /snapshot.json   image, layers, boot id
//! tmp/                     what is not finished, and what is being removed
//! index.lock  use.lock     who writes the index; who works in the store (shared) or sweeps it (exclusive)
//! ```
//!
//! A layer is one streaming pass, network > hash > inflate > hash > untar, and its compressed blob is not kept: to run an
//! image its unpacked layers, manifest and configuration are enough. It is named by the digest of its archive, so that it
//! is shared whatever it was compressed with. Nothing waits for the disk: `kill -9` leaves a sound store because all
//! comes into sight by a rename, a loss of power because layers that the disk did not have yet are marked.
#![forbid(unsafe_code)]

mod auth;
mod digest;
mod error;
mod import;
mod layer_folders;
mod limits;
mod manifest;
mod pull;
mod reference;
mod registry;
mod snapshot;
mod store;
mod unpack;

use std::path::PathBuf;

use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;

pub use self::auth::{Auth, CredentialsError, Keyring};
pub use self::digest::Digest;
pub use self::error::{Error, UnpackError};
pub use self::reference::Reference;
pub use self::store::Store;

/// How to reach registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// `host:port` of registries that speak plain HTTP. Those on the loopback interface are tried with HTTPS first and
    /// with HTTP then, as other clients do, without being named here.
    pub insecure: Vec<String>,
    /// A folder with `<host>/hosts.toml` files, in containerd's format, which say by which mirrors and with which
    /// certificates a registry is reached. Read anew for each pull.
    pub config_dir: Option<PathBuf>,
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
}
