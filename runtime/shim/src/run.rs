//! A verb on its way: the process that does it, for the shim must not wait, and what that left to tell when it has ended.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_runtime::Stdio;
use berth_runtime::shim::protocol::{Fault, FaultKind};
use berth_sys::process::{self, Exit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxResources, Process};

use crate::fault::fault;
use crate::library;
use crate::tool::Leavings;

/// What a runtime is to do with a container.
#[derive(Debug)]
pub(crate) enum Verb<'a> {
    Create { bundle: &'a Path, stdio: Stdio },
    Start,
    Kill { signal: i32, all: bool },
    Delete,
    Exec { process: &'a Process, stdio: Stdio },
    Pause,
    Resume,
    Update(&'a LinuxResources),
}

impl Verb<'_> {
    /// As in "creating container c".
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Create { .. } => "creating",
            Self::Start => "starting",
            Self::Kill { .. } => "signalling",
            Self::Delete => "deleting",
            Self::Exec { .. } => "executing in",
            Self::Pause => "pausing",
            Self::Resume => "resuming",
            Self::Update(_) => "updating",
        }
    }

    /// Those that it is given for the process that it makes.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        let stdio = match self {
            Self::Create { stdio, .. } | Self::Exec { stdio, .. } => Some(stdio),
            _ => None,
        };
        stdio.into_iter().flat_map(|stdio| [&stdio.stdin, &stdio.stdout, &stdio.stderr]).flatten()
    }
}

/// A process that a run made and left to the shim.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) terminal: Option<OwnedFd>,
}

/// The process that does a verb.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) pid: i32,
    /// When it is killed.
    pub(crate) deadline: Instant,
    time_max: Duration,
    /// Why it was killed.
    cut_short: Option<String>,
    what: String,
    report: Report,
}

/// Where it leaves what it has to tell.
#[derive(Debug)]
pub(crate) enum Report {
    /// Another runtime's program, in files.
    Files(Leavings),
    /// The library in a copy of the shim, in a packet.
    Packet(OwnedFd),
}

impl Run {
    /// One that has begun; `what` says what it is for.
    pub(crate) fn begun(pid: i32, time_max: Duration, what: String, report: Report) -> Self {
        Self { pid, deadline: Instant::now() + time_max, time_max, cut_short: None, what, report }
    }

    /// Its deadline has passed.
    pub(crate) fn be_late(&mut self) {
        self.kill(format!("the runtime did not end within {:?}", self.time_max));
    }

    /// Its result is not wanted any more. What another runtime leaves half made, nobody may know how to remove: that one
    /// may finish.
    pub(crate) fn give_up(&mut self) {
        if let Report::Packet(_) = self.report {
            self.kill("the container was ended meanwhile".to_owned());
        }
    }

    fn kill(&mut self, why: String) {
        self.deadline = Instant::now() + self.time_max;
        self.cut_short = Some(why);
        // It is not reaped yet, so its id stands for nobody else.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    /// What it did, by how it ended.
    pub(crate) fn end(self, exit: Exit) -> Result<Option<Made>, Fault> {
        let told = match &self.report {
            Report::Files(leavings) => leavings.told(exit),
            Report::Packet(socket) => library::told(socket, exit),
        };
        told.map_err(|told| {
            let message = self.cut_short.unwrap_or(told.message);
            fault(told.kind, format!("{}: {message}", self.what))
        })
    }

    /// As [`Self::end`], of one that was to make a process.
    pub(crate) fn end_with_process(self, exit: Exit) -> Result<Made, Fault> {
        let what = self.what.clone();
        let wrong = |told: String| Err(fault(FaultKind::Failed, format!("{what}: the runtime {told}")));
        match self.end(exit)? {
            // Not reaped yet: its id stands for nobody else.
            Some(made) if process::is_child(made.pid) => Ok(made),
            Some(Made { pid, .. }) => wrong(format!("made process {pid}, which is no child of the shim's")),
            None => wrong("told of no process".to_owned()),
        }
    }
}
