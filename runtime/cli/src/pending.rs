//! Stand-ins for what the library does not have yet; each goes away when it does.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_runtime::{Error, Status};
use oci_spec::runtime::{LinuxResources, Process, Spec};

pub(crate) struct Runtime {
    inner: berth_runtime::Runtime,
}

#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) systemd_cgroup: bool,
}

#[derive(Default)]
pub(crate) struct Launch {
    pub(crate) stdio: berth_runtime::Stdio,
    pub(crate) preserved: Vec<OwnedFd>,
    pub(crate) pivot: bool,
    pub(crate) new_keyring: bool,
}

#[derive(Default)]
pub(crate) struct ExecOptions {
    pub(crate) launch: Launch,
    pub(crate) sub_cgroup: Option<PathBuf>,
    pub(crate) even_if_paused: bool,
}

pub(crate) struct Spawned {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
}

pub(crate) struct State {
    pub(crate) id: String,
    pub(crate) status: Status,
    pub(crate) pid: i32,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: jiff::Timestamp,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: u32,
    pub(crate) warnings: Vec<String>,
}

#[derive(serde::Serialize)]
pub(crate) struct Stats {}

fn no<T>(what: &str) -> Result<T, Error> {
    Err(Error::Unsupported { field: what.to_owned() })
}

fn spawned(it: berth_runtime::Spawned) -> Spawned {
    Spawned { pid: it.pid, pidfd: it.pidfd, terminal: None }
}

impl Runtime {
    pub(crate) fn with(root: PathBuf, settings: Settings) -> Self {
        let _ = settings.systemd_cgroup;
        Self { inner: berth_runtime::Runtime::new(root) }
    }

    pub(crate) fn create(&self, id: &str, bundle: &Path, launch: Launch) -> Result<Spawned, Error> {
        let _ = (launch.preserved, launch.pivot, launch.new_keyring);
        self.inner.create(id, bundle, launch.stdio).map(spawned)
    }

    pub(crate) fn start(&self, id: &str) -> Result<(), Error> {
        self.inner.start(id)
    }

    pub(crate) fn exec(&self, id: &str, process: &Process, options: ExecOptions) -> Result<Spawned, Error> {
        let _ = (options.sub_cgroup, options.even_if_paused);
        self.inner.exec(id, process, options.launch.stdio).map(spawned)
    }

    pub(crate) fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        self.inner.kill(id, signal, all)
    }

    pub(crate) fn delete(&self, id: &str) -> Result<(), Error> {
        self.inner.delete(id)
    }

    pub(crate) fn state(&self, id: &str) -> Result<State, Error> {
        let state = self.inner.state(id)?;
        Ok(State {
            id: state.id,
            status: state.status,
            pid: if state.status == Status::Stopped { 0 } else { state.pid },
            rootfs: state.bundle.join("rootfs"),
            bundle: state.bundle,
            created: jiff::Timestamp::now(),
            annotations: BTreeMap::new(),
            owner: 0,
            warnings: state.warnings,
        })
    }

    pub(crate) fn list(&self) -> Result<Vec<State>, Error> {
        no("list")
    }

    pub(crate) fn processes(&self, id: &str) -> Result<Vec<i32>, Error> {
        Ok(self.inner.cgroup(id)?.processes()?)
    }

    pub(crate) fn pause(&self, _id: &str) -> Result<(), Error> {
        no("pause")
    }

    pub(crate) fn resume(&self, _id: &str) -> Result<(), Error> {
        no("resume")
    }

    pub(crate) fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), Error> {
        self.inner.update(id, resources)
    }

    pub(crate) fn stats(&self, _id: &str) -> Result<Stats, Error> {
        no("stats")
    }

    pub(crate) fn spec(&self, id: &str) -> Result<Spec, Error> {
        let path = self.inner.state(id)?.bundle.join("config.json");
        let text = std::fs::read(&path).map_err(|source| Error::File { action: "read", path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|error| Error::File { action: "read", path, source: error.into() })
    }

    pub(crate) fn cgroup(&self, id: &str) -> Result<berth_sys::cgroup::Cgroup, Error> {
        self.inner.cgroup(id)
    }
}

pub(crate) fn features() -> serde_json::Value {
    serde_json::Value::Null
}

pub(crate) fn is_paused(status: Status) -> bool {
    status.to_string() == "paused"
}

pub(crate) fn pidfd_getfd(_pidfd: impl AsFd, _fd: i32) -> std::io::Result<OwnedFd> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub(crate) mod pty {
    use std::os::fd::AsFd;

    #[derive(Clone, Copy)]
    pub(crate) struct Size;

    pub(crate) fn size(_terminal: impl AsFd) -> nix::Result<Size> {
        Ok(Size)
    }

    pub(crate) fn resize(_terminal: impl AsFd, _size: Size) -> nix::Result<()> {
        Ok(())
    }
}
