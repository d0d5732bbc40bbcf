//! What a new process and its maker tell one another while it is set up.
//!
//! ```text
//!   create / exec                    new process                   start (any process, any time later)
//!        │ ── clone3 ───────────────────▶ │
//!        │ (puts it into the cgroup)      │ steps
//!        │ ── Joined ───────────────────▶ │ steps
//!        │ ◀── Ready, or Failed(step) ─── │
//!        │ ── Keep ─────────────────────▶ │ outlives its maker from here on
//!        │                                │ listens at start.sock ◀──── connect ── │
//!        │                                │ ── Going ────────────────────────────▶ │
//!        │                                │ steps                                  │
//!        │                                │ ── Failed(step) ─────────────────────▶ │
//!        │                                │ execve; the connection closes by it ─▶ │
//! ```
//!
//! `exec` has no second half: its steps go on to `execve`, which closes the first connection.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::limits::ANSWER_DEADLINE;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// It was put into its cgroup.
    Joined,
    /// The process is set up.
    Ready,
    /// Its maker has made a note of it.
    Keep,
    /// It heard that it shall start.
    Going,
    /// A step failed; counted through the whole plan.
    Failed { step: u16, errno: i32 },
}

const BYTES: usize = 7;

impl Message {
    fn encode(self) -> [u8; BYTES] {
        let (kind, step, errno) = match self {
            Self::Ready => (1, 0, 0),
            Self::Keep => (2, 0, 0),
            Self::Going => (3, 0, 0),
            Self::Failed { step, errno } => (4, step, errno),
            Self::Joined => (5, 0, 0),
        };
        let ([a, b], [c, d, e, f]) = (step.to_le_bytes(), errno.to_le_bytes());
        [kind, a, b, c, d, e, f]
    }

    fn decode([kind, a, b, c, d, e, f]: [u8; BYTES]) -> Option<Self> {
        match kind {
            1 => Some(Self::Ready),
            2 => Some(Self::Keep),
            3 => Some(Self::Going),
            4 => Some(Self::Failed { step: u16::from_le_bytes([a, b]), errno: i32::from_le_bytes([c, d, e, f]) }),
            5 => Some(Self::Joined),
            _ => None,
        }
    }
}

/// Sends a packet. Allocates nothing.
pub(crate) fn send(socket: impl AsFd, message: Message) -> nix::Result<()> {
    nix::sys::socket::send(
        std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd()),
        &message.encode(),
        nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
    )
    .map(drop)
}

/// Waits for a packet without a deadline; `None` when the other end is closed. Allocates nothing.
pub(crate) fn receive(socket: impl AsFd) -> nix::Result<Option<Message>> {
    loop {
        wait_readable(&socket, PollTimeout::NONE)?;
        match read(&socket) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Waits for a packet, but not for ever.
pub(crate) fn receive_in_time(socket: &OwnedFd, phase: &'static str) -> Result<Option<Message>, Error> {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    let failed = |errno: Errno| Error::Setup { step: "talk to the new process".to_owned(), source: errno.into() };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout { phase, seconds: ANSWER_DEADLINE.as_secs() });
        }
        wait_readable(socket, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)).map_err(failed)?;
        match read(socket) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other.map_err(failed),
        }
    }
}

fn wait_readable(socket: impl AsFd, timeout: PollTimeout) -> nix::Result<()> {
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn read(socket: impl AsFd) -> nix::Result<Option<Message>> {
    let mut bytes = [0; BYTES];
    match nix::unistd::read(socket, &mut bytes) {
        Ok(0) => Ok(None),
        // A peer that ended without reading what we sent resets the connection, which is told once and before what it
        // sent itself.
        Err(Errno::ECONNRESET) => Err(Errno::EAGAIN),
        Ok(BYTES) => Message::decode(bytes).map(Some).ok_or(Errno::EBADMSG),
        Ok(_) => Err(Errno::EBADMSG),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_and_nothing_else() {
        let failed = Message::Failed { step: 513, errno: -2 };
        for message in [Message::Joined, Message::Ready, Message::Keep, Message::Going, failed] {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
        assert_eq!(Message::decode([0; BYTES]), None);
        assert_eq!(Message::decode([9; BYTES]), None);
    }
}
