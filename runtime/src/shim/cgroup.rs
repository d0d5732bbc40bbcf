//! The pod's cgroup: the shim makes what of it is not there, and that goes with the sandbox. What somebody made before,
//! maybe with limits for what comes after this sandbox, stays.

use std::io;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::{self, Cgroup, Hierarchies};
use berth_sys::file::{self, Durability};

use super::document;

/// The controllers in whose hierarchies the pod may get a cgroup, beyond those that berth limits: other runtimes make
/// their containers' in all.
const CONTROLLERS: [&str; 10] =
    ["blkio", "cpuset", "freezer", "hugetlb", "misc", "name=systemd", "net_cls", "net_prio", "perf_event", "rdma"];

/// Why a pod's cgroup could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine's hierarchies cannot be told.
    #[error("looking for cgroup hierarchies")]
    Hierarchies(#[source] io::Error),
    /// It is no cgroup, or the kernel refused.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// What is noted of it.
    #[error("{action} {path}")]
    Note {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Whether `path` can be a pod's cgroup; touches nothing.
pub fn check(path: &str) -> Result<(), Error> {
    find(path, &[]).map(drop)
}

/// Makes a pod's cgroup for the sandbox in `dir`, after a note of which folders it will be the sandbox's to remove: all
/// that are not there yet, those too that only a container will need.
pub fn make(dir: &Path, path: &str) -> Result<(), Error> {
    let everywhere = find(path, &CONTROLLERS)?;
    let missing: Vec<&Path> =
        everywhere.folders().map(|(_, folder, _)| folder).filter(|folder| !folder.exists()).collect();
    let note = note_of(dir);
    serde_json::to_vec(&missing)
        .map_err(io::Error::from)
        .and_then(|text| file::replace(&note, &text, Durability::Process))
        .map_err(|source| Error::Note { action: "writing", path: note, source })?;
    Ok(find(path, &[])?.make()?)
}

/// Kills what runs in a pod's cgroup and below, and removes what of it is the sandbox's in `dir`. Success if it is gone.
pub fn end(dir: &Path, path: &str) -> Result<(), Error> {
    let note = note_of(dir);
    let own: Vec<PathBuf> = match document::read_file(&note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|source| Error::Note { action: "reading", path: note.clone(), source })?,
    };
    let cgroup = find(path, &CONTROLLERS)?;
    if cgroup.exists() {
        cgroup.kill()?;
        cgroup.remove_some(|folder| own.iter().any(|own| own == folder))?;
    }
    file::remove(&note).map_err(|source| Error::Note { action: "removing", path: note, source })
}

fn find(path: &str, controllers: &[&str]) -> Result<Cgroup, Error> {
    let hierarchies = Hierarchies::of_machine().map_err(Error::Hierarchies)?;
    Ok(Cgroup::new(hierarchies, Path::new(path), controllers)?)
}

fn note_of(dir: &Path) -> PathBuf {
    dir.join("cgroup.json")
}
