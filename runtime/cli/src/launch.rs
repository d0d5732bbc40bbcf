//! What a new process is given besides its spec, and who is told of it: the terminal's master and the pidfd by sockets,
//! the process id by a file.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use berth_runtime::{Launch, Spawned, Stdio};
use berth_sys::file::{Durability, replace};
use berth_sys::{process, socket};
use nix::libc::O_CLOEXEC;

use crate::args::Launching;
use crate::error::Error;

/// The first descriptor after the standard streams.
const FIRST_PRESERVED: i32 = 3;

/// How a terminal is called where it is sent to: what runc calls it.
const TERMINAL_NAME: &[u8] = b"/dev/ptmx";

/// How a pidfd is called where it is sent to: what runc calls it.
const PIDFD_NAME: &[u8] = b"pidfd";

/// Collects what the process inherits from us.
pub(crate) fn prepare(args: &Launching) -> Result<Launch, Error> {
    let activated = activation_count();
    let preserved = preserved(activated + args.preserve_fds)?;
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|source| Error::Preserve { fd: 0, source });
    let stdio = Stdio {
        stdin: Some(copy(io::stdin().as_fd())?),
        stdout: Some(copy(io::stdout().as_fd())?),
        stderr: Some(copy(io::stderr().as_fd())?),
    };
    // The program finds the sockets as if it had been activated itself, as the first process that it is.
    let environment = match activated {
        0 => Vec::new(),
        count => vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()],
    };
    let (pivot, new_keyring) = (!args.no_pivot, !args.no_new_keyring);
    // podman and containerd expect to hear of a missing program where they create a container: exit codes 126 and 127
    // come from there.
    Ok(Launch { stdio, preserved, environment, pivot, new_keyring, look_for_program: true })
}

/// How many sockets systemd's protocol passes to this very process (sd_listen_fds(3)).
fn activation_count() -> u32 {
    let of = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match (of("LISTEN_PID"), of("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// The descriptors from the first on, which the caller left open for the process.
fn preserved(count: u32) -> Result<Vec<OwnedFd>, Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let count = i32::try_from(count).unwrap_or(i32::MAX - FIRST_PRESERVED);
    let numbers = FIRST_PRESERVED..FIRST_PRESERVED + count;
    let fail = |fd| move |source| Error::Preserve { fd, source };
    for fd in numbers.clone() {
        check_inherited(fd).map_err(fail(fd))?;
    }
    let this = process::pidfd_open(std::process::id() as i32).map_err(fail(FIRST_PRESERVED))?;
    numbers.map(|fd| process::pidfd_getfd(&this, fd).map_err(fail(fd))).collect()
}

/// Whether a descriptor was passed to us: one that we opened took the place of one that is missing, and would be closed
/// by an `execve`, as nothing that has come through one is (proc_pid_fdinfo(5)).
fn check_inherited(fd: i32) -> io::Result<()> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    match flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()) {
        Some(flags) if flags & O_CLOEXEC == 0 => Ok(()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Tells of a new process whom the caller wants told. Returns its terminal if that is ours to attend.
pub(crate) fn announce(args: &Launching, spawned: &mut Spawned) -> Result<Option<OwnedFd>, Error> {
    check_terminal(args, spawned.terminal.is_some())?;
    let terminal = match (spawned.terminal.take(), &args.console_socket) {
        (Some(terminal), Some(socket)) => {
            send(socket, TERMINAL_NAME, terminal.as_fd())?;
            None
        }
        (terminal, _) => terminal,
    };
    if let Some(socket) = &args.pidfd_socket {
        send(socket, PIDFD_NAME, spawned.pidfd.as_fd())?;
    }
    if let Some(file) = &args.pid_file {
        let text = spawned.pid.to_string();
        replace(file, text.as_bytes(), Durability::Process).map_err(Error::file("write", file))?;
    }
    Ok(terminal)
}

/// Whether somebody holds the other end of the process' terminal, if it has one: we do unless we leave it.
pub(crate) fn check_terminal(args: &Launching, terminal: bool) -> Result<(), Error> {
    match (&args.console_socket, terminal && args.detach) {
        (None, true) => Err(Error::ConsoleSocketMissing),
        (Some(_), false) => Err(Error::ConsoleSocketUnused),
        _ => Ok(()),
    }
}

fn send(path: &Path, name: &[u8], fd: BorrowedFd<'_>) -> Result<(), Error> {
    let stream = UnixStream::connect(path).map_err(Error::file("connect to", path))?;
    socket::send(stream.as_fd(), name, &[fd]).map_err(Error::file("send a descriptor to", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_needs_one_who_holds_its_other_end() {
        let check = |socket: Option<&str>, detach, terminal| {
            let args = Launching { console_socket: socket.map(Into::into), detach, ..Launching::default() };
            check_terminal(&args, terminal).is_ok()
        };
        assert!(check(None, false, false) && check(None, false, true) && check(None, true, false));
        assert!(check(Some("/s"), true, true));
        assert!(!check(None, true, true));
        assert!(!check(Some("/s"), false, true) && !check(Some("/s"), true, false));
    }

    #[test]
    fn a_missing_descriptor_is_told() {
        assert!(matches!(preserved(100_000), Err(Error::Preserve { .. })));
    }
}
