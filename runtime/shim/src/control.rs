//! What clients ask for, call by call.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_runtime::Stdio;
use berth_runtime::shim::protocol::{Answer, Call, Fault, FaultKind, LogSpec, Request};
use berth_sys::epoll::Interest;
use berth_sys::{proc, process};
use jiff::Timestamp;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::clients::Asker;
use crate::container::{Container, Life};
use crate::entry::Stream;
use crate::fault::{failed, fault, runtime_fault};
use crate::limits::{CONTAINERS_MAX, EXECS_MAX, ID_BYTES_MAX};
use crate::log::Log;
use crate::note::note;
use crate::oom::Watch;
use crate::output::{Output, Source};
use crate::record;
use crate::shim::Shim;
use crate::wake::Wake;

/// What comes back: at once, or later, from whoever finishes the work.
type Outcome = Result<Option<Answer>, Fault>;

/// The part of a request that can be read even if the rest makes no sense.
#[derive(Deserialize)]
struct Addressed {
    id: u64,
}

/// A packet that makes no sense: to which question, as far as it tells, and why.
#[derive(Debug)]
pub(crate) struct Unread {
    id: u64,
    message: String,
}

/// Reads a packet; `None` stands for one that was cut off.
pub(crate) fn read_request(packet: Option<&[u8]>) -> Result<Request, Unread> {
    let Some(packet) = packet else {
        let message = "the packet is too long or carries too many descriptors".into();
        return Err(Unread { id: 0, message });
    };
    serde_json::from_slice::<Request>(packet).map_err(|error| Unread {
        id: serde_json::from_slice::<Addressed>(packet).map_or(0, |addressed| addressed.id),
        message: format!("the packet is no request: {error}"),
    })
}

impl Shim {
    /// Does what a client asks for and answers it.
    pub(crate) fn handle_request(&mut self, client: u32, request: Result<Request, Unread>, fds: Vec<OwnedFd>) {
        let (id, outcome) = match request {
            Ok(request) => (request.id, self.call(Asker { client, id: request.id }, request.call, fds)),
            Err(Unread { id, message }) => (id, Err(fault(FaultKind::Invalid, message))),
        };
        let result = match outcome {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => return,
            Err(fault) => Err(fault),
        };
        self.clients.answer(&self.poller, Asker { client, id }, result);
    }

    fn call(&mut self, asker: Asker, call: Call, fds: Vec<OwnedFd>) -> Outcome {
        if self.ending.is_some() && !matches!(call, Call::Shutdown | Call::State) {
            return Err(fault(FaultKind::WrongState, "the shim is shutting down"));
        }
        match call {
            Call::Create { container, bundle, log } => self.create(container, &bundle, log).map(Some),
            Call::Start { container } => self.start(&container).map(Some),
            Call::Kill { container, signal, all } => self.kill(&container, signal, all).map(Some),
            Call::Delete { container } => self.delete(asker, &container),
            Call::Exec { container, exec, process } => self.exec(&container, exec, &process, fds).map(Some),
            Call::ExecKill { container, exec, signal } => self.exec_kill(&container, &exec, signal).map(Some),
            Call::ReopenLog { container } => self.reopen_log(&container).map(Some),
            Call::State => Ok(Some(self.state())),
            Call::Subscribe => {
                self.clients.subscribe(asker.client);
                Ok(Some(self.state()))
            }
            Call::Shutdown => {
                self.shut_down(asker);
                Ok(None)
            }
        }
    }

    fn create(&mut self, id: String, bundle: &Path, log: Option<LogSpec>) -> Result<Answer, Fault> {
        check_name("container id", &id)?;
        if self.find(&id).is_ok() {
            return Err(fault(FaultKind::Exists, format!("container {id} exists already")));
        }
        if self.containers.len() >= CONTAINERS_MAX {
            let message = format!("a sandbox has at most {CONTAINERS_MAX} containers: delete some that ended");
            return Err(fault(FaultKind::Failed, message));
        }
        let (output, stdio) = match log {
            Some(spec) => open_output(spec)?,
            None => (None, Stdio::default()),
        };
        let spawned =
            self.runtime.create(&id, bundle, stdio).map_err(|error| runtime_fault("creating", &id, &error))?;
        self.last_container += 1;
        let number = self.last_container;
        let oom = Watch::begin(&self.runtime, &id);
        let watched = self.watch_output(number, output.as_ref()).and_then(|()| match &oom {
            Some(watch) => self.poller.watch(watch, Interest::Read, Wake::Oom(number).token()),
            None => Ok(()),
        });
        let container = Container {
            id: id.clone(),
            pid: spawned.pid,
            created_at: Timestamp::now(),
            started_at: None,
            life: Life::Alive,
            output,
            oom,
            execs: BTreeMap::new(),
            deleters: Vec::new(),
        };
        self.containers.insert(number, container);
        if let Err(error) = watched {
            // Without an eye on its output it would block sooner or later.
            let _ = self.forget_container(number);
            return Err(failed(&format!("watching container {id}"), &error));
        }
        Ok(Answer::Created { pid: spawned.pid })
    }

    fn start(&mut self, id: &str) -> Result<Answer, Fault> {
        let number = self.find(id)?;
        let Some(container) = self.containers.get_mut(&number) else { return Err(unknown(id)) };
        if !matches!(container.life, Life::Alive) || container.started_at.is_some() {
            return Err(fault(FaultKind::WrongState, format!("container {id} was started before, or has ended")));
        }
        let at = Timestamp::now();
        self.runtime.start(id).map_err(|error| runtime_fault("starting", id, &error))?;
        container.started_at = Some(at);
        Ok(Answer::Started { at })
    }

    fn kill(&mut self, id: &str, signal: i32, all: bool) -> Result<Answer, Fault> {
        let number = self.find(id)?;
        let alive = self.containers.get(&number).is_some_and(|container| matches!(container.life, Life::Alive));
        if alive || all {
            self.runtime.kill(id, signal, all).map_err(|error| runtime_fault("signalling", id, &error))?;
        }
        Ok(Answer::Done)
    }

    /// A container that lives is killed, and its end brings the answer.
    fn delete(&mut self, asker: Asker, id: &str) -> Outcome {
        let Ok(number) = self.find(id) else {
            check_name("container id", id)?;
            record::remove(&self.dir, id).map_err(|error| failed("removing an exit record", &error))?;
            return Ok(Some(Answer::Done));
        };
        let Some(container) = self.containers.get_mut(&number) else { return Err(unknown(id)) };
        match container.life {
            Life::Ended { .. } => self.forget_container(number).map(Some),
            Life::Draining { .. } => {
                container.deleters.push(asker);
                Ok(None)
            }
            Life::Alive => {
                self.runtime.kill(id, libc::SIGKILL, true).map_err(|error| runtime_fault("killing", id, &error))?;
                container.deleters.push(asker);
                Ok(None)
            }
        }
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
            let event = berth_runtime::shim::protocol::Event::ExecExited {
                container: id.clone(),
                exec,
                code: 128 + libc::SIGKILL,
            };
            self.clients.tell(&self.poller, &event);
        }
        if let Some(watch) = &container.oom {
            let _ = self.poller.forget(watch);
        }
        if let Some(output) = container.output {
            for source in [output.stdout, output.stderr].into_iter().flatten() {
                let _ = self.poller.forget(&source.pipe);
            }
            if output.log.lost() > 0 {
                note(format_args!("{} bytes of the output of {id} were lost", output.log.lost()));
            }
        }
        Ok(Answer::Done)
    }

    fn exec(
        &mut self,
        id: &str,
        exec: String,
        process: &oci_spec::runtime::Process,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, Fault> {
        check_name("exec name", &exec)?;
        let number = self.find(id)?;
        let Some(container) = self.containers.get_mut(&number) else { return Err(unknown(id)) };
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Err(fault(FaultKind::Invalid, "an exec needs three descriptors: stdin, stdout, stderr"));
        };
        if !matches!(container.life, Life::Alive) || container.started_at.is_none() {
            return Err(fault(FaultKind::WrongState, format!("container {id} does not run")));
        }
        if container.execs.contains_key(&exec) {
            return Err(fault(FaultKind::Exists, format!("exec {exec} runs in container {id} already")));
        }
        if container.execs.len() >= EXECS_MAX {
            let message = format!("{EXECS_MAX} execs run in container {id} already");
            return Err(fault(FaultKind::Failed, message));
        }
        let stdio = Stdio { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
        let spawned =
            self.runtime.exec(id, process, stdio).map_err(|error| runtime_fault("executing in", id, &error))?;
        container.execs.insert(exec, spawned.pid);
        Ok(Answer::Executed { pid: spawned.pid })
    }

    fn exec_kill(&mut self, id: &str, exec: &str, signal: i32) -> Result<Answer, Fault> {
        let number = self.find(id)?;
        let pid = self.containers.get(&number).and_then(|container| container.execs.get(exec));
        let Some(pid) = pid else {
            return Err(fault(FaultKind::NotFound, format!("no exec {exec} runs in container {id}")));
        };
        let descendants = if signal == libc::SIGKILL { descendants(*pid) } else { Vec::new() };
        // The child is not reaped yet, so its id stands for nobody else.
        let _ = kill(Pid::from_raw(*pid), check_signal(signal)?);
        for descendant in descendants {
            descendant.kill();
        }
        Ok(Answer::Done)
    }

    fn reopen_log(&mut self, id: &str) -> Result<Answer, Fault> {
        let number = self.find(id)?;
        if let Some(output) = self.containers.get_mut(&number).and_then(|container| container.output.as_mut()) {
            output.log.reopen().map_err(|error| failed(&format!("opening the log of {id}"), &error))?;
        }
        Ok(Answer::Done)
    }

    fn state(&self) -> Answer {
        let containers = self.containers.values();
        Answer::State { containers: containers.map(|container| (container.id.clone(), container.state())).collect() }
    }

    fn find(&self, id: &str) -> Result<u32, Fault> {
        let found = self.containers.iter().find(|(_, container)| container.id == id);
        found.map(|(number, _)| *number).ok_or_else(|| unknown(id))
    }

    fn watch_output(&self, number: u32, output: Option<&Output>) -> io::Result<()> {
        let Some(output) = output else { return Ok(()) };
        for (source, stream) in [(&output.stdout, Stream::Stdout), (&output.stderr, Stream::Stderr)] {
            if let Some(source) = source {
                self.poller.watch(&source.pipe, Interest::Read, Wake::Output(number, stream).token())?;
            }
        }
        Ok(())
    }
}

/// The log and the pipes that lead to it; the writing ends are for the container.
fn open_output(spec: LogSpec) -> Result<(Option<Output>, Stdio), Fault> {
    let path = spec.path.clone();
    let log = Log::open(spec).map_err(|error| failed(&format!("opening the log {}", path.display()), &error))?;
    let pipe = || -> Result<(PipeReader, OwnedFd), Fault> {
        let (reader, writer) = io::pipe().map_err(|error| failed("making a pipe for output", &error))?;
        Ok((reader, writer.into()))
    };
    let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe()?, pipe()?);
    let source = |pipe| Source::new(pipe).map_err(|error| failed("making a pipe for output", &error));
    let output = Output { log, stdout: Some(source(stdout)?), stderr: Some(source(stderr)?) };
    Ok((Some(output), Stdio { stdin: None, stdout: Some(stdout_end), stderr: Some(stderr_end) }))
}

/// Names become names of files and of cgroups.
fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > ID_BYTES_MAX || name.starts_with('.') || !name.bytes().all(plain) {
        let rule = format!("1 to {ID_BYTES_MAX} letters, digits, `_`, `.`, `-`, and no dot at the beginning");
        return Err(fault(FaultKind::Invalid, format!("{what} {name:?}: {rule}")));
    }
    Ok(())
}

fn check_signal(signal: i32) -> Result<Signal, Fault> {
    Signal::try_from(signal).map_err(|_| fault(FaultKind::Invalid, format!("there is no signal {signal}")))
}

fn unknown(id: &str) -> Fault {
    fault(FaultKind::NotFound, format!("there is no container {id}"))
}

/// A process that somebody else will reap: its id may be given to another at any time.
struct Descendant {
    pid: i32,
    start_time: u64,
}

impl Descendant {
    /// Kills it, unless it has ended.
    fn kill(&self) {
        let Ok(pidfd) = process::pidfd_open(self.pid) else { return };
        if proc::start_time(self.pid).is_ok_and(|time| time == self.start_time) {
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
        }
    }
}

/// The children of a process, their children, and so on, as of now. An orphan has a new parent and is not found.
fn descendants(pid: i32) -> Vec<Descendant> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let families: Vec<(i32, Descendant)> = pids.filter_map(family).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(families.iter().filter(|(of, _)| *of == parent).map(|(_, child)| child.pid));
        next += 1;
    }
    families.into_iter().map(|(_, child)| child).filter(|child| found[1..].contains(&child.pid)).collect()
}

/// A process and its parent.
fn family(pid: i32) -> Option<(i32, Descendant)> {
    let stat = proc::stat(pid).ok()?;
    Some((stat.parent, Descendant { pid, start_time: stat.start_time }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_to_be_files() {
        for good in ["a", "A-1_b.c", &"x".repeat(128)] {
            assert!(check_name("id", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(check_name("id", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn grandchildren_are_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 100 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let mine = descendants(std::process::id() as i32);
        let below = descendants(child.id() as i32);
        below.iter().for_each(Descendant::kill);
        let _ = child.wait();
        let pids = |all: &[Descendant]| all.iter().map(|one| one.pid).collect::<Vec<_>>();
        let (mine, below) = (pids(&mine), pids(&below));
        assert_eq!(below.len(), 1);
        assert!(mine.contains(&(child.id() as i32)) && mine.contains(&below[0]), "{mine:?} {below:?}");
    }
}
