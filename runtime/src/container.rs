//! The life of a container: what the verbs do.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use berth_sys::cgroup::{Cgroup, END_DEADLINE};
use berth_sys::process::{Birth, Child, pidfd_open, pidfd_send_signal, spawn, wait, wait_for_end};
use berth_sys::undo::Undo;
use berth_sys::{proc, socket};
use nix::errno::Errno;
use oci_spec::runtime::Process;

use crate::error::Error;
use crate::init::{Init, Start};
use crate::plan::{self, CgroupPlan, Plan};
use crate::seccomp;
use crate::spec;
use crate::state::{Folder, InitRecord, Record, State, Status};
use crate::sync::{self, Message};
use crate::{Runtime, Spawned, Stdio};

/// The highest signal number.
const SIGNAL_MAX: i32 = 64;

impl Runtime {
    pub(crate) fn create_container(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Spawned, Error> {
        let folder = Folder::of(&self.root, id)?;
        let spec = spec::load(bundle)?;
        let cgroup = CgroupPlan::new(&spec, id)?;
        let filter = spec::linux(&spec)?.seccomp().as_ref().map(seccomp::filter).transpose()?;
        let mut undo = Undo::new();
        folder.make(id)?;
        undo.push(|| drop(folder.remove()));
        let mut record = Record::new(id, bundle, &cgroup);
        folder.save(&record)?;
        filter.as_ref().map(|filter| folder.save_filter(filter)).transpose()?;
        cgroup.check_unused()?;
        undo.push(|| drop(cgroup.cgroup.remove()));
        cgroup.apply()?;
        let plan = plan::init(&spec, bundle, &cgroup, filter, stdio)?;
        let socket = folder.start_socket();
        let listener = socket::listen(&socket).map_err(Error::file("listen at", &socket))?;
        let child = Conversation::begin(&plan, &cgroup.cgroup, Start::When(listener))?;
        child.expect_ready(&plan)?;
        record.note(&child, &plan)?;
        folder.save(&record)?;
        let spawned = child.keep()?;
        undo.dismiss();
        Ok(spawned)
    }

    pub(crate) fn start_container(&self, id: &str) -> Result<(), Error> {
        let folder = Folder::of(&self.root, id)?;
        let record = folder.load(id)?;
        let status = folder.status(&record);
        let wrong = |status| Error::WrongState { id: id.to_owned(), status, wanted: "created" };
        if status != Status::Created {
            return Err(wrong(status));
        }
        let path = folder.start_socket();
        let phase = "started";
        let connection = match socket::connect(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                // Somebody started it, and may have died before the socket was taken away.
                let _ = fs::remove_file(&path);
                return Err(wrong(folder.status(&record)));
            }
            other => other.map_err(Error::file("connect to", &path))?,
        };
        match sync::receive_in_time(&connection, phase)? {
            Some(Message::Going) => drop(fs::remove_file(&path)),
            // Of two who want to start it, it listens to one.
            _ if record.init.is_some_and(InitRecord::is_alive) => return Err(wrong(Status::Running)),
            _ => return Err(Error::Died { phase }),
        }
        match sync::receive_in_time(&connection, phase)? {
            Some(Message::Failed { step, errno }) => Err(record.failure(step, errno)),
            _ => Ok(()),
        }
    }

    pub(crate) fn exec_in_container(&self, id: &str, process: &Process, stdio: Stdio) -> Result<Spawned, Error> {
        let folder = Folder::of(&self.root, id)?;
        let record = folder.load(id)?;
        let status = folder.status(&record);
        let wrong = || Error::WrongState { id: id.to_owned(), status, wanted: "running" };
        let init = record.init.filter(|_| matches!(status, Status::Created | Status::Running)).ok_or_else(wrong)?;
        let pidfd = pidfd_open(init.pid).map_err(|_| wrong())?;
        // The descriptor is of the process that has the pid now: is it still the one?
        if !init.is_alive() {
            return Err(wrong());
        }
        let cgroup = record.cgroup()?;
        let plan = plan::exec(process, pidfd, folder.load_filter()?, stdio)?;
        let child = Conversation::begin(&plan, &cgroup, Start::AtOnce)?;
        child.expect_execution(&plan)
    }

    pub(crate) fn kill_container(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        if !(0..=SIGNAL_MAX).contains(&signal) {
            return Err(Error::spec("signal", format!("{signal} is none")));
        }
        let record = Folder::of(&self.root, id)?.load(id)?;
        match (all, signal) {
            (true, nix::libc::SIGKILL) => Ok(record.cgroup()?.kill()?),
            (true, _) => Ok(record.cgroup()?.signal(signal)?),
            (false, _) => record.init.map_or(Ok(()), |init| signal_init(init, signal)),
        }
    }

    pub(crate) fn delete_container(&self, id: &str) -> Result<(), Error> {
        let folder = Folder::of(&self.root, id)?;
        let record = match folder.load(id) {
            // Cut short before there was anything to remember.
            Err(Error::NotFound { .. }) => return folder.remove(),
            other => other?,
        };
        let cgroup = record.cgroup()?;
        let killed = cgroup.kill();
        let ended = record.init.map_or(Ok(()), end);
        killed?;
        ended?;
        cgroup.remove()?;
        folder.remove()
    }

    pub(crate) fn container_cgroup(&self, id: &str) -> Result<Cgroup, Error> {
        Folder::of(&self.root, id)?.load(id)?.cgroup()
    }

    pub(crate) fn container_state(&self, id: &str) -> Result<State, Error> {
        let folder = Folder::of(&self.root, id)?;
        let record = folder.load(id)?;
        Ok(State {
            status: folder.status(&record),
            id: record.id,
            pid: record.init.map_or(0, |init| init.pid),
            bundle: record.bundle,
            cgroup: record.cgroup,
            warnings: record.warnings,
        })
    }
}

/// A new process and its parent's end of their conversation. Dropped, it kills the process.
struct Conversation {
    child: Option<Child>,
    socket: std::os::fd::OwnedFd,
}

impl Conversation {
    fn begin(plan: &Plan, cgroup: &Cgroup, start: Start) -> Result<Self, Error> {
        let (ours, theirs) = socket::pair().map_err(Error::Spawn)?;
        let folder = cgroup.open_unified()?;
        let birth = Birth {
            namespaces: plan.namespaces,
            pid_namespace: plan.pid_namespace.as_ref().map(AsFd::as_fd),
            cgroup: folder.as_ref().map(AsFd::as_fd),
        };
        let init = Init::new(plan, start, theirs);
        let child = spawn(&birth, || init.run()).map_err(Error::Spawn)?;
        let this = Self { child: Some(child), socket: ours };
        this.put_into(cgroup)?;
        Ok(this)
    }

    /// Into the hierarchies that it was not born into.
    fn put_into(&self, cgroup: &Cgroup) -> Result<(), Error> {
        let Some(child) = &self.child else { return Ok(()) };
        cgroup.add(child.pid)?;
        // If it has failed meanwhile, it has said so.
        let _ = sync::send(&self.socket, Message::Joined);
        Ok(())
    }

    fn expect_ready(&self, plan: &Plan) -> Result<(), Error> {
        let phase = "set up";
        match sync::receive_in_time(&self.socket, phase)? {
            Some(Message::Ready) => Ok(()),
            Some(Message::Failed { step, errno }) => Err(plan.failure(step, errno)),
            _ => Err(Error::Died { phase }),
        }
    }

    fn expect_execution(self, plan: &Plan) -> Result<Spawned, Error> {
        let phase = "set up";
        match sync::receive_in_time(&self.socket, phase)? {
            Some(Message::Going) => {}
            Some(Message::Failed { step, errno }) => return Err(plan.failure(step, errno)),
            _ => return Err(Error::Died { phase }),
        }
        match sync::receive_in_time(&self.socket, "started")? {
            Some(Message::Failed { step, errno }) => Err(plan.failure(step, errno)),
            _ => self.release(),
        }
    }

    /// Lets the process outlive this call.
    fn keep(self) -> Result<Spawned, Error> {
        sync::send(&self.socket, Message::Keep).map_err(|_| Error::Died { phase: "set up" })?;
        self.release()
    }

    fn release(mut self) -> Result<Spawned, Error> {
        let child = self.child.take().ok_or(Error::Died { phase: "set up" })?;
        Ok(Spawned { pid: child.pid, pidfd: child.pidfd })
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            let _ = pidfd_send_signal(&child.pidfd, nix::libc::SIGKILL);
            let _ = wait(&child.pidfd);
        }
    }
}

impl Plan {
    fn failure(&self, step: u16, errno: i32) -> Error {
        failure(self.step(step).map(ToString::to_string), &self.program_name, errno)
    }
}

impl Record {
    fn new(id: &str, bundle: &Path, cgroup: &CgroupPlan) -> Self {
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            cgroup: cgroup.cgroup.path().to_owned(),
            controllers: cgroup.controllers.iter().map(|name| (*name).to_owned()).collect(),
            init: None,
            first_step: 0,
            steps: Vec::new(),
            program: String::new(),
            warnings: Vec::new(),
        }
    }

    /// Notes the init process, and what has to be known about it when it is started.
    fn note(&mut self, child: &Conversation, plan: &Plan) -> Result<(), Error> {
        let pid = child.child.as_ref().map_or(0, |child| child.pid);
        let start_time = proc::start_time(pid).map_err(|_| Error::Died { phase: "set up" })?;
        self.init = Some(InitRecord { pid, start_time });
        self.steps = plan.finish.iter().map(ToString::to_string).collect();
        self.first_step = plan.setup.len() as u16;
        self.program.clone_from(&plan.program_name);
        self.warnings.clone_from(&plan.warnings);
        Ok(())
    }

    fn failure(&self, step: u16, errno: i32) -> Error {
        let name = step.checked_sub(self.first_step).and_then(|step| self.steps.get(usize::from(step)));
        failure(name.cloned(), &self.program, errno)
    }
}

fn failure(step: Option<String>, program: &str, errno: i32) -> Error {
    match step {
        Some(step) => Error::Setup { step, source: io::Error::from_raw_os_error(errno) },
        None => Error::Exec { path: program.to_owned(), errno: Errno::from_raw(errno) },
    }
}

/// Signals the init process; success if it has ended.
fn signal_init(init: InitRecord, signal: i32) -> Result<(), Error> {
    let Ok(pidfd) = pidfd_open(init.pid) else { return Ok(()) };
    if !init.is_alive() {
        return Ok(());
    }
    match pidfd_send_signal(&pidfd, signal) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
        other => other.map_err(|source| Error::Setup { step: format!("send signal {signal}"), source }),
    }
}

/// Kills the init process and waits for its end.
fn end(init: InitRecord) -> Result<(), Error> {
    let Ok(pidfd) = pidfd_open(init.pid) else { return Ok(()) };
    if !init.is_alive() {
        return Ok(());
    }
    signal_init(init, nix::libc::SIGKILL)?;
    let ended = wait_for_end(&pidfd, END_DEADLINE.as_millis() as u16).map_err(Error::Spawn)?;
    if ended { Ok(()) } else { Err(Error::Timeout { phase: "killed", seconds: END_DEADLINE.as_secs() }) }
}
