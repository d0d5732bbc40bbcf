//! The verbs that are under way, and what follows from each when it is done.
//!
//! Each is a process ([`Run`]): the library in a copy of the shim, or another runtime's program. A container is made,
//! started, changed and deleted by one at a time; it is signalled and executed in beside any but its making.

use berth_runtime::shim::protocol::{Answer, Fault};
use berth_sys::proc;
use berth_sys::process::Exit;
use jiff::Timestamp;
use nix::libc;

use crate::clients::Asker;
use crate::container::Life;
use crate::creation::Streams;
use crate::library;
use crate::note::note;
use crate::run::{Made, Run, Verb};
use crate::shim::Shim;

/// A verb that is under way, for a container by number.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) run: Run,
    pub(crate) number: u32,
    pub(crate) goal: Goal,
}

/// What it is for.
#[derive(Debug)]
pub(crate) enum Goal {
    /// A container that is not there yet.
    Create { asker: Asker, streams: Streams },
    /// Removing what a failed creation left; then this is told.
    Undo { asker: Asker, fault: Fault },
    /// A container's program.
    Start { asker: Asker, at: Timestamp },
    /// A signal; without an asker it is the shim's own.
    Kill { asker: Option<Asker> },
    /// A container that is there no more.
    Delete,
    /// One more process.
    Exec { asker: Asker, exec: String },
    /// A container that stops, goes on or has other limits.
    Change { asker: Asker },
}

impl Shim {
    /// Begins a verb, whose end is met by [`Self::work_ended`].
    pub(crate) fn begin(&mut self, number: u32, verb: Verb<'_>, goal: Goal) -> Result<(), Fault> {
        let Some(container) = self.containers.get(&number) else { return Ok(()) };
        let id = &container.id;
        let what = format!("{} container {id}", verb.action());
        let run = match &mut self.tool {
            Some(tool) => tool.begin(id, verb, what)?,
            None => library::begin(&self.runtime, &self.presence, id, verb, what)?,
        };
        self.works.insert(run.pid, Work { run, number, goal });
        Ok(())
    }

    /// Whether such a verb is under way for a container.
    pub(crate) fn is_under_way(&self, number: u32, goal: impl Fn(&Goal) -> bool) -> bool {
        self.works.values().any(|work| work.number == number && goal(&work.goal))
    }

    /// Verbs for a container that are of no use any more.
    pub(crate) fn give_up(&mut self, number: u32, goal: impl Fn(&Goal) -> bool) {
        let useless = self.works.values_mut().filter(|work| work.number == number && goal(&work.goal));
        useless.for_each(|work| work.run.give_up());
    }

    /// The process of a verb has ended.
    pub(crate) fn work_ended(&mut self, work: Work, exit: Exit) {
        let Work { run, number, goal } = work;
        // One that failed is not tried again unless somebody asks.
        let was_deletion = matches!(goal, Goal::Delete);
        match goal {
            Goal::Create { asker, streams } => self.create_ended(asker, number, streams, run.end_with_process(exit)),
            Goal::Exec { asker, exec } => self.exec_ended(asker, number, &exec, run.end_with_process(exit)),
            Goal::Undo { asker, fault } => {
                if let Err(left) = run.end(exit) {
                    note(format_args!("{}", left.message));
                }
                self.drop_uncreated(asker, number, fault);
            }
            Goal::Start { asker, at } => self.start_ended(asker, number, run.end(exit).map(|_| at)),
            Goal::Kill { asker } => self.kill_ended(asker, number, run.end(exit).map(drop)),
            Goal::Delete => self.delete_ended(number, run.end(exit).map(drop)),
            Goal::Change { asker } => {
                self.clients.answer(&self.poller, asker, run.end(exit).map(|_| Answer::Done));
            }
        }
        if !was_deletion {
            self.delete_if_wanted(number);
        }
    }

    fn create_ended(&mut self, asker: Asker, number: u32, streams: Streams, made: Result<Made, Fault>) {
        let established = made.and_then(|made| {
            let pid = made.pid;
            self.establish(number, made, streams).map(|()| pid)
        });
        match established {
            Ok(pid) => self.clients.answer(&self.poller, asker, Ok(Answer::Created { pid })),
            Err(fault) => return self.undo_create(asker, number, fault),
        }
        let container = self.containers.get(&number);
        if container.is_some_and(|container| self.ending.is_some() || !container.deleters.is_empty()) {
            self.kill_for_good(number);
        }
    }

    /// Kills a container that is not to be any more.
    pub(crate) fn kill_for_good(&mut self, number: u32) {
        if let Err(fault) = self.begin_kill_all(number) {
            note(format_args!("{}", fault.message));
            self.tell_deleters(number, &Err(fault));
        }
    }

    /// Kills what there is of a container.
    pub(crate) fn begin_kill_all(&mut self, number: u32) -> Result<(), Fault> {
        self.begin(number, Verb::Kill { signal: libc::SIGKILL, all: true }, Goal::Kill { asker: None })
    }

    /// A container of which nobody hears any more: neither is its end told nor a record of it written.
    fn undo_create(&mut self, asker: Asker, number: u32, fault: Fault) {
        if let Some(container) = self.containers.get_mut(&number) {
            container.life = Life::Creating;
        }
        if let Err(left) = self.begin(number, Verb::Delete, Goal::Undo { asker, fault: fault.clone() }) {
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
        container.started_at = started.as_ref().ok().copied();
        self.clients.answer(&self.poller, asker, started.map(|at| Answer::Started { at }));
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
        let done = done.and_then(|()| self.remove_record(number)).map(|()| Answer::Done);
        self.tell_deleters(number, &done);
        if done.is_ok() {
            self.drop_container(number);
        }
    }

    /// Begins the deletion of a container that has ended, if anybody waits for that and nothing is under way: a signal that
    /// comes late must not meet the next of that name.
    pub(crate) fn delete_if_wanted(&mut self, number: u32) {
        let Some(container) = self.containers.get(&number) else { return };
        let wanted = !container.deleters.is_empty() || self.ending.is_some();
        if !wanted || !matches!(container.life, Life::Ended { .. }) || self.is_under_way(number, |_| true) {
            return;
        }
        if let Err(fault) = self.begin(number, Verb::Delete, Goal::Delete) {
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
