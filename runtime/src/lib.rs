//! An OCI runtime as a library, and both ends of the pod shim's socket ([`shim`]).
//!
//! ```text
//!            create                start              the program ends         delete
//!   (none) ─────────▶ created ─────────────▶ running ─────────────────▶ stopped ─────────▶ (none)
//! ```
#![forbid(unsafe_code)]

mod container;
mod error;
mod init;
mod limits;
mod plan;
mod seccomp;
pub mod shim;
mod spec;
mod state;
mod sync;
mod update;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::Cgroup;

pub use error::Error;
pub use state::{State, Status};

/// The runtime: containers whose state lies below one folder.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
}

/// The standard streams of a process; an absent one is `/dev/null`.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: Option<OwnedFd>,
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
}

/// A process that was made: a child of the caller.
#[derive(Debug)]
pub struct Spawned {
    /// Its id in the caller's pid namespace.
    pub pid: i32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
}

impl Runtime {
    /// A runtime that keeps its state below `root`, which is made if it is not there.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Sets a container up from its bundle. Its init process is a child of the caller and waits for [`Self::start`].
    /// On failure nothing is left: no process, cgroup, mount or state.
    pub fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Spawned, Error> {
        self.create_container(id, bundle, stdio)
    }

    /// Lets the init process execute the program; returns when it did, or why it could not ([`Error::Exec`]). Any
    /// process may do it, not only the one that created the container.
    pub fn start(&self, id: &str) -> Result<(), Error> {
        self.start_container(id)
    }

    /// Runs one more process in a container; returns when its program was executed, or why it could not be
    /// ([`Error::Exec`]). The process is a child of the caller.
    pub fn exec(&self, id: &str, process: &oci_spec::runtime::Process, stdio: Stdio) -> Result<Spawned, Error> {
        self.exec_in_container(id, process, stdio)
    }

    /// Sends a signal to the init process, or to every process of the container. Success if it has ended.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        self.kill_container(id, signal, all)
    }

    /// Removes what is left of a container: processes, cgroup, state. Success if it is gone. Its init process stays
    /// the caller's to wait for.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        self.delete_container(id)
    }

    /// A container as it is now.
    pub fn state(&self, id: &str) -> Result<State, Error> {
        self.container_state(id)
    }

    /// Changes limits of a container that was created; those that are absent stay. Devices, huge pages and `unified`
    /// are refused.
    pub fn update(&self, id: &str, resources: &oci_spec::runtime::LinuxResources) -> Result<(), Error> {
        self.update_container(id, resources)
    }

    /// A container's cgroup: to watch it for the OOM killer, to read figures from.
    pub fn cgroup(&self, id: &str) -> Result<Cgroup, Error> {
        self.container_cgroup(id)
    }
}
