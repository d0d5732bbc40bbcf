//! A container's output on its way to its log, and to who is attached.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::pty;
use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::read;

use crate::copy::Copies;
use crate::entry::{Batch, Head, Stream};
use crate::limits::{BUSY_PIPE_BYTES, BUSY_READ_BYTES, LOG_BATCH_BYTES_MAX, READ_BYTES_MAX};
use crate::line::{Lines, Tag};
use crate::log::Log;

/// How much room [`Output::advance`] works in.
pub(crate) const ROOM_BYTES: usize = READ_BYTES_MAX + LOG_BATCH_BYTES_MAX;

/// The streams and what becomes of them.
#[derive(Debug)]
pub(crate) struct Output {
    /// Where they are logged, if anywhere.
    pub(crate) log: Option<Log>,
    stdout: Option<Source>,
    stderr: Option<Source>,
    /// The slave of its terminal, if that is what its output comes from. Without, a terminal that nobody in the container
    /// has open for a moment would seem to have ended.
    slave: Option<OwnedFd>,
}

/// Where one stream comes from, its unfinished line, and who else sees it.
#[derive(Debug)]
pub(crate) struct Source {
    fd: OwnedFd,
    lines: Lines,
    may_grow: bool,
    pub(crate) copies: Copies,
}

impl Source {
    fn new(fd: OwnedFd, may_grow: bool) -> io::Result<Self> {
        // The container can open its pipe for reading (/proc/self/fd/1) and take what was just seen to be there.
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { fd, lines: Lines::default(), may_grow, copies: Copies::default() })
    }

    /// Lets a busy writer write more before it has to wait: a process that waits is woken, which costs more than the
    /// writing. The kernel may refuse.
    fn enlarge(&mut self) {
        if self.may_grow {
            let _ = fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(BUSY_PIPE_BYTES));
            self.may_grow = false;
        }
    }

    /// Every descriptor that is watched for it.
    pub(crate) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.copies.descriptors().chain([self.fd.as_fd()])
    }
}

/// What came of one read.
#[derive(Debug)]
pub(crate) enum Progress {
    /// So many bytes were logged; there may be more.
    Bytes(usize),
    /// The stream has ended; here is what it came from.
    Ended(Box<Source>),
}

impl Output {
    /// Output that comes through two pipes.
    pub(crate) fn of_pipes(log: Option<Log>, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let (stdout, stderr) = (Source::new(stdout, true)?, Source::new(stderr, true)?);
        Ok(Self { log, stdout: Some(stdout), stderr: Some(stderr), slave: None })
    }

    /// Output that comes from a terminal, by its master.
    pub(crate) fn of_terminal(log: Option<Log>, master: OwnedFd) -> io::Result<Self> {
        let slave = pty::slave(&master)?;
        Ok(Self { log, stdout: Some(Source::new(master, false)?), stderr: None, slave: Some(slave) })
    }

    /// Whether it comes from a terminal that the container may still write to.
    pub(crate) fn is_terminal(&self) -> bool {
        self.slave.is_some()
    }

    /// The master of the terminal that it comes from.
    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.stdout.as_ref().filter(|_| self.is_terminal()).map(|source| source.fd.as_fd())
    }

    /// The container has ended: what is still to come comes from those that it left, and there may be none.
    pub(crate) fn let_end(&mut self) {
        self.slave = None;
    }

    /// Whether it is complete.
    pub(crate) fn is_drained(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// The streams that have not ended.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (Stream, &Source)> {
        let sources = [(Stream::Stdout, &self.stdout), (Stream::Stderr, &self.stderr)];
        sources.into_iter().filter_map(|(stream, source)| source.as_ref().map(|source| (stream, source)))
    }

    /// What a stream that has not ended comes from.
    pub(crate) fn source(&mut self, stream: Stream) -> Option<&mut Source> {
        self.slot(stream).as_mut()
    }

    /// Ends the copy with this number, if it is of one of these streams.
    pub(crate) fn detach(&mut self, number: u32) -> Option<OwnedFd> {
        [&mut self.stdout, &mut self.stderr].into_iter().flatten().find_map(|source| source.copies.end(number))
    }

    /// Logs what one read gives, in `room` of [`ROOM_BYTES`].
    pub(crate) fn advance(&mut self, stream: Stream, room: &mut [u8]) -> Progress {
        let (log, slot) = match stream {
            Stream::Stdout => (&mut self.log, &mut self.stdout),
            Stream::Stderr => (&mut self.log, &mut self.stderr),
        };
        let Some(source) = slot else { return Progress::Bytes(0) };
        let (data, lines) = room.split_at_mut(READ_BYTES_MAX);
        let count = match read(&source.fd, data) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Progress::Bytes(0),
            // Nobody has the terminal open any more (EIO); a pipe has no errors of its own.
            Err(_) => 0,
        };
        let data = &data[..count];
        let mut batch = Batch::new(lines);
        let head = Head::new(Timestamp::now(), stream);
        let mut add = |tag: Tag, first: &[u8], second: &[u8]| {
            if let Some(log) = log {
                log.add(&mut batch, head, tag, first, second);
            }
        };
        if count > 0 {
            source.lines.feed(data, &mut add);
            source.copies.write(data);
        } else {
            source.lines.finish(&mut add);
        }
        if count >= BUSY_READ_BYTES {
            source.enlarge();
        }
        if let Some(log) = log {
            log.flush(&mut batch);
        }
        match slot.take_if(|_| count == 0) {
            Some(source) => Progress::Ended(Box::new(source)),
            None => Progress::Bytes(count),
        }
    }

    fn slot(&mut self, stream: Stream) -> &mut Option<Source> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}
