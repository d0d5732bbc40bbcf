//! The clients: who is connected, what waits to be sent to whom.
//!
//! Nobody is waited for. A packet that a client has no room for is queued; a client whose queue is full does not read,
//! and is dropped: it can connect again and ask for the state.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use berth_runtime::shim::protocol::{Answer, Event, Fault, FaultKind, FromShim, PACKET_BYTES_MAX, Reply};
use berth_sys::epoll::{Interest, Poller};
use berth_sys::socket::{self, Received};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;

use crate::limits::{CLIENT_QUEUE_PACKETS_MAX, CLIENTS_MAX, FAREWELL_TIME_MAX};
use crate::note::note;
use crate::wake::Wake;

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The client's number.
    pub(crate) client: u32,
    /// The request's id.
    pub(crate) id: u64,
}

/// An answer, and the descriptors that go with it.
#[derive(Debug)]
pub(crate) struct Told {
    answer: Answer,
    fds: Vec<OwnedFd>,
}

impl Told {
    /// An answer with at most one descriptor.
    pub(crate) fn with(answer: Answer, fd: Option<OwnedFd>) -> Self {
        Self { answer, fds: fd.into_iter().collect() }
    }
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        Self { answer, fds: Vec::new() }
    }
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    subscribed: bool,
    queue: VecDeque<Packet>,
}

#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Packet {
    fn send(&self, socket: &OwnedFd) -> io::Result<()> {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        socket::send(socket.as_fd(), &self.bytes, &fds)
    }
}

/// All clients, by number; a number is never used twice.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    connected: BTreeMap<u32, Client>,
    last: u32,
}

impl Clients {
    /// Accepts everybody who waits. Others than this process' own user, and those beyond the limit, are turned away.
    pub(crate) fn accept(&mut self, poller: &Poller, listener: &OwnedFd) -> io::Result<()> {
        loop {
            let socket = match socket::accept(listener.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                other => other?,
            };
            if self.connected.len() >= CLIENTS_MAX {
                note(format_args!("turned a client away: there are {CLIENTS_MAX} already"));
                continue;
            }
            if socket::peer(socket.as_fd()).is_ok_and(|peer| peer.uid == geteuid().as_raw()) {
                self.last += 1;
                poller.watch(&socket, Interest::Read, Wake::Client(self.last).token())?;
                self.connected.insert(self.last, Client { socket, subscribed: false, queue: VecDeque::new() });
            }
        }
    }

    /// The next packet of a client; `None` if there is none, or it has gone.
    pub(crate) fn receive(&mut self, poller: &Poller, number: u32, buffer: &mut [u8]) -> Option<Received> {
        let client = self.connected.get(&number)?;
        match socket::receive(client.socket.as_fd(), buffer) {
            Ok(got) if got.len > 0 => Some(got),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            _ => {
                self.drop(poller, number);
                None
            }
        }
    }

    /// From now on the client hears events.
    pub(crate) fn subscribe(&mut self, number: u32) {
        if let Some(client) = self.connected.get_mut(&number) {
            client.subscribed = true;
        }
    }

    /// Answers a request. One whose asker has gone is forgotten.
    pub(crate) fn answer(&mut self, poller: &Poller, asker: Asker, result: Result<impl Into<Told>, Fault>) {
        let (result, fds) = match result.map(Into::into) {
            Ok(Told { answer, fds }) => (Ok(answer), fds),
            Err(fault) => (Err(fault), Vec::new()),
        };
        let packet = match encode(&FromShim::Reply(Reply { id: asker.id, result })) {
            Some(bytes) => Packet { bytes, fds },
            None => {
                let message = format!("the answer does not fit into a packet of {PACKET_BYTES_MAX} bytes");
                let fault = Fault { kind: FaultKind::Failed, message };
                let bytes = encode(&FromShim::Reply(Reply { id: asker.id, result: Err(fault) })).unwrap_or_default();
                Packet { bytes, fds: Vec::new() }
            }
        };
        self.send(poller, asker.client, packet);
    }

    /// Tells every subscriber.
    pub(crate) fn tell(&mut self, poller: &Poller, event: &Event) {
        let Some(bytes) = encode(&FromShim::Event(event.clone())) else { return };
        let listening: Vec<u32> =
            self.connected.iter().filter(|(_, client)| client.subscribed).map(|(number, _)| *number).collect();
        for number in listening {
            self.send(poller, number, Packet { bytes: bytes.clone(), fds: Vec::new() });
        }
    }

    /// The client has room again.
    pub(crate) fn flush(&mut self, poller: &Poller, number: u32) {
        let Some(client) = self.connected.get_mut(&number) else { return };
        while let Some(packet) = client.queue.front() {
            match packet.send(&client.socket) {
                Ok(()) => drop(client.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.drop(poller, number),
            }
        }
        client.queue = VecDeque::new();
        if poller.change(&client.socket, Interest::Read, Wake::Client(number).token()).is_err() {
            self.drop(poller, number);
        }
    }

    /// Gives what is still queued a moment to leave, before the end of the process.
    pub(crate) fn farewell(&mut self, poller: &Poller) {
        let deadline = Instant::now() + FAREWELL_TIME_MAX;
        let numbers: Vec<u32> = self.connected.keys().copied().collect();
        for number in numbers {
            self.flush(poller, number);
            while let Some(client) = self.connected.get(&number).filter(|client| !client.queue.is_empty()) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let timeout = PollTimeout::from(u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX));
                let _ = poll(&mut [PollFd::new(client.socket.as_fd(), PollFlags::POLLOUT)], timeout);
                self.flush(poller, number);
            }
        }
    }

    fn send(&mut self, poller: &Poller, number: u32, packet: Packet) {
        let Some(client) = self.connected.get_mut(&number) else { return };
        if client.queue.is_empty() {
            match packet.send(&client.socket) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.drop(poller, number),
            }
            if poller.change(&client.socket, Interest::ReadWrite, Wake::Client(number).token()).is_err() {
                return self.drop(poller, number);
            }
        }
        if client.queue.len() >= CLIENT_QUEUE_PACKETS_MAX {
            note(format_args!("dropped a client that left {CLIENT_QUEUE_PACKETS_MAX} packets unread"));
            return self.drop(poller, number);
        }
        client.queue.push_back(packet);
    }

    fn drop(&mut self, poller: &Poller, number: u32) {
        if let Some(client) = self.connected.remove(&number) {
            let _ = poller.forget(&client.socket);
        }
    }
}

/// A packet, if it fits into one.
fn encode(message: &FromShim) -> Option<Vec<u8>> {
    serde_json::to_vec(message).ok().filter(|packet| packet.len() <= PACKET_BYTES_MAX)
}
