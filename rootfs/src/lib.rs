//! From the name of an image to a mounted root directory.
#![forbid(unsafe_code)]
#![allow(clippy::todo, clippy::unused_async, unused_variables, dead_code, reason = "the outline of the crate")]

use std::path::Path;

use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;

/// A name of an image: `[host[:port]/]repository[:tag][@digest]`, with docker.io's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference(String);

impl std::str::FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        todo!()
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that makes no sense.
    #[error("image name {text:?}: {why}")]
    Reference {
        /// As given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// How to reach registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// `host:port` of registries that speak plain HTTP.
    pub insecure: Vec<String>,
}

/// Credentials for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
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
    /// `repository:tag` names.
    pub tags: Vec<String>,
    /// `repository@sha256:…` names.
    pub digests: Vec<String>,
    /// Compressed size in bytes.
    pub size_bytes: u64,
    /// The image's own configuration.
    pub config: ImageConfiguration,
    /// When it came here.
    pub created_at: Timestamp,
}

/// The images and snapshots of one state folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store;

impl Store {
    /// Opens or makes the store below `dir`; removes what an interrupted pull left.
    pub fn open(dir: &Path, registries: RegistryConfig) -> Result<Self, Error> {
        todo!()
    }

    /// Makes an image present, from its registry. `progress` is told what happens and may be dropped at any time.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<Auth>,
        progress: Option<tokio::sync::mpsc::Sender<Progress>>,
    ) -> Result<Image, Error> {
        todo!()
    }

    /// Makes an image of what lies at `source`: an OCI layout (folder or tar), a docker archive, or a plain root
    /// filesystem (folder or tar), to which alone `config` applies. It is named `name`, or by the archive's own names.
    pub async fn import(
        &self,
        source: &Path,
        name: Option<&Reference>,
        config: &ImportConfig,
    ) -> Result<Vec<Image>, Error> {
        todo!()
    }

    /// An image by reference or by id (`sha256:…`, or at least 12 digits of it).
    pub fn image(&self, name: &str) -> Result<Option<Image>, Error> {
        todo!()
    }

    /// All images.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        todo!()
    }

    /// Removes a name, and with its last name the image and the layers that no other image has.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        todo!()
    }

    /// Mounts a writable root of an image at `target`, an existing empty folder. What is written is kept under `key`.
    pub async fn mount(&self, image: &Image, key: &str, target: &Path) -> Result<(), Error> {
        todo!()
    }

    /// Unmounts `target` and forgets what was written under `key`. Success if neither is there.
    pub async fn unmount(&self, key: &str, target: &Path) -> Result<(), Error> {
        todo!()
    }

    /// The keys under which something was written.
    pub fn snapshots(&self) -> Result<Vec<String>, Error> {
        todo!()
    }
}
