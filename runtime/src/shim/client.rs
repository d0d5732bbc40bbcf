//! The client's side of a shim: start it, talk to it, and clean up after one that died.
//!
//! [`Connection`] is blocking, with a deadline for everything. A program with its own event loop registers the
//! connection's descriptor ([`AsFd`], [`AsRawFd`]) there and uses [`send`] and [`receive`], which never wait.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_sys::{presence, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::document;
use super::protocol::{Answer, Call, Event, Fault, FromShim, PACKET_BYTES_MAX, Request};

pub use super::reap::{kill_shim, reap_dead};
pub use super::start::{START_TIME_MAX, read_record, start_shim};

/// How long to wait before trying again to connect to a shim whose queue of clients is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// How many events a blocking connection keeps while it waits for an answer; the oldest are dropped beyond that.
const EVENTS_MAX: usize = 4096;

/// What goes wrong between a client and a shim.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shim answered that it could not do it.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Nobody listens in the sandbox's directory: the shim is dead or was never started.
    #[error("no shim answers in {dir}")]
    Gone {
        /// The sandbox's directory.
        dir: PathBuf,
    },
    /// The shim closed the connection, or died.
    #[error("the shim in {dir} closed the connection")]
    Closed {
        /// The sandbox's directory.
        dir: PathBuf,
    },
    /// The shim did not answer in time.
    #[error("the shim in {dir} did not answer within {waited:?}")]
    Timeout {
        /// The sandbox's directory.
        dir: PathBuf,
        /// The whole deadline.
        waited: Duration,
    },
    /// The shim could not make the sandbox.
    #[error("starting {program} for {dir}: {message}")]
    Start {
        /// The shim's program.
        program: PathBuf,
        /// The sandbox's directory.
        dir: PathBuf,
        /// What the shim had to say.
        message: String,
    },
    /// What has to be cleaned up still lives.
    #[error("the shim in {dir} lives (process {pid}): ask it to shut down")]
    Alive {
        /// The sandbox's directory.
        dir: PathBuf,
        /// The shim's process.
        pid: i32,
    },
    /// Some of what a dead shim left could not be removed; the rest is removed.
    #[error("cleaning up {dir}: {}", failures.join("; "))]
    Leftovers {
        /// The sandbox's directory.
        dir: PathBuf,
        /// Each thing that is still there, and why.
        failures: Vec<String>,
    },
    /// The system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The process id of the living shim of a sandbox, also of one that is still starting; `None` if it is dead.
pub fn living(dir: &Path) -> Result<Option<i32>, Error> {
    let lock = dir.join("shim.lock");
    presence::owner(&lock).map_err(Error::io("looking at", &lock))
}

/// Sends a request without waiting. `WouldBlock`: the shim has not read the last ones yet. `fds` are copied.
pub fn send(socket: BorrowedFd<'_>, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let packet = serde_json::to_vec(request)?;
    if packet.len() > PACKET_BYTES_MAX {
        let message = format!("a request of {} bytes; the limit is {PACKET_BYTES_MAX}", packet.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    socket::send(socket, &packet, fds)
}

/// Receives an answer or an event without waiting; descriptors that come with it are closed. `WouldBlock`: there is none
/// yet. `UnexpectedEof`: the shim closed the connection. `InvalidData`: it is not the protocol.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<FromShim> {
    receive_with_fds(socket).map(|(packet, _)| packet)
}

/// As [`receive`], with the descriptors that came beside an answer.
pub fn receive_with_fds(socket: BorrowedFd<'_>) -> io::Result<(FromShim, Vec<OwnedFd>)> {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let got = socket::receive(socket, &mut buffer)?;
    if got.truncated {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet beyond the protocol's limit"));
    }
    if got.len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((document::read_packet(&buffer[..got.len])?, got.fds))
}

/// A connection to one shim.
#[derive(Debug)]
pub struct Connection {
    dir: PathBuf,
    socket: OwnedFd,
    last_id: u64,
    events: VecDeque<Event>,
}

impl Connection {
    /// Connects to the shim of the sandbox in `dir`.
    pub fn connect(dir: &Path, timeout: Duration) -> Result<Self, Error> {
        let path = dir.join("shim.sock");
        let deadline = Instant::now() + timeout;
        loop {
            match socket::connect(&path) {
                Ok(socket) => return Ok(Self { dir: dir.into(), socket, last_id: 0, events: VecDeque::new() }),
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        return Err(Error::Gone { dir: dir.into() });
                    }
                    io::ErrorKind::WouldBlock if Instant::now() < deadline => std::thread::sleep(CONNECT_PAUSE),
                    io::ErrorKind::WouldBlock => return Err(Error::Timeout { dir: dir.into(), waited: timeout }),
                    _ => return Err(Error::io("connecting to", &path)(error)),
                },
            }
        }
    }

    /// Asks and waits for the answer; events that come between are kept for [`Self::next_event`]. Descriptors that come
    /// with the answer are closed.
    pub fn call(&mut self, call: Call, fds: &[BorrowedFd<'_>], timeout: Duration) -> Result<Answer, Error> {
        self.call_for_fds(call, fds, timeout).map(|(answer, _)| answer)
    }

    /// As [`Self::call`], with the descriptors that come with the answer.
    pub fn call_for_fds(
        &mut self,
        call: Call,
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>), Error> {
        let deadline = Instant::now() + timeout;
        self.last_id += 1;
        let request = Request { id: self.last_id, call };
        while let Err(error) = send(self.socket.as_fd(), &request, fds) {
            self.wait_or_fail(error, PollFlags::POLLOUT, deadline, timeout)?;
        }
        loop {
            match receive_with_fds(self.socket.as_fd()) {
                Ok((FromShim::Reply(reply), fds)) if reply.id == request.id => return Ok((reply.result?, fds)),
                // The answer to an earlier question, whose asker gave up waiting.
                Ok((FromShim::Reply(_), _)) => {}
                Ok((FromShim::Event(event), _)) => self.keep(event),
                Err(error) => self.wait_or_fail(error, PollFlags::POLLIN, deadline, timeout)?,
            }
        }
    }

    /// The next event, after [`Call::Subscribe`]; `None` if none came in time.
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match receive(self.socket.as_fd()) {
                Ok(FromShim::Reply(_)) => {}
                Ok(FromShim::Event(event)) => self.keep(event),
                Err(error) => match self.wait_or_fail(error, PollFlags::POLLIN, deadline, timeout) {
                    Err(Error::Timeout { .. }) => return Ok(None),
                    other => other?,
                },
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// After a call that would have had to wait: waits until it can be tried again. Any other error is final.
    fn wait_or_fail(
        &self,
        error: io::Error,
        readiness: PollFlags,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<(), Error> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {}
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                return Err(Error::Closed { dir: self.dir.clone() });
            }
            _ => return Err(Error::io("talking to the shim in", &self.dir)(error)),
        }
        match wait_for(self.socket.as_fd(), readiness, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Timeout { dir: self.dir.clone(), waited: timeout }),
            Err(error) => Err(Error::io("waiting for the shim in", &self.dir)(error)),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.socket
    }
}

/// Waits until a descriptor is ready; `false` when the deadline has passed.
pub(super) fn wait_for(fd: BorrowedFd<'_>, readiness: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let milliseconds = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut [PollFd::new(fd, readiness)], PollTimeout::from(milliseconds)) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
