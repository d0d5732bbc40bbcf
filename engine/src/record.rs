//! What an engine must remember beyond its own life, as one small file per sandbox and per container.
//!
//! ```text
//! <run>/records/sandboxes/<id>.json    SandboxRecord
//! <run>/records/containers/<id>.json   ContainerRecord
//! <run>/sandboxes/<id>/                the shim's (berth_runtime::shim)
//! <run>/pods/<id>/                     hosts, resolv.conf, hostname, shm/: shown to every container of the pod
//! <run>/bundles/<container>/           config.json, rootfs/ (a mount)
//! ```
//!
//! A record is written before the thing that it tells of is made and removed after it is gone: what is found without a
//! record is nobody's, and what a record tells of may be missing.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_sys::file::{self, Durability};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::config::{ContainerConfig, SandboxConfig};
use crate::status::{ContainerId, ContainerState, SandboxId};

/// How far the making of a sandbox went, or its unmaking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    /// It is being made; after a crash: half made, to be taken down.
    Making,
    /// It is there.
    Ready,
    /// It was stopped.
    Stopped,
}

/// What is remembered of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxRecord {
    pub(crate) id: SandboxId,
    pub(crate) config: SandboxConfig,
    pub(crate) created_at: Timestamp,
    pub(crate) phase: Phase,
    pub(crate) ips: Vec<IpAddr>,
}

/// What is remembered of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) sandbox: SandboxId,
    pub(crate) config: ContainerConfig,
    pub(crate) image_id: String,
    pub(crate) image_ref: String,
    pub(crate) stop_signal: i32,
    pub(crate) created_at: Timestamp,
    /// How it ended, once the shim that knew it is gone.
    pub(crate) last_state: Option<ContainerState>,
}

/// Where an engine keeps what does not survive a reboot.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    run: PathBuf,
}

impl Layout {
    /// The layout below `run`, whether it is there or not.
    pub(crate) fn of(run: &Path) -> Self {
        Self { run: run.to_owned() }
    }

    /// Makes the folders below `run`.
    pub(crate) fn make(run: &Path) -> Result<Self, Error> {
        let layout = Self::of(run);
        for folder in ["records/sandboxes", "records/containers", "sandboxes", "pods", "bundles"] {
            let path = run.join(folder);
            // Root's alone: below lie the containers' roots, with the set-user-ID programs of any image.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| failed("make", &path, &error))?;
        }
        Ok(layout)
    }

    /// Whether the records can be read, if there are any.
    pub(crate) fn check_readable(&self) -> Result<(), Error> {
        let folder = self.run.join("records/sandboxes");
        match fs::read_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("read", &folder, &error)),
            _ => Ok(()),
        }
    }

    /// The shim's folder.
    pub(crate) fn shim(&self, id: &SandboxId) -> PathBuf {
        self.run.join("sandboxes").join(id.as_str())
    }

    /// The pinned network namespace.
    pub(crate) fn netns(&self, id: &SandboxId) -> PathBuf {
        self.shim(id).join("ns/net")
    }

    /// The files that all containers of a pod share.
    pub(crate) fn pod_files(&self, id: &SandboxId) -> PathBuf {
        self.run.join("pods").join(id.as_str())
    }

    /// A container's bundle.
    pub(crate) fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.run.join("bundles").join(id.as_str())
    }

    /// The names of what lies in one of the folders: `sandboxes`, `pods` or `bundles`.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.run.join(folder)) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn sandbox_record(&self, id: &SandboxId) -> PathBuf {
        self.run.join("records/sandboxes").join(format!("{}.json", id.as_str()))
    }

    fn container_record(&self, id: &ContainerId) -> PathBuf {
        self.run.join("records/containers").join(format!("{}.json", id.as_str()))
    }

    /// Writes a sandbox's record.
    pub(crate) fn save_sandbox(&self, record: &SandboxRecord) -> Result<(), Error> {
        save(&self.sandbox_record(&record.id), record)
    }

    /// Writes a container's record.
    pub(crate) fn save_container(&self, record: &ContainerRecord) -> Result<(), Error> {
        save(&self.container_record(&record.id), record)
    }

    /// Forgets a sandbox.
    pub(crate) fn forget_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        let path = self.sandbox_record(id);
        file::remove(&path).map_err(|error| failed("remove", &path, &error))
    }

    /// Forgets a container.
    pub(crate) fn forget_container(&self, id: &ContainerId) -> Result<(), Error> {
        let path = self.container_record(id);
        file::remove(&path).map_err(|error| failed("remove", &path, &error))
    }

    /// Removes what no reader could read: leftovers of a crash, and damaged records, whose sandbox is then nobody's.
    pub(crate) fn sweep(&self) {
        sweep::<SandboxRecord>(&self.run.join("records/sandboxes"));
        sweep::<ContainerRecord>(&self.run.join("records/containers"));
    }

    /// Every sandbox's record. One that cannot be read is told of and left out: what belongs to it is then nobody's.
    pub(crate) fn sandbox_records(&self) -> Vec<SandboxRecord> {
        load_all(&self.run.join("records/sandboxes"))
    }

    /// Every container's record.
    pub(crate) fn container_records(&self) -> Vec<ContainerRecord> {
        load_all(&self.run.join("records/containers"))
    }
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::Internal { message: format!("cannot {verb} {}: {error}", path.display()) }
}

fn save<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let text = serde_json::to_vec(record).map_err(|error| failed("write", path, &error.into()))?;
    file::replace(path, &text, Durability::Process).map_err(|error| failed("write", path, &error))
}

fn load_all<T: DeserializeOwned>(folder: &Path) -> Vec<T> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| load(&entry.path())).collect()
}

fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    if file::is_temporary(path.file_name()?.to_str()?) {
        return None;
    }
    let parsed = fs::read(path).map_err(|error| error.to_string());
    match parsed.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a record cannot be read");
            None
        }
    }
}

fn sweep<T: DeserializeOwned>(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| load::<T>(path).is_none()) {
        let _ = file::remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_garbage_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path()).unwrap();
        let record = SandboxRecord {
            id: SandboxId("a1".into()),
            config: SandboxConfig { name: "web".into(), ..SandboxConfig::default() },
            created_at: Timestamp::UNIX_EPOCH,
            phase: Phase::Making,
            ips: vec!["10.0.0.2".parse().unwrap()],
        };
        layout.save_sandbox(&record).unwrap();
        fs::write(folder.path().join("records/sandboxes/b.json"), b"{\"id\":").unwrap();
        fs::write(folder.path().join("records/sandboxes/.tmp-1-c.json"), b"{").unwrap();
        assert_eq!(layout.sandbox_records(), std::slice::from_ref(&record));
        layout.sweep();
        assert_eq!(layout.names("records/sandboxes"), ["a1.json"]);
        layout.forget_sandbox(&record.id).unwrap();
        layout.forget_sandbox(&record.id).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("records/sandboxes")).unwrap().count(), 0);
    }
}
