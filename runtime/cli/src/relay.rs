//! The terminal of a process and ours, as one: what is typed here is read there, what is written there is seen here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, write};

use berth_sys::pty;

/// How much is carried at once: what a pty holds.
const CHUNK_BYTES: usize = 4096;

/// Both directions.
pub(crate) struct Relay {
    master: OwnedFd,
    /// How our terminal was before, if we have one.
    before: Option<Termios>,
    typed: Flow,
    shown: Flow,
}

/// What was read and not yet written.
struct Flow {
    chunk: [u8; CHUNK_BYTES],
    /// Which part of it.
    pending: std::ops::Range<usize>,
    /// Nothing more comes, or nobody takes it.
    ended: bool,
}

impl Flow {
    fn new() -> Self {
        Self { chunk: [0; CHUNK_BYTES], pending: 0..0, ended: false }
    }

    fn wants_input(&self) -> bool {
        self.pending.is_empty() && !self.ended
    }

    fn has_output(&self) -> bool {
        !self.pending.is_empty()
    }

    fn fill(&mut self, from: impl AsFd) {
        match read(from, &mut self.chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => self.pending = 0..count,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // A pty without any process at its other end says EIO.
            Err(_) => self.ended = true,
        }
    }

    fn empty(&mut self, to: impl AsFd) {
        match write(to, &self.chunk[self.pending.clone()]) {
            Ok(count) => self.pending.start += count,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => {
                self.pending = 0..0;
                self.ended = true;
            }
        }
    }
}

impl Relay {
    /// Makes our terminal raw, so that every key goes to the process, and gives its size to the other. Without a
    /// terminal of ours, what comes is passed on as it is.
    pub(crate) fn begin(master: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let before = tcgetattr(io::stdin()).ok();
        let relay = Self { master, before, typed: Flow::new(), shown: Flow::new() };
        relay.follow_size();
        if let Some(before) = &relay.before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        }
        Ok(relay)
    }

    /// Makes the process' terminal as large as ours.
    pub(crate) fn follow_size(&self) {
        if let Ok(size) = pty::size(io::stdin()) {
            let _ = pty::resize(&self.master, size);
        }
    }

    /// Waits until something can be carried, and carries it; or until `other` is ready.
    pub(crate) fn carry(&mut self, other: PollFd<'_>) -> io::Result<()> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let master = match (self.shown.wants_input(), self.typed.has_output()) {
            (true, true) => PollFlags::POLLIN | PollFlags::POLLOUT,
            (true, false) => PollFlags::POLLIN,
            (false, true) => PollFlags::POLLOUT,
            (false, false) => PollFlags::empty(),
        };
        let ready = self.poll(
            other,
            self.typed.wants_input().then(|| stdin.as_fd()),
            self.shown.has_output().then(|| stdout.as_fd()),
            master,
        )?;
        if ready.stdin {
            self.typed.fill(stdin);
        }
        if ready.stdout {
            self.shown.empty(stdout);
        }
        if ready.master && self.typed.has_output() {
            self.typed.empty(&self.master);
        }
        if ready.master && self.shown.wants_input() {
            self.shown.fill(&self.master);
        }
        Ok(())
    }

    fn poll(
        &self,
        other: PollFd<'_>,
        stdin: Option<BorrowedFd<'_>>,
        stdout: Option<BorrowedFd<'_>>,
        master: PollFlags,
    ) -> io::Result<Ready> {
        let mut watched = vec![other];
        // A descriptor that nothing is wanted of would still tell of its hang-up, again and again.
        let wanted = [
            stdin.map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
            stdout.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)),
            (!master.is_empty()).then(|| PollFd::new(self.master.as_fd(), master)),
        ];
        let places = wanted.map(|fd| {
            watched.push(fd?);
            Some(watched.len() - 1)
        });
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let any = |place: Option<usize>| place.is_some_and(|place| watched[place].any() == Some(true));
        let [stdin, stdout, master] = places.map(any);
        Ok(Ready { stdin, stdout, master })
    }

    /// Shows what the process wrote last and gives our terminal back.
    pub(crate) fn end(mut self) {
        loop {
            while self.shown.has_output() {
                self.shown.empty(io::stdout());
            }
            if self.shown.ended {
                return;
            }
            self.shown.fill(&self.master);
            // Somebody else may keep the terminal open and never write again.
            if !self.shown.has_output() {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Ready {
    stdin: bool,
    stdout: bool,
    master: bool,
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
