//! One living shim: a task that owns the connection, passes calls on and tells what happens.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_runtime::shim::client::{self, Connection};
use berth_runtime::shim::protocol::{Answer, Call, ContainerState, Event, Fault, FromShim, Reply, Request};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

use crate::error::chain;

/// How long a shim may take for one call. Setting a container up is the longest; kubelet's own limit for it is 2 minutes.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// How long a living shim may take to take a connection.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a shim that no engine knows may take to end. Its own patience with containers that it killed is 10 seconds.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// Calls that wait for the connection; more of them wait for room.
const CALLS_WAITING_MAX: usize = 64;

/// The way to one shim. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    calls: mpsc::Sender<Outgoing>,
}

/// What a shim's task tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Something happened in the sandbox.
    Event(Event),
    /// The shim is gone; nothing follows.
    Lost,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// The shim refused or failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The shim is gone.
    #[error("the sandbox's shim is gone")]
    Lost,
    /// The shim did not answer.
    #[error("the sandbox's shim did not answer within {CALL_DEADLINE:?}")]
    Deadline,
    /// The shim could not be reached.
    #[error(transparent)]
    Connect(#[from] client::Error),
    /// The shim's socket could not be watched.
    #[error("cannot watch the shim's socket")]
    Watch(#[source] std::io::Error),
    /// The call could not be sent.
    #[error("cannot ask the sandbox's shim")]
    Send(#[source] std::io::Error),
    /// The shim answered something else.
    #[error("the sandbox's shim gave an answer to another question")]
    Answer,
}

#[derive(Debug)]
struct Outgoing {
    call: Call,
    fds: Vec<OwnedFd>,
    reply: oneshot::Sender<Result<Answer, ShimError>>,
}

impl Shim {
    /// Connects to the shim of a sandbox's folder and gives the state of its containers; whatever happens after that
    /// instant is told to `told`.
    pub(crate) async fn connect(
        folder: &Path,
        told: impl FnMut(Told) + Send + 'static,
    ) -> Result<(Self, BTreeMap<String, ContainerState>), ShimError> {
        let target = folder.to_owned();
        let task = tokio::task::spawn_blocking(move || Connection::connect(&target, CONNECT_DEADLINE));
        let connection = task.await.map_err(|_| ShimError::Lost)??;
        let (calls, inbox) = mpsc::channel(CALLS_WAITING_MAX);
        let socket = watched(connection).map_err(ShimError::Watch)?;
        let wire = Wire { socket, open: HashMap::new(), next: 1 };
        tokio::spawn(wire.run(inbox, told));
        let shim = Self { calls };
        match shim.call(Call::Subscribe, Vec::new()).await? {
            Answer::State { containers } => Ok((shim, containers)),
            _ => Err(ShimError::Answer),
        }
    }

    /// Whether the connection stands. It may end between its making and its being noted, when nobody can be told.
    pub(crate) fn is_connected(&self) -> bool {
        !self.calls.is_closed()
    }

    /// Asks the shim and waits for its answer.
    pub(crate) async fn call(&self, call: Call, fds: Vec<OwnedFd>) -> Result<Answer, ShimError> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Outgoing { call, fds, reply }).await.map_err(|_| ShimError::Lost)?;
        match tokio::time::timeout(CALL_DEADLINE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ShimError::Lost),
            Err(_) => Err(ShimError::Deadline),
        }
    }
}

/// Ends the shim of a sandbox's folder, if it lives, and removes all that is left of both: whoever started it may have
/// died before the shim answered, or without an engine that knows it. One that does not do as it is asked is killed.
/// Success if nothing is there.
pub(crate) fn end(folder: &Path) -> Result<(), client::Error> {
    if !folder.exists() {
        return Ok(());
    }
    let connection = Connection::connect(folder, CONNECT_DEADLINE);
    match connection.and_then(|mut connection| connection.call(Call::Shutdown, &[], END_DEADLINE)) {
        Ok(_) | Err(client::Error::Gone { .. }) => {}
        Err(error) => {
            tracing::warn!(folder = %folder.display(), error = %chain(&error), "the shim did not end by itself");
            client::kill_shim(folder)?;
        }
    }
    match client::reap_dead(folder) {
        // It was only just starting when it was asked.
        Err(client::Error::Alive { .. }) => {
            client::kill_shim(folder)?;
            client::reap_dead(folder)
        }
        other => other,
    }
}

struct Wire {
    socket: UnixDatagram,
    open: HashMap<u64, oneshot::Sender<Result<Answer, ShimError>>>,
    next: u64,
}

impl Wire {
    /// Carries packets both ways until the shim or every holder of the [`Shim`] is gone.
    async fn run(mut self, mut inbox: mpsc::Receiver<Outgoing>, mut told: impl FnMut(Told) + Send + 'static) {
        loop {
            tokio::select! {
                outgoing = inbox.recv() => match outgoing {
                    Some(outgoing) => self.send(outgoing).await,
                    None => return,
                },
                received = receive(&self.socket) => match received {
                    Ok(FromShim::Reply(reply)) => self.answer(reply),
                    Ok(FromShim::Event(event)) => told(Told::Event(event)),
                    Err(_) => break,
                },
            }
        }
        // Those who wait are told first: whoever hears of the loss finds no call open.
        self.open.clear();
        told(Told::Lost);
    }

    /// What cannot be sent is that caller's failure alone, such as a command that is too long for a packet; that the shim
    /// is gone is heard by the next [`receive`].
    async fn send(&mut self, outgoing: Outgoing) {
        let request = Request { id: self.next, call: outgoing.call };
        self.next += 1;
        self.open.retain(|_, reply| !reply.is_closed());
        let fds: Vec<_> = outgoing.fds.iter().map(AsFd::as_fd).collect();
        let send = || client::send(self.socket.as_fd(), &request, &fds);
        match self.socket.async_io(Interest::WRITABLE, send).await {
            Ok(()) => drop(self.open.insert(request.id, outgoing.reply)),
            Err(error) if is_closed(&error) => drop(outgoing.reply),
            Err(error) => drop(outgoing.reply.send(Err(ShimError::Send(error)))),
        }
    }

    fn answer(&mut self, reply: Reply) {
        if let Some(waiting) = self.open.remove(&reply.id) {
            let _ = waiting.send(reply.result.map_err(ShimError::from));
        }
    }
}

/// Whether an error says that there is no shim at the other end any more.
fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// The connection, watched by the runtime's reactor. Tokio has no type for `SOCK_SEQPACKET`; the one for datagrams asks
/// nothing of a socket but to be watched, and every packet goes through the client's own functions.
fn watched(connection: Connection) -> std::io::Result<UnixDatagram> {
    let socket = std::os::unix::net::UnixDatagram::from(OwnedFd::from(connection));
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

async fn receive(socket: &UnixDatagram) -> std::io::Result<FromShim> {
    socket.async_io(Interest::READABLE, || client::receive(socket.as_fd())).await
}
