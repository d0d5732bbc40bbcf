//! What the shim keeps about one container.

use std::collections::BTreeMap;
use std::io::{PipeReader, Read};
use std::time::Instant;

use berth_runtime::shim::protocol::{ContainerState, ExitRecord};
use jiff::Timestamp;

use crate::clients::Asker;
use crate::line::Lines;
use crate::log::{Log, Stream};
use crate::oom::Watch;

/// Where a container is in its life.
///
/// ```text
///   Alive ──its init process ended──▶ Draining ──its output is logged, or took too long──▶ Ended
/// ```
#[derive(Debug)]
pub(crate) enum Life {
    /// Its init process is there; its program runs if it was started.
    Alive,
    /// Its init process has ended, and its output is being logged.
    Draining {
        /// How it ended.
        exit: ExitRecord,
        /// How long to wait for the end of its output.
        until: Instant,
    },
    /// All is told.
    Ended {
        /// How it ended.
        exit: ExitRecord,
        /// When to try again to write the record, if that failed.
        unwritten: Option<Instant>,
    },
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) life: Life,
    pub(crate) output: Option<Output>,
    pub(crate) oom: Option<Watch>,
    /// The processes of `Exec`, by name.
    pub(crate) execs: BTreeMap<String, i32>,
    /// Who waits for it to be deleted.
    pub(crate) deleters: Vec<Asker>,
}

impl Container {
    /// What clients are told about it.
    pub(crate) fn state(&self) -> ContainerState {
        ContainerState {
            pid: self.pid,
            created_at: self.created_at,
            started_at: self.started_at,
            exit: match &self.life {
                Life::Ended { exit, .. } => Some(exit.clone()),
                Life::Alive | Life::Draining { .. } => None,
            },
            log_bytes_lost: self.output.as_ref().map_or(0, |output| output.log.lost()),
        }
    }

    /// Whether its output is complete.
    pub(crate) fn is_drained(&self) -> bool {
        self.output.as_ref().is_none_or(|output| output.stdout.is_none() && output.stderr.is_none())
    }

    /// When something has to be done for it though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.life {
            Life::Alive => None,
            Life::Draining { until, .. } => Some(*until),
            Life::Ended { unwritten, .. } => *unwritten,
        }
    }
}

/// A container's output on its way to its log.
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
}

impl Source {
    /// A stream that comes through `pipe`.
    pub(crate) fn new(pipe: PipeReader) -> Self {
        Self { pipe, lines: Lines::default() }
    }
}

impl Output {
    /// Logs what one read gives, through `buffer`. Gives the pipe back when the stream has ended.
    pub(crate) fn advance(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<PipeReader> {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let source = slot.as_mut()?;
        let stamp = format!("{:.9}", Timestamp::now());
        let log = &mut self.log;
        let ended = match source.pipe.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => false,
            Ok(count) if count > 0 => {
                source.lines.feed(&buffer[..count], |tag, head, tail| log.add(&stamp, stream, tag, head, tail));
                false
            }
            _ => {
                source.lines.finish(|tag, head, tail| log.add(&stamp, stream, tag, head, tail));
                true
            }
        };
        log.flush();
        if ended { slot.take().map(|source| source.pipe) } else { None }
    }
}
