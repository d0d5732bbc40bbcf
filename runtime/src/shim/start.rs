//! How a client starts a shim and learns that it is ready, or why it is not.
//!
//! Each shim is executed anew. A process kept to fork them from would save 0.3 ms of the 1.7 that a start takes at best
//! (measured: executing a program of no work 0.5 ms, the shim 0.5 too, a fork alone 0.2; the rest is the network
//! namespace with 0.6 and the files), for one more process to guard, to pass the descriptors to, and to upgrade.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use berth_sys::file::{self, Durability};
use berth_sys::mount::{self, Attributes, MOUNT_ATTR_RDONLY, Reach};
use nix::libc;
use nix::poll::PollFlags;

use super::client::{Error, wait_for};
use super::document;
use super::protocol::{SandboxSpec, ShimRecord};

/// How long a shim may take to make its sandbox.
pub const START_TIME_MAX: Duration = Duration::from_secs(20);

/// How much of a failing shim's complaint is kept.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Writes `sandbox.json` into `dir`, which is made if it is not there, starts the shim and waits until it answers. After
/// a failure call [`super::client::reap_dead`]: the shim may have got some way.
pub fn start_shim(program: &Path, dir: &Path, spec: &SandboxSpec) -> Result<ShimRecord, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("making", dir))?;
    let path = dir.join("sandbox.json");
    serde_json::to_vec(spec)
        .map_err(io::Error::from)
        .and_then(|content| file::replace(&path, &content, Durability::Process))
        .map_err(Error::io("writing", &path))?;
    let failed = |message: String| Error::Start { program: program.into(), dir: dir.into(), message };
    // One that cannot be shielded here does it itself.
    let shielded = shielded(program).ok();
    let path = shielded.as_ref().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
    let mut child = Command::new(path.as_deref().unwrap_or(program))
        .arg0(program)
        .arg("--dir")
        .arg(dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let outcome = complaint(&mut child, Instant::now() + START_TIME_MAX);
    if outcome.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    match outcome {
        Ok(_) if status.success() => read_record(dir),
        Ok(message) if message.is_empty() => Err(failed(format!("it ended with {status} and no word"))),
        Ok(message) => Err(failed(message)),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The program on a read-only mount of its own, which is attached nowhere and gone with the last process that executes
/// it: a container that gets hold of `/proc/<pid>/exe` cannot write to the program by it (CVE-2019-5736).
fn shielded(program: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(program)?;
    let copy = mount::copy(&file, c"", Reach::One)?;
    let read_only = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mount::set_attributes(&copy, &read_only, Reach::One)?;
    Ok(copy)
}

/// Who answers for the sandbox in `dir`.
pub fn read_record(dir: &Path) -> Result<ShimRecord, Error> {
    let path = dir.join("shim.json");
    document::read_file(&path).map_err(Error::io("reading", &path))
}

/// What the starting shim writes to its standard error until it closes it, which it does when it is ready.
fn complaint(child: &mut Child, deadline: Instant) -> io::Result<String> {
    let Some(mut stderr) = child.stderr.take() else { return Ok(String::new()) };
    hear(&mut stderr, deadline)
}

/// What a program writes to its standard error until it is closed.
pub(super) fn hear(stderr: &mut ChildStderr, deadline: Instant) -> io::Result<String> {
    let began = Instant::now();
    let mut message = Vec::new();
    let mut buffer = [0; 512];
    loop {
        if !wait_for(stderr.as_fd(), PollFlags::POLLIN, deadline)? {
            let waited = began.elapsed();
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it was not done after {waited:.0?}")));
        }
        match stderr.read(&mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&message).trim().to_owned()),
            count => {
                let room = MESSAGE_BYTES_MAX.saturating_sub(message.len()).min(count);
                message.extend_from_slice(&buffer[..room]);
            }
        }
    }
}
