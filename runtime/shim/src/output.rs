//! A container's output on its way to its log.

use std::io::{self, PipeReader, Read};

use jiff::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::entry::{Batch, Head, Stream};
use crate::limits::{BUSY_PIPE_BYTES, BUSY_READ_BYTES, LOG_BATCH_BYTES_MAX, READ_BYTES_MAX};
use crate::line::Lines;
use crate::log::Log;

/// How much room [`Output::advance`] works in.
pub(crate) const ROOM_BYTES: usize = READ_BYTES_MAX + LOG_BATCH_BYTES_MAX;

/// Both streams and what becomes of them.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) log: Log,
    pub(crate) stdout: Option<Source>,
    pub(crate) stderr: Option<Source>,
}

/// The reading end of one stream, and its unfinished line.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) pipe: PipeReader,
    lines: Lines,
    is_large: bool,
}

impl Source {
    /// A stream that comes through `pipe`.
    pub(crate) fn new(pipe: PipeReader) -> io::Result<Self> {
        // The container can open its pipe for reading (/proc/self/fd/1) and take what was just seen to be there.
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { pipe, lines: Lines::default(), is_large: false })
    }

    /// Lets a busy writer write more before it has to wait: a process that waits is woken, which costs more than the
    /// writing. The kernel may refuse.
    fn enlarge(&mut self) {
        if !self.is_large {
            let _ = fcntl(&self.pipe, FcntlArg::F_SETPIPE_SZ(BUSY_PIPE_BYTES));
            self.is_large = true;
        }
    }
}

/// What came of one read.
#[derive(Debug)]
pub(crate) enum Progress {
    /// So many bytes were logged; there may be more.
    Bytes(usize),
    /// The stream has ended; here is its pipe.
    Ended(PipeReader),
}

impl Output {
    /// Logs what one read gives, in `room` of [`ROOM_BYTES`].
    pub(crate) fn advance(&mut self, stream: Stream, room: &mut [u8]) -> Progress {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(source) = slot else { return Progress::Bytes(0) };
        let (read, lines) = room.split_at_mut(READ_BYTES_MAX);
        let mut batch = Batch::new(lines);
        let log = &mut self.log;
        let count = source.pipe.read(read);
        let head = Head::new(Timestamp::now(), stream);
        let progress = match count {
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Some(0),
            Ok(count) if count > 0 => {
                source.lines.feed(&read[..count], |tag, first, second| log.add(&mut batch, head, tag, first, second));
                if count >= BUSY_READ_BYTES {
                    source.enlarge();
                }
                Some(count)
            }
            _ => {
                source.lines.finish(|tag, first, second| log.add(&mut batch, head, tag, first, second));
                None
            }
        };
        log.flush(&mut batch);
        match (progress, slot.take_if(|_| progress.is_none())) {
            (None, Some(source)) => Progress::Ended(source.pipe),
            (count, _) => Progress::Bytes(count.unwrap_or(0)),
        }
    }
}
