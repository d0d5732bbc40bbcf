//! An OCI runtime as a library, and both ends of the pod shim's socket ([`shim`]).
//!
//! ```text
//!            create                start              the program ends         delete
//!   (none) ─────────▶ created ─────────────▶ running ─────────────────▶ stopped ─────────▶ (none)
//! ```
#![forbid(unsafe_code)]

pub mod shim;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The runtime: containers whose state lies below one folder.
#[derive(Debug, Clone)]
pub struct Runtime {
    #[allow(dead_code, reason = "filled in with the runtime")]
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

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

#[allow(clippy::todo, unused_variables, reason = "the outline of the runtime")]
impl Runtime {
    /// A runtime that keeps its state below `root`, which is made if it is not there.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Sets a container up from its bundle. Its init process is a child of the caller and waits for [`Self::start`].
    pub fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Spawned, Error> {
        todo!()
    }

    /// Lets the init process execute the program; returns when it did, or why it could not.
    pub fn start(&self, id: &str) -> Result<(), Error> {
        todo!()
    }

    /// Runs one more process in a container; returns when its program was executed, or why it could not be.
    pub fn exec(&self, id: &str, process: &oci_spec::runtime::Process, stdio: Stdio) -> Result<Spawned, Error> {
        todo!()
    }

    /// Sends a signal to the init process, or to every process of the container. Success if it has ended.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        todo!()
    }

    /// Removes what is left of a container: processes, cgroup, state. Success if it is gone.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        todo!()
    }
}
