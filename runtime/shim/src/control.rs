//! What clients ask for, call by call. Those that take more than a few lines are in `creation`, `exec`, `attach`.

use std::os::fd::OwnedFd;

use berth_runtime::Stats;
use berth_runtime::shim::protocol::{Answer, Call, Fault, FaultKind, Request};
use berth_sys::cgroup::Cgroup;
use jiff::Timestamp;
use nix::libc;
use oci_spec::runtime::LinuxResources;
use serde_json::json;

use crate::clients::{Asker, Told};
use crate::container::{Busy, Container, Life};
use crate::fault::{failed, fault, runtime_fault};
use crate::oom::cgroup_of;
use crate::record;
use crate::request::{Unread, check_name};
use crate::shim::Shim;

/// What comes back: at once, or later, from whoever finishes the work.
pub(crate) type Outcome = Result<Option<Told>, Fault>;

/// What happens to the processes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freeze {
    Pause,
    Resume,
}

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
            Call::ExecKill { container, exec, signal } => self.exec_kill(&container, &exec, signal).map(done),
            Call::Attach { container, stdin, stdout, stderr } => {
                self.attach(&container, stdin, [stdout, stderr], fds).map(Some)
            }
            Call::CloseStdin { container } => self.close_stdin(&container).map(done),
            Call::Resize { container, columns, rows } => self.resize(&container, columns, rows).map(done),
            Call::Pause { container } => self.freeze(asker, &container, Freeze::Pause),
            Call::Resume { container } => self.freeze(asker, &container, Freeze::Resume),
            Call::Stats { container } => {
                self.look(&container, |cgroup| Ok(Answer::Stats { stats: json!(Stats::of(cgroup)) }))
            }
            Call::Processes { container } => {
                self.look(&container, |cgroup| Ok(Answer::Processes { pids: cgroup.all_processes()? }))
            }
            Call::Update { container, resources } => self.update(asker, &container, &resources),
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
        if !matches!(container.life, Life::Alive) || container.started_at.is_some() || container.busy.is_some() {
            let message = format!("container {id} was started before, has ended, or is being created");
            return Err(fault(FaultKind::WrongState, message));
        }
        if self.tool.is_some() {
            self.begin_start(asker, number)?;
            self.container(id)?.1.busy = Some(Busy::Starting);
            return Ok(None);
        }
        let at = Timestamp::now();
        self.runtime.start(id).map_err(|error| runtime_fault("starting", id, &error))?;
        let (_, container) = self.container(id)?;
        container.started_at = Some(at);
        Ok(Some(Answer::Started { at }.into()))
    }

    fn kill(&mut self, asker: Asker, id: &str, signal: i32, all: bool) -> Outcome {
        let (number, container) = self.container(id)?;
        if matches!(container.life, Life::Creating) {
            return Err(fault(FaultKind::WrongState, format!("container {id} is being created")));
        }
        let needed = matches!(container.life, Life::Alive) || all;
        if needed && self.tool.is_some() {
            return self.begin_kill(Some(asker), number, signal, all).map(|()| None);
        }
        let (_, container) = self.container(id)?;
        if matches!(container.life, Life::Alive) || all {
            self.runtime.kill(id, signal, all).map_err(|error| runtime_fault("signalling", id, &error))?;
        }
        Ok(Some(Answer::Done.into()))
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
                self.forget(number);
            }
            Life::Creating | Life::Draining { .. } => container.deleters.push(asker),
            Life::Alive => {
                if self.tool.is_some() {
                    self.begin_kill(None, number, libc::SIGKILL, true)?;
                } else {
                    let killed = self.runtime.kill(id, libc::SIGKILL, true);
                    killed.map_err(|error| runtime_fault("killing", id, &error))?;
                }
                self.container(id)?.1.deleters.push(asker);
            }
        }
        Ok(None)
    }

    /// The processes of a container, stopped or let go on.
    fn freeze(&mut self, asker: Asker, id: &str, freeze: Freeze) -> Outcome {
        let number = self.living(id)?;
        let (action, verb) = match freeze {
            Freeze::Pause => ("pausing", "pause"),
            Freeze::Resume => ("resuming", "resume"),
        };
        if self.tool.is_some() {
            return self.begin_plain(asker, number, action, verb).map(|()| None);
        }
        let done = match freeze {
            Freeze::Pause => self.runtime.pause(id),
            Freeze::Resume => self.runtime.resume(id),
        };
        done.map_err(|error| runtime_fault(action, id, &error))?;
        Ok(Some(Answer::Done.into()))
    }

    /// Whatever made a container, the kernel counts what it uses.
    fn look(&mut self, id: &str, look: impl FnOnce(&Cgroup) -> Result<Answer, berth_runtime::Error>) -> Outcome {
        self.living(id)?;
        let cgroup = match self.tool {
            Some(_) => cgroup_of(self.container(id)?.1.pid)
                .map_err(|error| failed(&format!("looking for the cgroup of {id}"), error.as_ref()))?,
            None => self.runtime.cgroup(id).map_err(|error| runtime_fault("looking into", id, &error))?,
        };
        look(&cgroup).map(|answer| Some(answer.into())).map_err(|error| runtime_fault("looking into", id, &error))
    }

    fn update(&mut self, asker: Asker, id: &str, resources: &LinuxResources) -> Outcome {
        let number = self.living(id)?;
        if self.tool.is_some() {
            return self.begin_update(asker, number, resources).map(|()| None);
        }
        self.runtime.update(id, resources).map_err(|error| runtime_fault("updating", id, &error))?;
        Ok(Some(Answer::Done.into()))
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
