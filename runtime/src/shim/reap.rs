//! Cleaning up after a shim that died: everything that it kept is below its sandbox's directory, by which it is found.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use berth_sys::{namespace, presence, process};
use nix::libc;

use super::cgroup;
use super::client::{Error, living};
use super::document;
use super::protocol::{Handler, SandboxSpec};
use crate::Runtime;

/// How long a shim may take to end once it is done or killed.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);

/// How often to look whether it has: the kernel tells nobody of a lock that was let go.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Removes what a dead shim left: the containers' processes, cgroups and runtime state, the pinned namespaces, and `dir`
/// with all that is in it; read the exit records before. Goes on at errors and returns all of them. Success if it is
/// gone already. A shim that is just ending, after [`super::protocol::Call::Shutdown`], is waited for.
pub fn reap_dead(dir: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + FAREWELL_TIME_MAX;
    while let Some(pid) = living(dir)? {
        if dir.join("shim.sock").exists() || Instant::now() >= deadline {
            return Err(Error::Alive { dir: dir.into(), pid });
        }
        thread::sleep(LOOK_AGAIN);
    }
    // Those that worked for it die with it, an instant later.
    let lock = dir.join("shim.lock");
    while presence::is_held(&lock).map_err(Error::io("looking at", &lock))? {
        if Instant::now() >= deadline {
            let failures = vec!["somebody still works for the dead shim".to_owned()];
            return Err(Error::Leftovers { dir: dir.into(), failures });
        }
        thread::sleep(LOOK_AGAIN);
    }
    let mut failures = Vec::new();
    let runtime = Runtime::new(dir.join("runtime"));
    for container in names(&dir.join("runtime"), &mut failures) {
        if let Err(error) = runtime.delete(&container) {
            failures.push(format!("container {container}: {}", chain(&error)));
        }
    }
    let spec = match document::read_file::<SandboxSpec>(&dir.join("sandbox.json")) {
        Ok(spec) => Some(spec),
        Err(error) => {
            if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge) {
                failures.push(format!("reading sandbox.json: {error}"));
            }
            None
        }
    };
    if let Some(handler) = spec.as_ref().and_then(|spec| spec.handler.as_ref()) {
        for container in names(&Handler::folder(dir), &mut failures) {
            failures.extend(delete_by(handler, dir, &container).err());
        }
    }
    let pins = dir.join("ns");
    for name in names(&pins, &mut failures) {
        if let Err(error) = namespace::unpin(&pins.join(name)) {
            failures.push(chain(&error));
        }
    }
    // A shim that died while it made a container may have left it without a state.
    if let Some(spec) = &spec {
        failures.extend(cgroup::end(dir, &spec.cgroup).err().map(|error| chain(&error)));
    }
    // What is still mounted or running must be found again: the directory goes last, and only after all of it.
    if failures.is_empty() {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => failures.push(error.to_string()),
            _ => return Ok(()),
        }
    }
    Err(Error::Leftovers { dir: dir.into(), failures })
}

/// Lets another OCI runtime delete what it made; what it never made is deleted.
fn delete_by(handler: &Handler, dir: &Path, container: &str) -> Result<(), String> {
    let failed = |what: &dyn std::fmt::Display| format!("container {container}: {}: {what}", handler.program.display());
    let mut command = Command::new(&handler.program);
    command.args(handler.arguments(dir)).args(["delete", "--force", container]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let deadline = Instant::now() + handler.time_max();
    let mut complaint = String::new();
    let heard = match child.stderr.take() {
        // Its end closes it, unless it left somebody behind.
        Some(mut stderr) => super::start::hear(&mut stderr, deadline).map(|text| complaint = text),
        None => Ok(()),
    };
    if heard.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    heard.map_err(|error| failed(&error))?;
    let is_gone = complaint.contains("does not exist");
    if status.success() || is_gone { Ok(()) } else { Err(failed(&complaint)) }
}

/// Kills a shim that lives but does not answer, and waits for its end; then [`reap_dead`] finds what it leaves. Success
/// if it is dead.
pub fn kill_shim(dir: &Path) -> Result<(), Error> {
    let Some(pid) = living(dir)? else { return Ok(()) };
    let killed = process::pidfd_open(pid).and_then(|pidfd| {
        // The id may have been given away between the two: is it still the shim's?
        if living(dir).is_ok_and(|now| now == Some(pid)) {
            process::pidfd_send_signal(&pidfd, libc::SIGKILL)?;
            process::wait_for_end(&pidfd, FAREWELL_TIME_MAX.as_millis() as u16)?;
        }
        Ok(())
    });
    match killed {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(Error::io("killing the shim in", dir)(error)),
        _ => Ok(()),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn names(folder: &Path, failures: &mut Vec<String>) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            failures.push(format!("listing {}: {error}", folder.display()));
            return Vec::new();
        }
        Ok(entries) => entries,
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
