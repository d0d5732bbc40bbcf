//! The beginning and the end of a container.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_runtime::Stdio;
use berth_runtime::shim::protocol::{Event, Fault, FaultKind, LogSpec};
use berth_sys::epoll::Interest;
use jiff::Timestamp;
use nix::libc;

use crate::clients::Asker;
use crate::container::{Container, Input, Life};
use crate::control::Outcome;
use crate::fault::{failed, fault};
use crate::limits::CONTAINERS_MAX;
use crate::log::Log;
use crate::note::note;
use crate::oom;
use crate::output::Output;
use crate::record;
use crate::request::check_name;
use crate::run::{Made, Verb};
use crate::shim::Shim;
use crate::wake::Wake;
use crate::work::Goal;

impl Shim {
    /// Makes a container, which can be written to and by one only if `(stdin, stdin_once)`.
    pub(crate) fn create(
        &mut self,
        asker: Asker,
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
        self.last_container += 1;
        let number = self.last_container;
        self.containers.insert(number, Container::new(id.clone()));
        let begun = self.begin(number, Verb::Create { bundle, stdio }, Goal::Create { asker, streams });
        begun.map(|()| None).inspect_err(|_| self.drop_container(number))
    }

    /// A container was made: from here on it is watched. One that cannot be must not live: it would block sooner or later.
    pub(crate) fn establish(&mut self, number: u32, made: Made, streams: Streams) -> Result<(), Fault> {
        let Some(container) = self.containers.get(&number) else { return Ok(()) };
        let oom = oom::watch(self.cgroup(&container.id, made.pid), &container.id);
        let Some(container) = self.containers.get_mut(&number) else { return Ok(()) };
        container.pid = made.pid;
        container.created_at = Timestamp::now();
        container.life = Life::Alive;
        container.oom = oom;
        let connected = streams.connect(made.terminal).map(|(input, output)| {
            (container.input, container.output) = (input, output);
        });
        connected.and_then(|()| self.watch_container(number)).map_err(|error| failed("watching a container", &error))
    }

    fn watch_container(&self, number: u32) -> io::Result<()> {
        let Some(container) = self.containers.get(&number) else { return Ok(()) };
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

    /// Removes the exit record of a container.
    pub(crate) fn remove_record(&self, number: u32) -> Result<(), Fault> {
        let Some(container) = self.containers.get(&number) else { return Ok(()) };
        record::remove(&self.dir, &container.id).map_err(|error| failed("removing an exit record", &error))
    }

    /// Forgets a container of which nothing is left.
    pub(crate) fn drop_container(&mut self, number: u32) {
        // Whatever was left in it has ended by now: its end is told before the container is forgotten.
        self.reap();
        let Some(container) = self.containers.remove(&number) else { return };
        let id = container.id;
        for exec in container.execs.into_keys() {
            let event = Event::ExecExited { container: id.clone(), exec, code: 128 + libc::SIGKILL };
            self.clients.tell(&self.poller, &event);
        }
        if let Some(tool) = &self.tool {
            tool.forget(&id);
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
    }
}

/// The shim's ends of a new container's standard streams, in case that it has no terminal.
#[derive(Debug)]
pub(crate) struct Streams {
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
