//! The shim's one loop: wait until something happens, do what follows from it, never wait for anything else.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_runtime::Runtime;
use berth_runtime::shim::protocol::{PACKET_BYTES_MAX, SandboxSpec};
use berth_sys::daemon;
use berth_sys::epoll::{Interest, Poller, Ready};
use berth_sys::presence::Presence;
use berth_sys::scratch::Scratch;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::clients::Clients;
use crate::container::{Container, Life};
use crate::entry::Stream;
use crate::limits::{ACCEPT_RETRY_TIME, QUIET_READ_BYTES, REQUESTS_PER_TURN_MAX, REST_AFTER};
use crate::note::note;
use crate::output::{Progress, ROOM_BYTES};
use crate::request;
use crate::sandbox::Sandbox;
use crate::shutdown::Ending;
use crate::tool::Tool;
use crate::wake::Wake;
use crate::work::Work;

/// Everything that the shim knows. Its verbs are in `control`, the ends of processes in `reaper`, its own in `shutdown`.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) dir: PathBuf,
    pub(crate) spec: SandboxSpec,
    pub(crate) sandbox: Sandbox,
    pub(crate) runtime: Runtime,
    pub(crate) poller: Poller,
    pub(crate) clients: Clients,
    /// By number; a number is never used twice.
    pub(crate) containers: BTreeMap<u32, Container>,
    pub(crate) last_container: u32,
    /// The number of the newest copy of an output.
    pub(crate) last_copy: u32,
    pub(crate) ending: Option<Ending>,
    /// Another runtime than the library, if the sandbox names one.
    pub(crate) tool: Option<Tool>,
    /// The verbs that are under way, by their process.
    pub(crate) works: BTreeMap<i32, Work>,
    /// Tells that this shim lives, or a process that works for it.
    pub(crate) presence: Presence,
    signals: SignalFd,
    listener: OwnedFd,
    accept_again: Option<Instant>,
    /// For everything that is read, one at a time.
    room: Scratch,
    /// When to give back the memory of the work that was done, if none comes before.
    rest_at: Option<Instant>,
}

impl Shim {
    /// A shim for a sandbox that was made, on a socket that listens.
    pub(crate) fn new(
        dir: PathBuf,
        spec: SandboxSpec,
        sandbox: Sandbox,
        tool: Option<Tool>,
        presence: Presence,
        listener: OwnedFd,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let signals = take_signals()?;
        poller.watch(&signals, Interest::Read, Wake::Signals.token())?;
        poller.watch(&listener, Interest::Read, Wake::Listener.token())?;
        Ok(Self {
            tool,
            works: BTreeMap::new(),
            presence,
            runtime: Runtime::new(dir.join("runtime")),
            dir,
            spec,
            sandbox,
            poller,
            clients: Clients::default(),
            containers: BTreeMap::new(),
            last_container: 0,
            last_copy: 0,
            ending: None,
            signals,
            listener,
            accept_again: None,
            room: Scratch::new(ROOM_BYTES)?,
            rest_at: Some(Instant::now() + REST_AFTER),
        })
    }

    /// Serves until a client asks for the end.
    pub(crate) fn run(mut self) {
        loop {
            match self.poller.wait(self.timeout()) {
                Ok(ready) => ready.for_each(|ready| self.handle(ready)),
                Err(error) => {
                    // The containers are worth more than a clean loop: tell, breathe, go on.
                    note(format_args!("waiting for events: {error}"));
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            self.meet_deadlines(Instant::now());
            if self.try_to_end() {
                return self.clients.farewell(&self.poller);
            }
        }
    }

    fn handle(&mut self, ready: Ready) {
        match Wake::from_token(ready.token) {
            Some(Wake::Listener) => self.accept(),
            Some(Wake::Signals) => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Some(Wake::Client(number)) => {
                if ready.writable {
                    self.clients.flush(&self.poller, number);
                }
                if ready.readable {
                    self.serve(number);
                }
            }
            Some(Wake::Output(number, stream)) => self.log_output(number, stream),
            Some(Wake::Oom(number)) => self.notice_oom(number),
            Some(Wake::Copy(number)) => self.end_copy(number),
            None => {}
        }
    }

    fn accept(&mut self) {
        if let Err(error) = self.clients.accept(&self.poller, &self.listener) {
            note(format_args!("accepting a client: {error}"));
            // A client that waits for a descriptor to become free must not keep the loop spinning.
            let _ = self.poller.change(&self.listener, Interest::HangUp, Wake::Listener.token());
            self.accept_again = Some(Instant::now() + ACCEPT_RETRY_TIME);
        }
    }

    fn serve(&mut self, client: u32) {
        for _ in 0..REQUESTS_PER_TURN_MAX {
            let buffer = &mut self.room[..PACKET_BYTES_MAX];
            let Some(got) = self.clients.receive(&self.poller, client, buffer) else { break };
            let request = request::read(&buffer[..got.len], got.truncated);
            self.handle_request(client, request, got.fds);
        }
        self.rest_later();
    }

    fn log_output(&mut self, number: u32, stream: Stream) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let Some(output) = &mut container.output else { return };
        match output.advance(stream, &mut self.room) {
            Progress::Bytes(count) if count > QUIET_READ_BYTES => self.rest_later(),
            Progress::Bytes(_) => {}
            Progress::Ended(source) => {
                for fd in source.watched() {
                    let _ = self.poller.forget(fd);
                }
                if matches!(container.life, Life::Draining { .. }) && container.is_drained() {
                    self.settle(number);
                }
            }
        }
    }

    /// Work was done that leaves memory behind.
    fn rest_later(&mut self) {
        self.rest_at = Some(Instant::now() + REST_AFTER);
    }

    /// The time until the next deadline; none on an idle shim, which then makes no wake-ups.
    fn timeout(&self) -> Option<Duration> {
        let containers = self.containers.values();
        let runs = self.works.values().map(|work| Some(work.run.deadline));
        let soonest = containers
            .flat_map(|container| [container.deadline(), container.oom.as_ref().and_then(|watch| watch.again())])
            .chain(runs)
            .chain([self.accept_again, self.rest_at, self.ending.as_ref().map(|ending| ending.until)])
            .flatten()
            .min()?;
        Some(soonest.saturating_duration_since(Instant::now()))
    }

    fn meet_deadlines(&mut self, now: Instant) {
        if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            self.room.release();
            daemon::give_memory_back();
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            let _ = self.poller.change(&self.listener, Interest::Read, Wake::Listener.token());
        }
        for work in self.works.values_mut().filter(|work| work.run.deadline <= now) {
            work.run.be_late();
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let late: Vec<u32> = (self.containers.iter())
            .filter(|(_, container)| due(container.deadline()))
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.settle(number);
        }
        let unsure: Vec<u32> = (self.containers.iter())
            .filter(|(_, container)| due(container.oom.as_ref().and_then(|watch| watch.again())))
            .map(|(number, _)| *number)
            .collect();
        for number in unsure {
            self.look_for_oom(number);
        }
    }
}

/// Blocks the signals that somebody may send and turns them into a descriptor. Only the end of children is heeded: a
/// shim ends when a client asks for it, not because the service manager stops the agent's other processes.
fn take_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    let taken = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    for signal in taken.into_iter().chain([Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM]) {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
