//! Staying with a process: its signals are ours, its orphans too, and its end ends us.

use std::io;
use std::os::fd::AsFd;

use berth_sys::process::{self, Exit};
use nix::errno::Errno;
use nix::libc::{SIGCHLD, SIGURG, SIGWINCH};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::relay::Relay;
use berth_runtime::Spawned;

/// The signals that we get, held until somebody reads them.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// From now on no signal is lost or acts on us.
    pub(crate) fn hold() -> io::Result<Self> {
        let all = SigSet::all();
        all.thread_block()?;
        Ok(Self(SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    fn next(&self) -> io::Result<Option<i32>> {
        Ok(self.0.read_signal()?.map(|signal| signal.ssi_signo as i32))
    }
}

/// Passes signals on to the process, and its terminal to ours, until it ends; reaps whatever else becomes our child.
/// Returns its code, or 128 and the signal that ended it.
pub(crate) fn attend(spawned: &Spawned, signals: &Signals, mut relay: Option<Relay>) -> io::Result<u8> {
    let exit = loop {
        if let Some(exit) = obey_signals(spawned, signals, relay.as_ref())? {
            break exit;
        }
        wait(signals, relay.as_mut())?;
    };
    if let Some(relay) = relay {
        relay.end();
    }
    Ok(exit.code() as u8)
}

fn wait(signals: &Signals, relay: Option<&mut Relay>) -> io::Result<()> {
    let signal = PollFd::new(signals.0.as_fd(), PollFlags::POLLIN);
    match relay {
        Some(relay) => relay.carry(signal),
        None => match poll(&mut [signal], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
    }
}

/// Does what the signals that came say; returns how the process ended, if it did.
fn obey_signals(spawned: &Spawned, signals: &Signals, relay: Option<&Relay>) -> io::Result<Option<Exit>> {
    while let Some(signal) = signals.next()? {
        match (signal, relay) {
            (SIGCHLD, _) => {
                if let Some(exit) = reap(spawned.pid)? {
                    return Ok(Some(exit));
                }
            }
            (SIGWINCH, Some(relay)) => relay.follow_size(),
            // Of no meaning to anybody but who asked for it.
            (SIGURG, _) => {}
            // If it has ended, we shall hear of it.
            _ => drop(process::pidfd_send_signal(&spawned.pidfd, signal)),
        }
    }
    Ok(None)
}

/// Takes the status of every child that has ended; one signal may stand for many. Returns that of `pid`.
fn reap(pid: i32) -> io::Result<Option<Exit>> {
    let mut found = None;
    while let Some((ended, exit)) = process::reap_any()? {
        if ended == pid {
            found = Some(exit);
        }
    }
    Ok(found)
}
