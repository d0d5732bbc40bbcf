//! Who runs here: one agent per run folder, found by a lock that ends with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_sys::file::{self, Durability};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long an agent may take to end when it is asked to.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// Held while an agent runs on a run folder.
pub(crate) struct Presence {
    _lock: Flock<File>,
}

fn lock_path(run_dir: &Path) -> PathBuf {
    run_dir.join("berth.lock")
}

fn pid_path(run_dir: &Path) -> PathBuf {
    run_dir.join("berth.pid")
}

impl Presence {
    /// Takes the run folder; an error if somebody has it.
    pub(crate) fn take(run_dir: &Path) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("must run as root: namespaces, cgroups and mounts belong to root; try sudo");
        }
        fs::create_dir_all(run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
        let Some(lock) = try_lock(run_dir)? else {
            bail!("berth runs here already (process {}); end it with berth down", read_pid(run_dir)?);
        };
        file::replace(&pid_path(run_dir), std::process::id().to_string().as_bytes(), Durability::Process)?;
        Ok(Self { _lock: lock })
    }
}

fn try_lock(run_dir: &Path) -> Result<Option<Flock<File>>> {
    let path = lock_path(run_dir);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn read_pid(run_dir: &Path) -> Result<i32> {
    let path = pid_path(run_dir);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{}: {text:?} is no process", path.display()))
}

/// Whether an agent runs on a run folder.
pub(crate) fn is_taken(run_dir: &Path) -> Result<bool> {
    if !lock_path(run_dir).exists() {
        return Ok(false);
    }
    Ok(try_lock(run_dir)?.is_none())
}

/// Asks the agent to end and waits until it did; after the deadline it is killed. Success if there is none.
pub(crate) fn end(run_dir: &Path) -> Result<()> {
    if !is_taken(run_dir)? {
        return Ok(());
    }
    let pid = Pid::from_raw(read_pid(run_dir)?);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("cannot end process {pid}")),
        }
        let deadline = Instant::now() + END_DEADLINE;
        while Instant::now() < deadline {
            if !is_taken(run_dir)? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    bail!("process {pid} does not end")
}
