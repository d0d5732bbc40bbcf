//! What clients ask for, call by call. Those that take more than a few lines are in `creation`, `exec`, `attach`.

use std::os::fd::OwnedFd;

use berth_runtime::Runtime;
use berth_runtime::shim::protocol::{Answer, Call, Fault, FaultKind, Request};
use jiff::Timestamp;
use nix::libc;

use crate::clients::{Asker, Told};
use crate::container::{Container, Life};
use crate::fault::{failed, fault, runtime_fault};
use crate::record;
use crate::request::{Unread, check_name};
use crate::shim::Shim;

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
                self.create(container, &bundle, log, (stdin, stdin_once))
            }
            Call::Start { container } => self.start(&container),
            Call::Kill { container, signal, all } => self.kill(&container, signal, all),
            Call::Delete { container } => self.delete(asker, &container),
            Call::Exec { container, exec, process } => self.exec(&container, exec, &process, fds),
            Call::ExecKill { container, exec, signal } => self.exec_kill(&container, &exec, signal).map(done),
            Call::Attach { container, stdin, stdout, stderr } => {
                self.attach(&container, stdin, [stdout, stderr], fds).map(Some)
            }
            Call::CloseStdin { container } => self.close_stdin(&container).map(done),
            Call::Resize { container, columns, rows } => self.resize(&container, columns, rows).map(done),
            Call::Pause { container } => self.with_living(&container, "pausing", Runtime::pause).map(done),
            Call::Resume { container } => self.with_living(&container, "resuming", Runtime::resume).map(done),
            Call::Update { container, resources } => {
                self.with_living(&container, "updating", |runtime, id| runtime.update(id, &resources)).map(done)
            }
            Call::Stats { container } => self.stats(&container),
            Call::Processes { container } => {
                let pids = self.with_living(&container, "looking into", Runtime::processes)?;
                Ok(Some(Answer::Processes { pids }.into()))
            }
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

    fn start(&mut self, id: &str) -> Outcome {
        let (_, container) = self.container(id)?;
        if !matches!(container.life, Life::Alive) || container.started_at.is_some() {
            return Err(fault(FaultKind::WrongState, format!("container {id} was started before, or has ended")));
        }
        let at = Timestamp::now();
        self.runtime.start(id).map_err(|error| runtime_fault("starting", id, &error))?;
        let (_, container) = self.container(id)?;
        container.started_at = Some(at);
        Ok(Some(Answer::Started { at }.into()))
    }

    fn kill(&mut self, id: &str, signal: i32, all: bool) -> Outcome {
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
            Life::Ended { .. } => self.forget_container(number).map(|answer| Some(answer.into())),
            Life::Draining { .. } => {
                container.deleters.push(asker);
                Ok(None)
            }
            Life::Alive => {
                container.deleters.push(asker);
                let killed = self.runtime.kill(id, libc::SIGKILL, true);
                killed.map(|()| None).map_err(|error| {
                    if let Ok((_, container)) = self.container(id) {
                        container.deleters.retain(|waiting| *waiting != asker);
                    }
                    runtime_fault("killing", id, &error)
                })
            }
        }
    }

    fn stats(&mut self, id: &str) -> Outcome {
        let stats = self.with_living(id, "looking into", Runtime::stats)?;
        let stats = serde_json::to_value(stats).map_err(|error| failed("writing what a container has used", &error))?;
        Ok(Some(Answer::Stats { stats }.into()))
    }

    fn with_living<T>(
        &mut self,
        id: &str,
        action: &str,
        verb: impl FnOnce(&Runtime, &str) -> Result<T, berth_runtime::Error>,
    ) -> Result<T, Fault> {
        let (_, container) = self.container(id)?;
        if !matches!(container.life, Life::Alive) {
            return Err(fault(FaultKind::WrongState, format!("container {id} has ended")));
        }
        verb(&self.runtime, id).map_err(|error| runtime_fault(action, id, &error))
    }

    fn reopen_log(&mut self, id: &str) -> Result<(), Fault> {
        let (_, container) = self.container(id)?;
        match container.output.as_mut().and_then(|output| output.log.as_mut()) {
            Some(log) => log.reopen().map_err(|error| failed(&format!("opening the log of {id}"), &error)),
            None => Ok(()),
        }
    }

    fn state(&self) -> Answer {
        let containers = self.containers.values();
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
