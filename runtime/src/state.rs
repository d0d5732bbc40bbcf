//! What is kept of a container between one verb and the next, maybe in another process.
//!
//! ```text
//! <root>/<id>/
//!   state.json      Record, replaced as a whole
//!   start.sock      where a created container waits for its start; gone once somebody starts it
//!   seccomp.bpf     the compiled filter, for exec
//! ```
//!
//! Who changes a container holds its folder's lock (flock(2)) meanwhile. Its maker needs none: until the init process is
//! in the record, nobody else may change it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::{Cgroup, Hierarchies};
use berth_sys::file::{self, Durability, replace};
use berth_sys::proc;
use oci_spec::runtime::Hooks;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document;
use crate::error::Error;
use crate::limits::{ID_BYTES_MAX, LOCK_DEADLINE, STATE_BYTES_MAX};
use crate::seccomp::{self, Filter, ListenerSpec};

/// What cannot be done with a file that makes no sense.
pub(crate) const UNDERSTAND: &str = "understand";

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being set up, or its set-up was cut short.
    Creating,
    /// It is set up and waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are stopped, and can go on.
    Paused,
    /// Its init process has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A container as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its id.
    pub id: String,
    /// Where in its life it is.
    pub status: Status,
    /// Its init process in the caller's pid namespace; 0 once it has stopped.
    pub pid: i32,
    /// Where its `config.json` was.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// When it was created.
    pub created: jiff::Timestamp,
    /// The annotations of its specification.
    pub annotations: BTreeMap<String, String>,
    /// The user who created it.
    pub owner: u32,
    /// Its cgroup, absolute below each hierarchy's root.
    pub cgroup: PathBuf,
    /// What the spec asked for and could not be granted, such as capabilities that this process does not have itself.
    pub warnings: Vec<String>,
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) created: jiff::Timestamp,
    pub(crate) owner: u32,
    pub(crate) cgroup: PathBuf,
    /// Whether that is a scope that systemd made.
    pub(crate) is_systemd_s: bool,
    /// The controllers that the cgroup has beyond the usual ones.
    pub(crate) controllers: Vec<String>,
    /// The namespaces that its processes share with no process of the machine, as flags of `setns(2)`.
    pub(crate) namespaces: i32,
    /// Whether a process of it was ever given what it takes to look into other processes, or those of others may have
    /// been.
    pub(crate) curious: bool,
    pub(crate) hooks: Option<Hooks>,
    /// Whom to give the listeners of its seccomp filter.
    pub(crate) listener: Option<ListenerSpec>,
    /// None until the init process is set up.
    pub(crate) init: Option<InitRecord>,
    /// The number of the first step after the start, and what each of them does: for who starts it and hears that one
    /// failed.
    pub(crate) first_step: u16,
    pub(crate) steps: Vec<String>,
    /// What it executes then.
    pub(crate) program: String,
    pub(crate) warnings: Vec<String>,
}

/// Which process the init is: pid and start time, so that a pid given to another is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InitRecord {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
}

impl InitRecord {
    /// Whether that process is there and has not ended.
    pub(crate) fn is_alive(self) -> bool {
        proc::stat(self.pid).is_ok_and(|stat| stat.start_time == self.start_time && !stat.is_dead())
    }
}

/// A container's folder below the runtime's root.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder of this id, which is checked first: it becomes part of a path.
    pub(crate) fn of(root: &Path, id: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.chars().all(plain) || id == "." || id == ".." {
            return Err(Error::Id { id: id.to_owned() });
        }
        Ok(Self(root.join(id)))
    }

    /// Makes the folder; it must not be there.
    pub(crate) fn make(&self, id: &str) -> Result<(), Error> {
        if let Some(root) = self.0.parent() {
            fs::create_dir_all(root).map_err(Error::file("make", root))?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists { id: id.to_owned() }),
            other => other.map_err(Error::file("make", &self.0)),
        }
    }

    /// Removes the folder and what is in it.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::file("remove", &self.0)),
        }
    }

    /// Keeps others from changing the container for as long as the result lives, and from deleting it: what is read from
    /// its record now can be written back.
    pub(crate) fn lock(&self, id: &str) -> Result<impl Drop + use<>, Error> {
        file::lock_folder(&self.0, LOCK_DEADLINE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound { id: id.to_owned() },
            io::ErrorKind::TimedOut => Error::Locked { id: id.to_owned(), seconds: LOCK_DEADLINE.as_secs() },
            _ => Error::file("lock", &self.0)(error),
        })
    }

    /// Where a created container listens.
    pub(crate) fn start_socket(&self) -> PathBuf {
        self.0.join("start.sock")
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), Error> {
        let path = self.0.join("state.json");
        let text = serde_json::to_vec(record).map_err(|error| Error::file("write", &path)(error.into()))?;
        replace(&path, &text, Durability::Process).map_err(Error::file("write", &path))
    }

    pub(crate) fn load(&self, id: &str) -> Result<Record, Error> {
        let path = self.0.join("state.json");
        match file::read_limited(&path, STATE_BYTES_MAX) {
            Ok(text) => document::read(&text, "state.json")
                .map_err(|error| Error::file(UNDERSTAND, &path)(io::Error::new(io::ErrorKind::InvalidData, error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound { id: id.to_owned() }),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    /// What can be told of a record that makes no sense.
    pub(crate) fn remains(&self) -> Remains {
        let text = file::read_limited(&self.0.join("state.json"), STATE_BYTES_MAX).unwrap_or_default();
        let mut fields = document::fields(&text);
        Remains {
            cgroup: of(&mut fields, "cgroup"),
            controllers: of(&mut fields, "controllers").unwrap_or_default(),
            is_systemd_s: of(&mut fields, "isSystemdS").unwrap_or_default(),
            init: of(&mut fields, "init"),
        }
    }

    pub(crate) fn save_filter(&self, filter: &Filter) -> Result<(), Error> {
        let path = self.0.join("seccomp.bpf");
        replace(&path, &seccomp::to_bytes(filter), Durability::Process).map_err(Error::file("write", &path))
    }

    /// The filter that the container began with, if it has one.
    pub(crate) fn load_filter(&self) -> Result<Option<Filter>, Error> {
        let path = self.0.join("seccomp.bpf");
        let broken = || Error::file(UNDERSTAND, &path)(io::ErrorKind::InvalidData.into());
        match file::read_limited(&path, STATE_BYTES_MAX) {
            Ok(bytes) => seccomp::from_bytes(&bytes).map(Some).ok_or_else(broken),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    /// Where in its life the container is. Whether it is paused, its cgroup knows.
    pub(crate) fn status(&self, record: &Record) -> Result<Status, Error> {
        match record.init {
            None => Ok(Status::Creating),
            Some(init) if !init.is_alive() => Ok(Status::Stopped),
            Some(_) if record.cgroup()?.is_frozen()? => Ok(Status::Paused),
            Some(_) if self.start_socket().exists() => Ok(Status::Created),
            Some(_) => Ok(Status::Running),
        }
    }
}

impl Record {
    /// The container's cgroup.
    pub(crate) fn cgroup(&self) -> Result<Cgroup, Error> {
        cgroup(&self.cgroup, &self.controllers)
    }
}

/// What of a container has to be taken away, as far as a record that makes no sense tells it.
#[derive(Debug)]
pub(crate) struct Remains {
    cgroup: Option<PathBuf>,
    controllers: Vec<String>,
    pub(crate) is_systemd_s: bool,
    pub(crate) init: Option<InitRecord>,
}

impl Remains {
    /// The container's cgroup, if there can be one of that name.
    pub(crate) fn cgroup(&self) -> Option<Cgroup> {
        cgroup(self.cgroup.as_deref()?, &self.controllers).ok()
    }
}

fn cgroup(path: &Path, controllers: &[String]) -> Result<Cgroup, Error> {
    let hierarchies = Hierarchies::of_machine().map_err(Error::file("read", "/proc/self/mountinfo"))?;
    let controllers: Vec<&str> = controllers.iter().map(String::as_str).collect();
    Ok(Cgroup::new(hierarchies, path, &controllers)?)
}

fn of<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(fields.remove(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_folders() {
        for good in ["a", "web-1_2.x+y", &"x".repeat(ID_BYTES_MAX)] {
            assert!(Folder::of(Path::new("/run"), good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(ID_BYTES_MAX + 1)] {
            assert!(Folder::of(Path::new("/run"), bad).is_err(), "{bad:?}");
        }
    }
}
