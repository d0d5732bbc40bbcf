//! The ends of processes: of containers, of execs, of the orphans that the shim adopts.

use std::time::Instant;

use berth_runtime::shim::protocol::{Event, ExitRecord, NamespaceMode};
use berth_sys::process::{self, Exit};
use jiff::Timestamp;

use crate::container::{Container, Exec, Life};
use crate::limits::{DRAIN_TIME_MAX, RECORD_RETRY_TIME};
use crate::note::note;
use crate::record;
use crate::shim::Shim;
use crate::work::Goal;

impl Shim {
    /// Takes the status of every child that has ended and that somebody knows. The others are nobody's orphans, but while
    /// a verb is under way one of them may be the process that it is about to tell of: it stays, and with it its id.
    pub(crate) fn reap(&mut self) {
        loop {
            let known = match process::ended_child() {
                Ok(Some(pid)) if self.works.is_empty() => vec![pid],
                Ok(Some(_)) => self.known(),
                Ok(None) => return,
                Err(error) => return note(format_args!("waiting for children: {error}")),
            };
            let mut any = false;
            for pid in known {
                if let Ok(Some(exit)) = process::reap(pid) {
                    self.ended(pid, exit);
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
    }

    /// The children whose end means something now. That of a container which is being started does not yet: first come
    /// the answer and the time.
    fn known(&self) -> Vec<i32> {
        let starts = |number| self.is_under_way(number, |goal| matches!(goal, Goal::Start { .. }));
        let lives =
            |(number, container): &(&u32, &Container)| matches!(container.life, Life::Alive) && !starts(**number);
        let containers = self.containers.iter().filter(lives).map(|(_, container)| container.pid);
        let execs = self.containers.values().flat_map(|container| container.execs.values().filter_map(Exec::pid));
        self.works.keys().copied().chain(self.sandbox.init).chain(containers).chain(execs).collect()
    }

    fn ended(&mut self, pid: i32, exit: Exit) {
        if let Some(work) = self.works.remove(&pid) {
            return self.work_ended(work, exit);
        }
        if self.sandbox.init == Some(pid) {
            self.sandbox.init = None;
            return note(format_args!("the init of the shared pid namespace ended: {exit:?}"));
        }
        for (number, container) in &mut self.containers {
            if container.pid == pid && matches!(container.life, Life::Alive) {
                let number = *number;
                return self.init_ended(number, exit);
            }
            let name = container.execs.iter().find(|(_, exec)| exec.pid() == Some(pid)).map(|(name, _)| name.clone());
            if let Some(exec) = name {
                container.execs.remove(&exec);
                let event = Event::ExecExited { container: container.id.clone(), exec, code: exit.code() };
                return self.clients.tell(&self.poller, &event);
            }
        }
    }

    /// The first process of a container has ended: what it leaves is killed, what it wrote is logged.
    fn init_ended(&mut self, number: u32, exit: Exit) {
        let finished_at = Timestamp::now();
        self.give_up(number, |goal| matches!(goal, Goal::Exec { .. }));
        self.look_for_oom(number);
        // The init of a pid namespace takes all that is in it along; in a shared one the others must be found.
        if self.spec.namespaces.pid != NamespaceMode::Container
            && let Err(fault) = self.begin_kill_all(number)
        {
            note(format_args!("killing what a container left: {}", fault.message));
        }
        let Some(container) = self.containers.get_mut(&number) else { return };
        let exit = ExitRecord {
            code: exit.code(),
            signal: match exit {
                Exit::Signal(signal) => Some(signal),
                Exit::Code(_) => None,
            },
            oom_killed: container.oom.take().is_some_and(|watch| {
                let _ = self.poller.forget(&watch);
                watch.any()
            }),
            started_at: container.started_at,
            finished_at,
        };
        container.input = None;
        if let Some(output) = &mut container.output {
            output.let_end();
        }
        container.life = Life::Draining { exit, until: Instant::now() + DRAIN_TIME_MAX };
        if container.is_drained() {
            self.settle(number);
        }
    }

    /// The output of an ended container is logged, or took too long: the record is written and the end is told, in this
    /// order. Called again while the record could not be written.
    pub(crate) fn settle(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let (exit, told) = match &container.life {
            Life::Creating | Life::Alive => return,
            Life::Draining { exit, .. } => (exit.clone(), false),
            Life::Ended { exit, .. } => (exit.clone(), true),
        };
        let unwritten = match record::write(&self.dir, &container.id, &exit) {
            Ok(()) => None,
            Err(error) => {
                note(format_args!("writing the exit record of {}: {error}", container.id));
                Some(Instant::now() + RECORD_RETRY_TIME)
            }
        };
        container.life = Life::Ended { exit: exit.clone(), unwritten };
        if told {
            return;
        }
        let event = Event::Exited { container: container.id.clone(), exit };
        self.clients.tell(&self.poller, &event);
        self.delete_if_wanted(number);
    }

    /// The kernel told of a container's memory.
    pub(crate) fn notice_oom(&mut self, number: u32) {
        let watch = |container: &mut Container| container.oom.as_mut().and_then(|tally| tally.notice().ok());
        self.tell_oom(number, watch);
    }

    /// Looks whether the OOM killer was at a container since.
    pub(crate) fn look_for_oom(&mut self, number: u32) {
        let watch = |container: &mut Container| container.oom.as_mut().and_then(|tally| tally.look().ok());
        self.tell_oom(number, watch);
    }

    fn tell_oom(&mut self, number: u32, look: impl FnOnce(&mut Container) -> Option<bool>) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        match look(container) {
            Some(true) => {
                let event = Event::Oom { container: container.id.clone() };
                self.clients.tell(&self.poller, &event);
            }
            Some(false) => {}
            // Its cgroup is gone, and a descriptor that stays readable must not keep the loop spinning.
            None => {
                if let Some(watch) = container.oom.take() {
                    let _ = self.poller.forget(&watch);
                }
            }
        }
    }
}
