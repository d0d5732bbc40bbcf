//! What another OCI runtime is doing meanwhile, and what follows when it is done.

use std::os::fd::OwnedFd;

use berth_runtime::shim::protocol::{Answer, Fault};
use berth_sys::proc;
use berth_sys::process::Exit;
use jiff::Timestamp;
use nix::libc;

use crate::clients::{Asker, Told};
use crate::container::{Busy, Life};
use crate::creation::Streams;
use crate::fault::failed;
use crate::limits::UNCLAIMED_MAX;
use crate::note::note;
use crate::shim::Shim;
use crate::tool::Run;

/// A run, and what it is for.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) run: Run,
    pub(crate) goal: Goal,
}

/// What a run is for; containers by number.
#[derive(Debug)]
pub(crate) enum Goal {
    /// A container that is not there yet.
    Create { asker: Asker, number: u32, streams: Streams },
    /// Removing what a failed creation left; then this is told.
    Undo { asker: Asker, number: u32, fault: Fault },
    /// A container's program.
    Start { asker: Asker, number: u32, at: Timestamp },
    /// A signal; without an asker it is the shim's own.
    Kill { asker: Option<Asker>, number: u32 },
    /// A container that is there no more.
    Delete { number: u32 },
    /// One more process.
    Exec { asker: Asker, number: u32, exec: String },
    /// Something that nothing follows from.
    Plain { asker: Asker },
}

impl Shim {
    /// A run has ended.
    pub(crate) fn work_ended(&mut self, work: Work, exit: Exit) {
        let Work { run, goal } = work;
        let done = run.check(exit);
        match goal {
            Goal::Create { asker, number, streams } => match done.and_then(|()| made(&run)) {
                Ok((pid, terminal)) => {
                    let established = self.establish(number, pid, streams, terminal);
                    match established {
                        Ok(()) => self.clients.answer(&self.poller, asker, Ok(Answer::Created { pid })),
                        Err(fault) => return self.undo_create(asker, number, fault),
                    }
                    self.claim(pid);
                    let container = self.containers.get(&number);
                    if container.is_some_and(|container| self.ending.is_some() || !container.deleters.is_empty()) {
                        self.kill_for_good(number);
                    }
                }
                Err(fault) => self.undo_create(asker, number, fault),
            },
            Goal::Undo { asker, number, fault } => {
                if let Err(left) = done {
                    note(format_args!("{}", left.message));
                }
                self.drop_uncreated(asker, number, fault);
            }
            Goal::Start { asker, number, at } => self.start_ended(asker, number, done.map(|()| at)),
            Goal::Kill { asker, number } => self.kill_ended(asker, number, done),
            Goal::Delete { number } => self.delete_ended(number, done),
            Goal::Exec { asker, number, exec } => self.exec_ended(asker, number, exec, done.and_then(|()| made(&run))),
            Goal::Plain { asker } => self.clients.answer(&self.poller, asker, done.map(|()| Answer::Done)),
        }
        if self.works.is_empty() {
            self.unclaimed = Vec::new();
        }
    }

    /// A process has ended that a run may be about to tell of.
    pub(crate) fn keep_unclaimed(&mut self, pid: i32, exit: Exit) {
        if !self.works.is_empty() && self.unclaimed.len() < UNCLAIMED_MAX {
            self.unclaimed.push((pid, exit));
        }
    }

    /// A run told of a process, which may have ended before that.
    fn claim(&mut self, pid: i32) {
        if let Some(index) = self.unclaimed.iter().position(|(ended, _)| *ended == pid) {
            let (pid, exit) = self.unclaimed.swap_remove(index);
            self.ended(pid, exit);
        }
    }

    /// Kills a container that was not to be.
    fn kill_for_good(&mut self, number: u32) {
        if let Err(fault) = self.begin_kill(None, number, libc::SIGKILL, true) {
            self.tell_deleters(number, &Err(fault));
        }
    }

    fn undo_create(&mut self, asker: Asker, number: u32, fault: Fault) {
        if let Err(left) = self.begin_undo(asker, number, fault.clone()) {
            note(format_args!("{}", left.message));
            self.drop_uncreated(asker, number, fault);
        }
    }

    fn drop_uncreated(&mut self, asker: Asker, number: u32, fault: Fault) {
        self.clients.answer(&self.poller, asker, Err::<Answer, _>(fault));
        self.tell_deleters(number, &Ok(Answer::Done));
        self.drop_container(number);
    }

    fn start_ended(&mut self, asker: Asker, number: u32, started: Result<Timestamp, Fault>) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        container.busy = None;
        container.started_at = started.as_ref().ok().copied();
        let pid = container.pid;
        self.clients.answer(&self.poller, asker, started.map(|at| Answer::Started { at }));
        self.claim(pid);
        self.delete_if_wanted(number);
    }

    /// A container that has ended needs no signal, whatever the runtime says of it.
    fn kill_ended(&mut self, asker: Option<Asker>, number: u32, done: Result<(), Fault>) {
        let lives = self.containers.get(&number).is_some_and(|container| {
            matches!(container.life, Life::Alive) && proc::stat(container.pid).is_ok_and(|stat| !stat.is_dead())
        });
        let done = if lives { done } else { Ok(()) };
        match (asker, done) {
            (Some(asker), done) => self.clients.answer(&self.poller, asker, done.map(|()| Answer::Done)),
            (None, Ok(())) => {}
            (None, Err(fault)) => {
                note(format_args!("{}", fault.message));
                self.tell_deleters(number, &Err(fault));
            }
        }
    }

    fn delete_ended(&mut self, number: u32, done: Result<(), Fault>) {
        if let Some(container) = self.containers.get_mut(&number) {
            container.busy = None;
        }
        let done = done.and_then(|()| self.remove_record(number)).map(|()| Answer::Done);
        self.tell_deleters(number, &done);
        if done.is_ok() {
            self.drop_container(number);
        }
    }

    fn exec_ended(&mut self, asker: Asker, number: u32, exec: String, made: Result<Made, Fault>) {
        match made {
            Ok((pid, terminal)) => {
                self.note_exec(number, exec, Some(pid));
                self.clients.answer(&self.poller, asker, Ok(Told::with(Answer::Executed { pid }, terminal)));
                self.claim(pid);
            }
            Err(fault) => {
                self.note_exec(number, exec, None);
                self.clients.answer(&self.poller, asker, Err::<Answer, _>(fault));
            }
        }
    }

    /// Begins the deletion of a container that has ended, if anybody waits for that and nothing is in the way.
    pub(crate) fn delete_if_wanted(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let wanted = !container.deleters.is_empty() || self.ending.is_some();
        if !wanted || container.busy.is_some() || !matches!(container.life, Life::Ended { .. }) {
            return;
        }
        container.busy = Some(Busy::Deleting);
        if let Err(fault) = self.begin_delete(number) {
            self.delete_ended(number, Err(fault));
        }
    }

    /// Answers those who wait for a container's deletion.
    pub(crate) fn tell_deleters(&mut self, number: u32, result: &Result<Answer, Fault>) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        for asker in std::mem::take(&mut container.deleters) {
            self.clients.answer(&self.poller, asker, result.clone());
        }
    }
}

/// The process that a run made, and the terminal that it sent if it was to.
type Made = (i32, Option<OwnedFd>);

fn made(run: &Run) -> Result<Made, Fault> {
    let terminal = run.console.as_ref().map(|console| console.take()).transpose();
    Ok((run.made()?, terminal.map_err(|error| failed("waiting for the runtime's terminal", &error))?))
}
