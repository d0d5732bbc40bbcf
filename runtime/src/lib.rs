//! An OCI runtime as a library, and both ends of the pod shim's socket ([`shim`]).
//!
//! ```text
//!            create                start              the program ends         delete
//!   (none) ─────────▶ created ─────────────▶ running ─────────────────▶ stopped ─────────▶ (none)
//! ```
#![forbid(unsafe_code)]

mod container;
mod conversation;
mod create;
mod document;
mod error;
mod exec;
mod features;
mod home;
mod hooks;
mod init;
mod limits;
mod net_device;
mod plan;
mod repair;
mod seccomp;
pub mod shim;
mod spec;
mod state;
mod stats;
mod sync;
mod systemd;
mod update;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::Cgroup;
use berth_sys::seccomp::Instruction;
use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process, Spec};

pub use error::Error;
pub use features::features;
pub use state::{State, Status};
pub use stats::Stats;

/// The version of the OCI runtime specification that this runtime keeps.
pub const OCI_VERSION: &str = "1.3.0";

/// The runtime: containers whose state lies below one folder.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
    settings: Settings,
}

/// Whether a `config.json` makes sense, as far as can be told without touching the machine: what is refused here, no
/// [`Runtime::create`] takes. Errors name the field ([`Error::Spec`], [`Error::Unsupported`]).
///
/// Left out are what its paths lead to, what the kernel takes (the options of a file system, the values of limits), and
/// which capabilities and cgroup controllers there are.
pub fn check_config(config: &[u8], settings: Settings) -> Result<(), Error> {
    let spec = spec::parse(config)?;
    plan::check(&spec, settings)?;
    net_device::moves(spec::linux(&spec)?)?;
    seccomp::of_spec(&spec)?;
    seccomp::listener_of(&spec).map(drop)
}

/// The text of a bundle's `config.json`, for who needs to know something of it without judging it. It has at most 4 MiB
/// ([`Error::Spec`]).
pub fn read_config(bundle: &Path) -> Result<Vec<u8>, Error> {
    spec::text(bundle)
}

/// Reads the text of a `process` object (runtime spec, config.md#process), such as [`Runtime::exec`] takes. Errors name
/// the field ([`Error::Spec`]).
pub fn read_process(text: &[u8]) -> Result<Process, Error> {
    document::read_mended(text, "process", repair::process)
}

/// Compiles a seccomp profile to the program that the kernel runs on each system call: at most
/// [`berth_sys::seccomp::INSTRUCTIONS_MAX`] instructions. Errors name the field ([`Error::Spec`]).
pub fn compile_seccomp(profile: &LinuxSeccomp) -> Result<Vec<Instruction>, Error> {
    seccomp::filter(profile).map(|filter| filter.program)
}

/// What holds for every container of a runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether `linux.cgroupsPath` is systemd's `slice:prefix:name`, not a path.
    pub systemd_cgroup: bool,
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

/// How a process is launched, besides what its specification says.
#[derive(Debug)]
pub struct Launch {
    /// Its standard streams, unless it has a terminal: then they are that ([`Spawned::terminal`]).
    pub stdio: Stdio,
    /// Descriptors that its program finds as numbers 3, 4 and so on.
    pub preserved: Vec<OwnedFd>,
    /// More entries of its environment, `NAME=value`.
    pub environment: Vec<String>,
    /// Whether to change its root by `pivot_root(2)`, from which there is no way back. Without, for a machine that runs
    /// from its initial RAM disk, the root is moved over.
    pub pivot: bool,
    /// Whether to give it a session keyring of its own.
    pub new_keyring: bool,
    /// Whether a container is refused whose program is not there or no program, as far as that can be told before it is
    /// executed ([`Error::Exec`]). Without, it is told by [`Runtime::start`].
    pub look_for_program: bool,
}

impl Default for Launch {
    fn default() -> Self {
        let (stdio, preserved, environment) = Default::default();
        Self { stdio, preserved, environment, pivot: true, new_keyring: true, look_for_program: false }
    }
}

impl From<Stdio> for Launch {
    fn from(stdio: Stdio) -> Self {
        Self { stdio, ..Self::default() }
    }
}

/// How one more process is launched in a container.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// As for the first one; what is about more than its streams, descriptors and environment means nothing here.
    pub launch: Launch,
    /// A cgroup below the container's that it shall be in; it must exist. On v1 the controllers in whose hierarchies can
    /// stand before it, as in `cpu,memory:path`; without, it is in all.
    pub sub_cgroup: Option<PathBuf>,
    /// Whether to do it in a paused container too, where the process waits for its resumption.
    pub even_if_paused: bool,
}

impl From<Launch> for ExecOptions {
    fn from(launch: Launch) -> Self {
        Self { launch, ..Self::default() }
    }
}

impl From<Stdio> for ExecOptions {
    fn from(stdio: Stdio) -> Self {
        Launch::from(stdio).into()
    }
}

/// A process that was made: a child of the caller.
#[derive(Debug)]
pub struct Spawned {
    /// Its id in the caller's pid namespace.
    pub pid: i32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if its specification asks for one.
    pub terminal: Option<OwnedFd>,
    /// What its specification asked for and could not be granted.
    pub warnings: Vec<String>,
}

impl Runtime {
    /// A runtime that keeps its state below `root`, which is made if it is not there.
    pub fn new(root: PathBuf) -> Self {
        Self::with(root, Settings::default())
    }

    /// A runtime with settings.
    pub fn with(root: PathBuf, settings: Settings) -> Self {
        Self { root, settings }
    }

    /// Sets a container up from its bundle. Its init process is a child of the caller and waits for [`Self::start`].
    /// On failure nothing is left: no process, cgroup, mount or state.
    pub fn create(&self, id: &str, bundle: &Path, launch: impl Into<Launch>) -> Result<Spawned, Error> {
        self.create_container(id, bundle, launch.into())
    }

    /// Creates a container and starts it in one step, which is faster than both. `ready` is called in between, when the
    /// init process is set up: its failure ends the container. On failure nothing is left.
    pub fn run<E: From<Error>>(
        &self,
        id: &str,
        bundle: &Path,
        launch: impl Into<Launch>,
        ready: impl FnOnce(&mut Spawned) -> Result<(), E>,
    ) -> Result<Spawned, E> {
        self.run_container(id, bundle, launch.into(), ready)
    }

    /// Lets the init process execute the program; returns when it did, or why it could not ([`Error::Exec`]). Any
    /// process may do it, not only the one that created the container.
    pub fn start(&self, id: &str) -> Result<(), Error> {
        self.start_container(id)
    }

    /// Runs one more process in a container; returns when its program was executed, or why it could not be
    /// ([`Error::Exec`]). The process is a child of the caller.
    pub fn exec(&self, id: &str, process: &Process, options: impl Into<ExecOptions>) -> Result<Spawned, Error> {
        self.exec_in_container(id, process, options.into())
    }

    /// Sends a signal to the init process, or to every process of the container. Success if it has ended.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        self.kill_container(id, signal, all)
    }

    /// Removes what is left of a container: processes, cgroup, state; then runs its `poststop` hooks. Success if it is
    /// gone. Its init process stays the caller's to wait for. The answer is what went wrong without being in the way: a
    /// hook that failed.
    pub fn delete(&self, id: &str) -> Result<Vec<String>, Error> {
        self.delete_container(id)
    }

    /// As [`Self::delete`]. Of a container whose record makes no sense, which that refuses, it removes what can be told of,
    /// and the answer is what was wrong with it.
    pub fn delete_anyway(&self, id: &str) -> Result<Vec<String>, Error> {
        self.delete_container_anyway(id)
    }

    /// A container as it is now.
    pub fn state(&self, id: &str) -> Result<State, Error> {
        self.container_state(id)
    }

    /// Every container, by id. One that goes away meanwhile is left out, and so is one whose state makes no sense, which
    /// [`Self::state`] tells.
    pub fn list(&self) -> Result<Vec<State>, Error> {
        self.list_containers()
    }

    /// The ids of every process of a container, those in cgroups of its own making too, in ascending order.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>, Error> {
        Ok(self.container_cgroup(id)?.all_processes()?)
    }

    /// Stops every process of a container; returns when they have stopped.
    pub fn pause(&self, id: &str) -> Result<(), Error> {
        self.pause_container(id)
    }

    /// Lets the processes of a paused container go on.
    pub fn resume(&self, id: &str) -> Result<(), Error> {
        self.resume_container(id)
    }

    /// Changes limits of a container that was created; those that are absent stay. Rules for devices, if there are any,
    /// take the place of all rules before.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), Error> {
        self.update_container(id, resources)
    }

    /// What a container has used up to now.
    pub fn stats(&self, id: &str) -> Result<Stats, Error> {
        Ok(Stats::of(&self.container_cgroup(id)?))
    }

    /// The `config.json` of a container's bundle, as it is now.
    pub fn spec(&self, id: &str) -> Result<Spec, Error> {
        spec::load(&self.container_state(id)?.bundle)
    }

    /// A container's cgroup: to watch it for the OOM killer, to read figures from.
    pub fn cgroup(&self, id: &str) -> Result<Cgroup, Error> {
        self.container_cgroup(id)
    }
}
