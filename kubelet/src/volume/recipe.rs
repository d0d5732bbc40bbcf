//! From a pod's words to what a volume is made of. Pure.

use std::path::{Component, Path, PathBuf};

use berth_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, NFSVolumeSource,
    ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::VolumeError;

/// The mode of files where the pod says nothing.
const MODE_DEFAULT: u32 = 0o644;
const MODE_MAX: u32 = 0o777;

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Recipe {
    /// An empty folder of the pod's own.
    EmptyDir(EmptyDir),
    /// A path of the host.
    HostPath {
        /// Which.
        path: PathBuf,
        /// What must be there.
        kind: HostPathKind,
    },
    /// A folder of an NFS server.
    Nfs(Export),
    /// Files that are written from objects.
    Files {
        /// Where they come from, later ones winning.
        sources: Vec<Source>,
        /// Their mode where nothing else is said.
        default_mode: u32,
        /// Whether they must not reach a disk.
        in_memory: bool,
    },
}

/// An empty folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmptyDir {
    /// On the node's disk.
    Disk,
    /// In memory, at most so many bytes.
    Memory {
        /// The limit; the kernel's own, half of the memory, when absent.
        bytes_max: Option<u64>,
    },
}

/// What must be at a path of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostPathKind {
    /// Anything; a folder is made where nothing is.
    Any,
    /// A folder; it is made if it is not there.
    DirectoryOrCreate,
    /// A folder.
    Directory,
    /// A file; it is made if it is not there.
    FileOrCreate,
    /// A file.
    File,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// A folder of an NFS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Export {
    /// The server's name or address.
    pub server: String,
    /// The folder there.
    pub path: String,
    /// Whether it is mounted for reading alone.
    pub read_only: bool,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// A config map.
    ConfigMap {
        /// Its name.
        name: String,
        /// Which keys; all when empty.
        items: Vec<KeyToPath>,
        /// Whether it may be missing.
        optional: bool,
    },
    /// A secret.
    Secret {
        /// Its name.
        name: String,
        /// Which keys; all when empty.
        items: Vec<KeyToPath>,
        /// Whether it may be missing.
        optional: bool,
    },
    /// What the pod knows of itself.
    Downward(Vec<DownwardAPIVolumeFile>),
}

impl Recipe {
    /// What a volume is made of.
    pub(crate) fn of(volume: &Volume) -> Result<Self, VolumeError> {
        if let Some(source) = &volume.empty_dir {
            return empty_dir(source).map(Self::EmptyDir);
        }
        if let Some(source) = &volume.host_path {
            return host_path(source);
        }
        if let Some(source) = &volume.nfs {
            return nfs(source);
        }
        if let Some(source) = &volume.config_map {
            let (name, optional) = (source.name.clone(), source.optional == Some(true));
            let source_of = Source::ConfigMap { name, items: source.items.clone().unwrap_or_default(), optional };
            return files(vec![source_of], source.default_mode, false);
        }
        if let Some(source) = &volume.secret {
            let (name, optional) = (source.secret_name.clone().unwrap_or_default(), source.optional == Some(true));
            let source_of = Source::Secret { name, items: source.items.clone().unwrap_or_default(), optional };
            return files(vec![source_of], source.default_mode, true);
        }
        if let Some(source) = &volume.downward_api {
            return files(vec![Source::Downward(source.items.clone().unwrap_or_default())], source.default_mode, false);
        }
        if let Some(source) = &volume.projected {
            return projected(source);
        }
        let known = "emptyDir, hostPath, nfs, configMap, secret, downwardAPI and projected";
        Err(VolumeError::Spec {
            message: format!("this kind of volume is not supported on this node, which knows {known}"),
        })
    }

    /// Whether containers may only read it, whatever the pod says: what is written from objects is not theirs.
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            Self::Files { .. } => true,
            Self::Nfs(export) => export.read_only,
            Self::EmptyDir(_) | Self::HostPath { .. } => false,
        }
    }
}

/// What a pod's volumes ask for and this node leaves out, in sentences.
pub(crate) fn left_out(volume: &Volume) -> Vec<String> {
    let mut found = Vec::new();
    let on_disk = volume.empty_dir.as_ref().filter(|source| source.medium.as_deref().unwrap_or_default().is_empty());
    if on_disk.is_some_and(|source| source.size_limit.is_some()) {
        found.push(format!("volumes[{}].emptyDir.sizeLimit is not enforced on disk by this node", volume.name));
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(kind) = unknown_projection(source) {
            found
                .push(format!("volumes[{}].projected: {kind} is not supported on this node and left out", volume.name));
        }
    }
    found
}

fn unknown_projection(source: &VolumeProjection) -> Option<&'static str> {
    [
        (source.service_account_token.is_some(), "serviceAccountToken"),
        (source.cluster_trust_bundle.is_some(), "clusterTrustBundle"),
        (source.pod_certificate.is_some(), "podCertificate"),
    ]
    .into_iter()
    .find_map(|(set, kind)| set.then_some(kind))
}

fn empty_dir(source: &EmptyDirVolumeSource) -> Result<EmptyDir, VolumeError> {
    let limit = source.size_limit.as_ref().map(Quantity::try_from).transpose();
    let limit = limit.map_err(|error| VolumeError::Spec { message: format!("emptyDir.sizeLimit: {error}") })?;
    let bytes_max = limit.and_then(|limit| u64::try_from(limit.units()).ok()).filter(|&bytes| bytes > 0);
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(EmptyDir::Disk),
        "Memory" => Ok(EmptyDir::Memory { bytes_max }),
        other => Err(VolumeError::Spec { message: format!("emptyDir.medium {other:?} is not supported on this node") }),
    }
}

fn host_path(source: &HostPathVolumeSource) -> Result<Recipe, VolumeError> {
    let path = PathBuf::from(&source.path);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        let message = format!("hostPath.path {:?} must be absolute and without \"..\"", source.path);
        return Err(VolumeError::Spec { message });
    }
    let kind = match source.type_.as_deref().unwrap_or_default() {
        "" => HostPathKind::Any,
        "DirectoryOrCreate" => HostPathKind::DirectoryOrCreate,
        "Directory" => HostPathKind::Directory,
        "FileOrCreate" => HostPathKind::FileOrCreate,
        "File" => HostPathKind::File,
        "Socket" => HostPathKind::Socket,
        "CharDevice" => HostPathKind::CharDevice,
        "BlockDevice" => HostPathKind::BlockDevice,
        other => return Err(VolumeError::Spec { message: format!("hostPath.type {other:?} is not known") }),
    };
    Ok(Recipe::HostPath { path, kind })
}

fn nfs(source: &NFSVolumeSource) -> Result<Recipe, VolumeError> {
    let clean = |text: &str| !text.is_empty() && !text.contains(|letter: char| letter == ',' || letter.is_control());
    if !clean(&source.server) || !source.path.starts_with('/') || !clean(&source.path) {
        let message = "nfs: server and path must be given, the path absolute, both without commas".to_owned();
        return Err(VolumeError::Spec { message });
    }
    let (server, path) = (source.server.clone(), source.path.clone());
    Ok(Recipe::Nfs(Export { server, path, read_only: source.read_only == Some(true) }))
}

fn files(sources: Vec<Source>, mode: Option<i32>, in_memory: bool) -> Result<Recipe, VolumeError> {
    Ok(Recipe::Files { sources, default_mode: self::mode("defaultMode", mode, MODE_DEFAULT)?, in_memory })
}

fn projected(source: &ProjectedVolumeSource) -> Result<Recipe, VolumeError> {
    let mut sources = Vec::new();
    for projection in source.sources.iter().flatten() {
        if let Some(map) = &projection.config_map {
            let (name, optional) = (map.name.clone(), map.optional == Some(true));
            sources.push(Source::ConfigMap { name, items: map.items.clone().unwrap_or_default(), optional });
        }
        if let Some(secret) = &projection.secret {
            let (name, optional) = (secret.name.clone(), secret.optional == Some(true));
            sources.push(Source::Secret { name, items: secret.items.clone().unwrap_or_default(), optional });
        }
        if let Some(downward) = &projection.downward_api {
            sources.push(Source::Downward(downward.items.clone().unwrap_or_default()));
        }
    }
    files(sources, source.default_mode, true)
}

/// A file's mode.
pub(super) fn mode(field: &str, given: Option<i32>, default: u32) -> Result<u32, VolumeError> {
    let Some(given) = given else { return Ok(default) };
    match u32::try_from(given) {
        Ok(mode) if mode <= MODE_MAX => Ok(mode),
        _ => Err(VolumeError::Spec { message: format!("{field} {given} is not between 0 and 0777 ({MODE_MAX})") }),
    }
}

/// Whether a path can only lead to a place inside the volume.
pub(super) fn stays_inside(path: &Path) -> bool {
    let first_hidden =
        path.components().next().is_some_and(|part| part.as_os_str().as_encoded_bytes().starts_with(b".."));
    !path.as_os_str().is_empty() && !first_hidden && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn build(mut source: Value) -> Result<Recipe, VolumeError> {
        source["name"] = json!("v");
        Recipe::of(&serde_json::from_value(source).unwrap())
    }

    #[test]
    fn each_kind_is_read() {
        assert_eq!(build(json!({ "emptyDir": {} })).unwrap(), Recipe::EmptyDir(EmptyDir::Disk));
        let memory = build(json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } })).unwrap();
        assert_eq!(memory, Recipe::EmptyDir(EmptyDir::Memory { bytes_max: Some(1 << 20) }));
        let host = build(json!({ "hostPath": { "path": "/data", "type": "Directory" } })).unwrap();
        assert_eq!(host, Recipe::HostPath { path: "/data".into(), kind: HostPathKind::Directory });
        let nfs = build(json!({ "nfs": { "server": "s", "path": "/e", "readOnly": true } })).unwrap();
        assert!(nfs.is_read_only());
        let secret = build(json!({ "secret": { "secretName": "s", "defaultMode": 256 } })).unwrap();
        assert!(matches!(secret, Recipe::Files { default_mode: 0o400, in_memory: true, .. }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            json!({}),
            json!({ "persistentVolumeClaim": { "claimName": "c" } }),
            json!({ "emptyDir": { "medium": "HugePages" } }),
            json!({ "hostPath": { "path": "data" } }),
            json!({ "hostPath": { "path": "/a/../b" } }),
            json!({ "hostPath": { "path": "/a", "type": "Fifo" } }),
            json!({ "nfs": { "server": "s,exec", "path": "/e" } }),
            json!({ "nfs": { "server": "s", "path": "e" } }),
            json!({ "configMap": { "name": "c", "defaultMode": 512 } }),
        ] {
            assert!(build(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        for (path, inside) in [
            ("a", true),
            ("a/b.c", true),
            ("", false),
            ("/a", false),
            ("../a", false),
            ("a/../b", false),
            ("..data", false),
        ] {
            assert_eq!(stays_inside(Path::new(path)), inside, "{path:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        let token =
            json!({ "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } });
        assert_eq!(left_out(&serde_json::from_value(token).unwrap()).len(), 1);
        let disk = json!({ "name": "d", "emptyDir": { "sizeLimit": "1Gi" } });
        assert_eq!(left_out(&serde_json::from_value(disk).unwrap()).len(), 1);
    }
}
