//! What clients ask for, call by call. Those that take more than a few lines are in `creation`, `exec`, `attach`.

use std::error::Error;
use std::os::fd::OwnedFd;

use berth_runtime::Stats;
use berth_runtime::shim::protocol::{Answer, Call, Fault, FaultKind, Request};
use berth_sys::cgroup::Cgroup;
use jiff::Timestamp;
use serde_json::json;

use crate::clients::{Asker, Told};
use crate::container::{Container, Life};
use crate::fault::{failed, fault};
use crate::oom::cgroup_of;
use crate::record;
use crate::request::{Unread, check_name};
use crate::run::Verb;
use crate::shim::Shim;
use crate::work::Goal;

/// What comes back: at once, or later, from whoever finishes the work.
pub(crate) type Outcome = Result<Option<Told>, Fault>;

impl Shim {
    /// Does what a client asks for and answers it.
    pub(crate) fn handle_request(&mut self, client: u32, request: Result<Request, Unread>, fds: Vec<OwnedFd>) {
        let (id, outcome) = match request {
            Ok(request) => (request.id, self.call(Asker { client, id: request.id }, request.call, fds)),
            Err(Unread { id, message }) => (id, Err(fault(FaultKind::Invalid, message))),
        };
        let result = match outcome {
            Ok(Some(told)) => Ok(told),
            Ok(None) => return,
            Err(fault) => Err(fault),
        };
        self.clients.answer(&self.poller, Asker { client, id }, result);
    }

    fn call(&mut self, asker: Asker, call: Call, fds: Vec<OwnedFd>) -> Outcome {
        if self.ending.is_some() && !matches!(call, Call::Shutdown | Call::State) {
            return Err(fault(FaultKind::WrongState, "the shim is shutting down"));
        }
        let done = |()| Some(Told::from(Answer::Done));
        match call {
            Call::Create { container, bundle, log, stdin, stdin_once } => {
                self.create(asker, container, &bundle, log, (stdin, stdin_once))
            }
            Call::Start { container } => self.start(asker, &container),
            Call::Kill { container, signal, all } => self.kill(asker, &container, signal, all),
            Call::Delete { container } => self.delete(asker, &container),
            Call::Exec { container, exec, process } => self.exec(asker, &container, exec, &process, fds),
            Call::ExecKill { container, exec, signal } => self.exec_kill(asker, &container, &exec, signal),
            Call::Attach { container, stdin, stdout, stderr } => {
                self.attach(&container, stdin, [stdout, stderr], fds).map(Some)
            }
            Call::CloseStdin { container } => self.close_stdin(&container).map(done),
            Call::Resize { container, columns, rows } => self.resize(&container, columns, rows).map(done),
            Call::Pause { container } => self.change(asker, &container, Verb::Pause),
            Call::Resume { container } => self.change(asker, &container, Verb::Resume),
            Call::Stats { container } => {
                self.look(&container, |cgroup| Ok(Answer::Stats { stats: json!(Stats::of(cgroup)) }))
            }
            Call::Processes { container } => {
                self.look(&container, |cgroup| Ok(Answer::Processes { pids: cgroup.all_processes()? }))
            }
            Call::Update { container, resources } => self.change(asker, &container, Verb::Update(&resources)),
            Call::ReopenLog { container } => self.reopen_log(&container).map(done),
            Call::State => Ok(Some(self.state().into())),
            Call::Subscribe => {
                self.clients.subscribe(asker.client);
                Ok(Some(self.state().into()))
            }
            Call::Shutdown => {
                self.shut_down(asker);
                Ok(None)
            }
        }
    }

    fn start(&mut self, asker: Asker, id: &str) -> Outcome {
        let (number, container) = self.container(id)?;
        if !matches!(container.life, Life::Alive) || container.started_at.is_some() || self.is_busy(number) {
            let message = format!("container {id} was started or is busy, has ended, or is being created");
            return Err(fault(FaultKind::WrongState, message));
        }
        self.begin(number, Verb::Start, Goal::Start { asker, at: Timestamp::now() }).map(|()| None)
    }

    fn kill(&mut self, asker: Asker, id: &str, signal: i32, all: bool) -> Outcome {
        let (number, _) = self.container(id)?;
        let is_busy = self.is_busy(number);
        match self.container(id)?.1.life {
            Life::Creating => Err(fault(FaultKind::WrongState, format!("container {id} is being created"))),
            Life::Draining { .. } | Life::Ended { .. } if !all => Ok(Some(Answer::Done.into())),
            Life::Ended { .. } if is_busy => Ok(Some(Answer::Done.into())),
            Life::Alive | Life::Draining { .. } | Life::Ended { .. } => {
                self.begin(number, Verb::Kill { signal, all }, Goal::Kill { asker: Some(asker) }).map(|()| None)
            }
        }
    }

    /// A container that lives is killed, and its end brings the answer.
    fn delete(&mut self, asker: Asker, id: &str) -> Outcome {
        let Some(number) = self.number_of(id) else {
            check_name("container id", id)?;
            record::remove(&self.dir, id).map_err(|error| failed("removing an exit record", &error))?;
            return Ok(Some(Answer::Done.into()));
        };
        let (_, container) = self.container(id)?;
        match container.life {
            Life::Ended { .. } => {
                container.deleters.push(asker);
                self.delete_if_wanted(number);
            }
            Life::Creating => {
                container.deleters.push(asker);
                self.give_up(number, |goal| matches!(goal, Goal::Create { .. }));
            }
            Life::Draining { .. } => container.deleters.push(asker),
            Life::Alive => {
                self.begin_kill_all(number)?;
                self.container(id)?.1.deleters.push(asker);
            }
        }
        Ok(None)
    }

    /// Changes how a container runs.
    fn change(&mut self, asker: Asker, id: &str, verb: Verb<'_>) -> Outcome {
        let number = self.living(id)?;
        if self.is_busy(number) {
            let message = format!("container {id} is being started, changed or deleted");
            return Err(fault(FaultKind::WrongState, message));
        }
        self.begin(number, verb, Goal::Change { asker }).map(|()| None)
    }

    /// Whether something is under way that suffers nothing of its kind beside it.
    fn is_busy(&self, number: u32) -> bool {
        self.is_under_way(number, |goal| matches!(goal, Goal::Start { .. } | Goal::Change { .. } | Goal::Delete))
    }

    /// Whatever made a container, the kernel counts what it uses.
    fn look(&mut self, id: &str, look: impl FnOnce(&Cgroup) -> Result<Answer, berth_runtime::Error>) -> Outcome {
        self.living(id)?;
        let pid = self.container(id)?.1.pid;
        let looking = |error: Box<dyn Error>| failed(&format!("looking into container {id}"), error.as_ref());
        let cgroup = self.cgroup(id, pid).map_err(looking)?;
        look(&cgroup).map(|answer| Some(answer.into())).map_err(|error| looking(error.into()))
    }

    /// The cgroup of a container, whose first process is this.
    pub(crate) fn cgroup(&self, id: &str, pid: i32) -> Result<Cgroup, Box<dyn Error>> {
        match self.tool {
            Some(_) => cgroup_of(pid),
            None => Ok(self.runtime.cgroup(id)?),
        }
    }

    fn living(&mut self, id: &str) -> Result<u32, Fault> {
        match self.container(id)? {
            (number, container) if matches!(container.life, Life::Alive) => Ok(number),
            _ => Err(fault(FaultKind::WrongState, format!("container {id} has ended, or is being created"))),
        }
    }

    fn reopen_log(&mut self, id: &str) -> Result<(), Fault> {
        let (_, container) = self.container(id)?;
        match container.output.as_mut().and_then(|output| output.log.as_mut()) {
            Some(log) => log.reopen().map_err(|error| failed(&format!("opening the log of {id}"), &error)),
            None => Ok(()),
        }
    }

    fn state(&self) -> Answer {
        let containers = self.containers.values().filter(|container| !matches!(container.life, Life::Creating));
        Answer::State { containers: containers.map(|container| (container.id.clone(), container.state())).collect() }
    }

    /// The number of a container.
    pub(crate) fn number_of(&self, id: &str) -> Option<u32> {
        self.containers.iter().find(|(_, container)| container.id == id).map(|(number, _)| *number)
    }

    /// A container and its number.
    pub(crate) fn container(&mut self, id: &str) -> Result<(u32, &mut Container), Fault> {
        let found = self.containers.iter_mut().find(|(_, container)| container.id == id);
        let unknown = || fault(FaultKind::NotFound, format!("there is no container {id}"));
        found.map(|(number, container)| (*number, container)).ok_or_else(unknown)
    }
}
