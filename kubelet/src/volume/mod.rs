//! The volumes of pods: mounted before the first container starts, kept up to date, freed when the pod has ended.
//!
//! ```text
//! <state>/pods/<uid>/volumes/<volume>/             what a volume holds, or what is mounted there
//! <state>/pods/<uid>/subpaths/<container>/<n>      a part of a volume, bound so that nobody can swap it
//! <state>/pods/<uid>/containers/<container>/<n>    a container's last words
//! ```
//!
//! `recipe` says from the pod's words alone what each volume is made of; `mount` makes it; `payload` and `writer` are
//! for those made of files; `free` takes everything down. What is mounted is seen in the kernel's own list, so a
//! restarted agent mounts nothing twice.

mod empty_dir;
mod free;
mod host_path;
mod nfs;
mod payload;
mod recipe;
mod sub_path;
mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_api::id::PodUid;
use berth_api::reason;
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use self::payload::Payload;
pub(crate) use self::recipe::left_out;
use self::recipe::{Recipe, Source};
use crate::objects::Objects;
use crate::pod::container_config::{Fields, expand};
use crate::pod::desired::Desired;
use crate::pod::event::Fault;

/// What can go wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The pod's words make no sense, or ask for what this node does not do.
    #[error("{message}")]
    Spec {
        /// Which field, what is wrong with it.
        message: String,
    },
    /// A config map or secret is not there, or lacks a key.
    #[error("{message}")]
    Object {
        /// Which, what it lacks.
        message: String,
    },
    /// A file or folder could not be used.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was done.
        action: &'static str,
        /// To which.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The kernel could not mount.
    #[error("cannot mount {what} at {path}: {message}")]
    Mount {
        /// What was to be mounted.
        what: String,
        /// Where.
        path: PathBuf,
        /// What the kernel said, and what to do.
        message: String,
    },
}

impl VolumeError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}

/// Where a volume mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The path on the host.
    pub path: PathBuf,
    /// Whether nobody may write there, whatever the pod says.
    pub read_only: bool,
}

/// The volumes of this node's pods. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    pods: PathBuf,
    /// Mounts that the kernel has not answered yet: it is asked once, however often a pod tries.
    mounting: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Volumes {
    /// The volumes below the agent's state folder.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { pods: state_dir.join("pods"), mounting: Arc::default() }
    }

    /// The folder of everything that a pod has on disk here.
    pub(crate) fn pod_dir(&self, uid: &PodUid) -> PathBuf {
        self.pods.join(uid.as_str())
    }

    /// The pods that have a folder: some may be left over from before.
    pub(crate) fn pods(&self) -> Vec<PodUid> {
        let entries = std::fs::read_dir(&self.pods).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Mounts the volumes of a pod, and brings what is in them up to date. What is mounted stays mounted.
    pub(crate) async fn set_up(&self, desired: &Desired, fields: Fields<'_>, objects: &Objects) -> Result<(), Fault> {
        for volume in desired.spec().volumes.iter().flatten() {
            let fault = |error: VolumeError| {
                let message = format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name);
                Fault { reason: reason::event::FAILED_MOUNT, message }
            };
            let recipe = Recipe::of(volume).map_err(fault)?;
            let payload = match &recipe {
                Recipe::Files { sources, default_mode, .. } => {
                    Some(payload(sources, *default_mode, desired, fields, objects).await.map_err(fault)?)
                }
                _ => None,
            };
            self.make(desired, &volume.name, recipe, payload).await.map_err(fault)?;
        }
        Ok(())
    }

    async fn make(
        &self,
        desired: &Desired,
        name: &str,
        recipe: Recipe,
        payload: Option<Payload>,
    ) -> Result<(), VolumeError> {
        let path = self.volume_dir(&desired.id.uid, name);
        let group = desired.spec().security_context.as_ref().and_then(|context| context.fs_group);
        let group = group.and_then(|group| u32::try_from(group).ok());
        let busy = Busy::begin(&self.mounting, &path)?;
        let made = tokio::task::spawn_blocking(move || {
            let _busy = busy;
            make(&path, &recipe, payload, group)
        });
        made.await.unwrap_or_else(|error| Err(VolumeError::Spec { message: error.to_string() }))
    }

    /// Where a container's volume mounts come from, in the order of the spec; sub-paths are followed and bound.
    pub(crate) fn places(
        &self,
        desired: &Desired,
        container: &Container,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Place>, VolumeError> {
        let mounts = container.volume_mounts.iter().flatten().enumerate();
        mounts.map(|(index, mount)| self.place(desired, container, index, mount, &env)).collect()
    }

    fn place(
        &self,
        desired: &Desired,
        container: &Container,
        index: usize,
        mount: &VolumeMount,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Place, VolumeError> {
        let volume = desired.spec().volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let unknown = || VolumeError::Spec { message: format!("volume {:?} is not in the pod", mount.name) };
        let recipe = Recipe::of(volume.ok_or_else(unknown)?)?;
        let read_only = recipe.is_read_only();
        let root = match recipe {
            Recipe::HostPath { path, .. } => path,
            _ => self.volume_dir(&desired.id.uid, &mount.name),
        };
        let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) if !expression.is_empty() => expand(expression, env),
            (_, Some(path)) => path.clone(),
            _ => String::new(),
        };
        if sub_path.is_empty() {
            return Ok(Place { path: root, read_only });
        }
        let target = self.pod_dir(&desired.id.uid).join("subpaths").join(&container.name).join(index.to_string());
        sub_path::bind(&root, &sub_path, &target)?;
        Ok(Place { path: target, read_only })
    }

    /// The file that one run of a container writes its last words to; made if it is not there.
    pub(crate) fn termination_log(&self, uid: &PodUid, name: &str, attempt: u32) -> Result<PathBuf, VolumeError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.termination_path(uid, name, attempt);
        let folder = path.parent().unwrap_or(&self.pods);
        std::fs::create_dir_all(folder).map_err(VolumeError::file("make", folder))?;
        std::fs::File::create(&path).map_err(VolumeError::file("make", &path))?;
        // The container's user may be anybody.
        let mode = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&path, mode).map_err(VolumeError::file("open up", &path))?;
        Ok(path)
    }

    /// Where one run of a container wrote its last words.
    pub(crate) fn termination_path(&self, uid: &PodUid, name: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid).join("containers").join(name).join(attempt.to_string())
    }

    /// Unmounts everything below a pod's folder and removes it. What is gone is removed.
    pub(crate) fn free(&self, uid: &PodUid) -> Result<(), VolumeError> {
        free::free(&self.pod_dir(uid))
    }

    fn volume_dir(&self, uid: &PodUid, volume: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes").join(volume)
    }
}

/// What a volume of files holds now.
async fn payload(
    sources: &[Source],
    default_mode: u32,
    desired: &Desired,
    fields: Fields<'_>,
    objects: &Objects,
) -> Result<Payload, VolumeError> {
    let namespace = &desired.id.namespace;
    let unavailable = |error: crate::objects::ObjectError| VolumeError::Object { message: error.to_string() };
    let mut payload = Payload::default();
    for source in sources {
        match source {
            Source::ConfigMap { name, items, optional } => {
                let map = objects.config_map(namespace, name).await.map_err(unavailable)?;
                payload.add_config_map(name, map.as_deref(), items, *optional, default_mode)?;
            }
            Source::Secret { name, items, optional } => {
                let secret = objects.secret(namespace, name).await.map_err(unavailable)?;
                payload.add_secret(name, secret.as_deref(), items, *optional, default_mode)?;
            }
            Source::Downward(files) => payload.add_fields(files, fields, default_mode)?,
        }
    }
    Ok(payload)
}

fn make(path: &Path, recipe: &Recipe, payload: Option<Payload>, group: Option<u32>) -> Result<(), VolumeError> {
    match recipe {
        Recipe::EmptyDir(dir) => empty_dir::make(path, dir, group),
        Recipe::HostPath { path, kind } => host_path::make(path, *kind),
        Recipe::Nfs(export) => nfs::mount(path, export),
        Recipe::Files { in_memory, .. } => {
            if *in_memory {
                empty_dir::make_private_tmpfs(path)?;
            }
            writer::write(path, &payload.unwrap_or_default(), group)
        }
    }
}

/// Keeps a path to one mount at a time.
struct Busy {
    mounting: Arc<Mutex<BTreeSet<PathBuf>>>,
    path: PathBuf,
}

impl Busy {
    fn begin(mounting: &Arc<Mutex<BTreeSet<PathBuf>>>, path: &Path) -> Result<Self, VolumeError> {
        let first = mounting.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        if !first {
            let message = "the kernel has not answered the last try yet".to_owned();
            return Err(VolumeError::Mount { what: "the volume".to_owned(), path: path.to_owned(), message });
        }
        Ok(Self { mounting: Arc::clone(mounting), path: path.to_owned() })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.mounting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}
