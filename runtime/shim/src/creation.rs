//! The beginning and the end of a container.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_runtime::Stdio;
use berth_runtime::shim::protocol::{Answer, Event, Fault, FaultKind, LogSpec};
use berth_sys::epoll::Interest;
use jiff::Timestamp;
use nix::libc;

use crate::container::{Container, Input, Life};
use crate::control::Outcome;
use crate::fault::{failed, fault, runtime_fault};
use crate::limits::CONTAINERS_MAX;
use crate::log::Log;
use crate::note::note;
use crate::oom::Watch;
use crate::output::Output;
use crate::record;
use crate::request::check_name;
use crate::shim::Shim;
use crate::wake::Wake;

impl Shim {
    /// Makes a container, which can be written to and by one only if `(stdin, stdin_once)`.
    pub(crate) fn create(
        &mut self,
        id: String,
        bundle: &Path,
        log: Option<LogSpec>,
        (stdin, stdin_once): (bool, bool),
    ) -> Outcome {
        check_name("container id", &id)?;
        if self.number_of(&id).is_some() {
            return Err(fault(FaultKind::Exists, format!("container {id} exists already")));
        }
        if self.containers.len() >= CONTAINERS_MAX {
            let message = format!("a sandbox has at most {CONTAINERS_MAX} containers: delete some that ended");
            return Err(fault(FaultKind::Failed, message));
        }
        let (streams, stdio) = Streams::open(log, stdin, stdin_once)?;
        let spawned =
            self.runtime.create(&id, bundle, stdio).map_err(|error| runtime_fault("creating", &id, &error))?;
        let oom = Watch::begin(&self.runtime, &id);
        let pid = spawned.pid;
        let (input, output, unseen) = match streams.connect(spawned.terminal) {
            Ok((input, output)) => (input, output, None),
            Err(error) => (None, None, Some(error)),
        };
        let container = Container {
            id: id.clone(),
            pid,
            created_at: Timestamp::now(),
            started_at: None,
            life: Life::Alive,
            input,
            output,
            oom,
            execs: BTreeMap::new(),
            deleters: Vec::new(),
        };
        self.last_container += 1;
        let number = self.last_container;
        let watched = self.watch_container(number, &container);
        self.containers.insert(number, container);
        if let Err(error) = unseen.map_or(watched, Err) {
            // Without an eye on its output it would block sooner or later.
            let _ = self.forget_container(number);
            return Err(failed(&format!("watching container {id}"), &error));
        }
        Ok(Some(Answer::Created { pid }.into()))
    }

    fn watch_container(&self, number: u32, container: &Container) -> io::Result<()> {
        if let Some(watch) = &container.oom {
            self.poller.watch(watch, Interest::Read, Wake::Oom(number).token())?;
        }
        for (stream, source) in container.output.iter().flat_map(Output::sources) {
            for fd in source.watched() {
                self.poller.watch(fd, Interest::Read, Wake::Output(number, stream).token())?;
            }
        }
        Ok(())
    }

    /// Removes all that is left of a container.
    pub(crate) fn forget_container(&mut self, number: u32) -> Result<Answer, Fault> {
        let Some(container) = self.containers.get(&number) else { return Ok(Answer::Done) };
        let id = container.id.clone();
        self.runtime.delete(&id).map_err(|error| runtime_fault("deleting", &id, &error))?;
        record::remove(&self.dir, &id).map_err(|error| failed("removing an exit record", &error))?;
        // Whatever was left in it has ended by now: its end is told before the container is forgotten.
        self.reap();
        let Some(container) = self.containers.remove(&number) else { return Ok(Answer::Done) };
        for exec in container.execs.into_keys() {
            let event = Event::ExecExited { container: id.clone(), exec, code: 128 + libc::SIGKILL };
            self.clients.tell(&self.poller, &event);
        }
        if let Some(watch) = &container.oom {
            let _ = self.poller.forget(watch);
        }
        if let Some(output) = container.output {
            for fd in output.sources().flat_map(|(_, source)| source.watched()) {
                let _ = self.poller.forget(fd);
            }
            if let Some(log) = output.log.filter(|log| log.lost() > 0) {
                note(format_args!("{} bytes of the output of {id} were lost", log.lost()));
            }
        }
        Ok(Answer::Done)
    }
}

/// The shim's ends of a new container's standard streams, in case that it has no terminal.
struct Streams {
    log: Option<Log>,
    outputs: Option<(OwnedFd, OwnedFd)>,
    input: Option<Input>,
}

impl Streams {
    /// The shim's ends, and the container's.
    fn open(log: Option<LogSpec>, stdin: bool, stdin_once: bool) -> Result<(Self, Stdio), Fault> {
        let opening = |spec: LogSpec| {
            let path = spec.path.clone();
            Log::open(spec).map_err(|error| failed(&format!("opening the log {}", path.display()), &error))
        };
        let pipe = || io::pipe().map_err(|error| failed("making a pipe", &error));
        let mut this = Self { log: log.map(opening).transpose()?, outputs: None, input: None };
        let mut stdio = Stdio::default();
        if this.log.is_some() {
            let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe()?, pipe()?);
            this.outputs = Some((stdout.into(), stderr.into()));
            (stdio.stdout, stdio.stderr) = (Some(stdout_end.into()), Some(stderr_end.into()));
        }
        if stdin {
            let (end, to) = pipe()?;
            stdio.stdin = Some(end.into());
            this.input = Some(if stdin_once { Input::Once(to.into()) } else { Input::Shared(to.into()) });
        }
        Ok((this, stdio))
    }

    fn connect(self, terminal: Option<OwnedFd>) -> io::Result<(Option<Input>, Option<Output>)> {
        match (terminal, self.outputs) {
            (Some(master), _) => Ok((None, Some(Output::of_terminal(self.log, master)?))),
            (None, Some((stdout, stderr))) => Ok((self.input, Some(Output::of_pipes(self.log, stdout, stderr)?))),
            (None, None) => Ok((self.input, None)),
        }
    }
}
