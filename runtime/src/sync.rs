//! What a new process and its maker tell one another while it is set up.
//!
//! ```text
//!   create / exec                    new process                   start (any process, any time later)
//!        │ ── clone3 ───────────────────▶ │
//!        │ ── GoOn ─────────────────────▶ │ its users are mapped (if it has a user namespace of its own)
//!        │                                │ steps
//!        │ ◀── Hooks ──────────────────── │ its namespaces are there (if there are hooks to run)
//!        │ ── GoOn ─────────────────────▶ │ steps
//!        │ ◀── Terminal, with the master ─│ (if it has one)
//!        │ ◀── Ready, or Failed(step) ─── │
//!        │ ── GoOn: a note is made ─────▶ │ outlives its maker from here on
//!        │                                │ listens at start.sock ◀──── connect ── │
//!        │                                │ ── Going ────────────────────────────▶ │
//!        │                                │ steps                                  │
//!        │                                │ ── Listener(number) ─────────────────▶ │ (if its filter has one)
//!        │                                │ ◀── GoOn: it was taken ─────────────── │
//!        │                                │ ── Failed(step) ─────────────────────▶ │
//!        │                                │ execve; the connection closes by it ─▶ │
//! ```
//!
//! `exec` has no second half: its steps go on to `execve`, which closes the first connection.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_sys::socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::limits::STORY_BYTES_MAX;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// What the process waited for is done.
    GoOn,
    /// Its namespaces are there, and nothing is mounted yet.
    Hooks,
    /// Here is the master of its terminal: the one descriptor beside this packet.
    Terminal,
    /// The process is set up.
    Ready,
    /// It heard that it shall start.
    Going,
    /// Its filter was loaded; this is its listener's descriptor, by its number in the process.
    Listener { number: i32 },
    /// A step failed; counted through the whole plan.
    Failed { step: u16, errno: i32 },
}

const BYTES: usize = 7;

/// A message and words.
const PACKET_BYTES_MAX: usize = BYTES + STORY_BYTES_MAX;

/// What the other end had to tell.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// None when it is closed.
    pub(crate) message: Option<Message>,
    pub(crate) descriptor: Option<OwnedFd>,
    pub(crate) words: String,
}

impl Message {
    fn encode(self) -> [u8; BYTES] {
        let (kind, step, number) = match self {
            Self::Ready => (1, 0, 0),
            Self::GoOn => (2, 0, 0),
            Self::Going => (3, 0, 0),
            Self::Failed { step, errno } => (4, step, errno),
            Self::Hooks => (5, 0, 0),
            Self::Terminal => (6, 0, 0),
            Self::Listener { number } => (7, 0, number),
        };
        let ([a, b], [c, d, e, f]) = (step.to_le_bytes(), number.to_le_bytes());
        [kind, a, b, c, d, e, f]
    }

    fn decode([kind, a, b, c, d, e, f]: [u8; BYTES]) -> Option<Self> {
        let number = i32::from_le_bytes([c, d, e, f]);
        match kind {
            1 => Some(Self::Ready),
            2 => Some(Self::GoOn),
            3 => Some(Self::Going),
            4 => Some(Self::Failed { step: u16::from_le_bytes([a, b]), errno: number }),
            5 => Some(Self::Hooks),
            6 => Some(Self::Terminal),
            7 => Some(Self::Listener { number }),
            _ => None,
        }
    }
}

/// Sends a packet. Allocates nothing. By `write(2)`, which no profile may leave to a listener: see
/// [`crate::seccomp::NOT_NOTIFIED`].
pub(crate) fn send(socket: impl AsFd, message: Message) -> nix::Result<()> {
    nix::unistd::write(socket, &message.encode()).map(drop)
}

/// Sends a packet and words that go with it. Allocates nothing.
pub(crate) fn send_with_words(socket: impl AsFd, message: Message, words: &[u8]) -> nix::Result<()> {
    let mut packet = [0; PACKET_BYTES_MAX];
    packet[..BYTES].copy_from_slice(&message.encode());
    let words = &words[..words.len().min(PACKET_BYTES_MAX - BYTES)];
    let end = BYTES + words.len();
    packet[BYTES..end].copy_from_slice(words);
    nix::unistd::write(socket, &packet[..end]).map(drop)
}

/// Sends a packet and a copy of a descriptor. Allocates nothing.
pub(crate) fn send_with(socket: impl AsFd, message: Message, fd: impl AsFd) -> nix::Result<()> {
    socket::send_one(socket.as_fd(), &message.encode(), fd.as_fd())
}

/// Waits without a deadline until the other end says [`Message::GoOn`]; `EPIPE` for anything else, and when it has gone.
/// Allocates nothing.
pub(crate) fn await_go_on(socket: impl AsFd) -> nix::Result<()> {
    loop {
        wait_readable(&socket, PollTimeout::NONE)?;
        let mut bytes = [0; BYTES];
        match nix::unistd::read(&socket, &mut bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(BYTES) if Message::decode(bytes) == Some(Message::GoOn) => return Ok(()),
            Ok(_) => return Err(Errno::EPIPE),
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for a packet, so long at most.
pub(crate) fn receive(socket: &OwnedFd, phase: &'static str, patience: Duration) -> Result<Heard, Error> {
    let deadline = Instant::now() + patience;
    let failed = |source| Error::Setup { step: "talk to the new process".to_owned(), source };
    let mut bytes = [0; PACKET_BYTES_MAX];
    loop {
        match socket::receive(socket.as_fd(), &mut bytes) {
            Ok(got) if got.len == 0 => return Ok(Heard::default()),
            Ok(got) => {
                let (message, words) = bytes[..got.len].split_first_chunk().unwrap_or((&[0; BYTES], &[]));
                let message = Message::decode(*message).ok_or_else(|| failed(Errno::EBADMSG.into()))?;
                let words = String::from_utf8_lossy(words).into_owned();
                return Ok(Heard { message: Some(message), descriptor: got.fds.into_iter().next(), words });
            }
            // A peer that ended without reading what we sent resets the connection, which is told once and before what
            // it sent itself.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout { phase, seconds: patience.as_secs() });
        }
        wait_readable(socket, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
            .map_err(|errno| failed(errno.into()))?;
    }
}

fn wait_readable(socket: impl AsFd, timeout: PollTimeout) -> nix::Result<()> {
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_and_nothing_else() {
        let failed = Message::Failed { step: 513, errno: -2 };
        let listener = Message::Listener { number: 1 << 20 };
        let plain = [Message::GoOn, Message::Hooks, Message::Terminal, Message::Ready, Message::Going];
        for message in plain.into_iter().chain([failed, listener]) {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
        assert_eq!(Message::decode([0; BYTES]), None);
        assert_eq!(Message::decode([9; BYTES]), None);
    }
}
