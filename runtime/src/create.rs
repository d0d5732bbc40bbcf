//! Creating a container, and letting it run.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::undo::Undo;
use berth_sys::{proc, process, socket};
use oci_spec::runtime::{Hooks, Spec};

use crate::conversation::{Conversation, Duties, failure};
use crate::error::Error;
use crate::hooks;
use crate::init::Start;
use crate::limits::ANSWER_DEADLINE;
use crate::net_device;
use crate::plan::{self, CgroupPlan, Making, Plan};
use crate::seccomp::{self, Listener};
use crate::spec;
use crate::state::{Folder, InitRecord, Record, Status};
use crate::sync::{self, Message};
use crate::systemd::StandIn;
use crate::{Launch, Runtime, Settings, Spawned};

impl Runtime {
    pub(crate) fn create_container(&self, id: &str, bundle: &Path, launch: Launch) -> Result<Spawned, Error> {
        let listen = |socket: &Path| match socket::listen(socket) {
            Ok(listener) => Ok(Start::When(listener)),
            Err(error) => Err(Error::file("listen at", socket)(error)),
        };
        self.make(id, bundle, launch, listen, |child, _| child.keep())
    }

    pub(crate) fn run_container<E: From<Error>>(
        &self,
        id: &str,
        bundle: &Path,
        launch: Launch,
        ready: impl FnOnce(&mut Spawned) -> Result<(), E>,
    ) -> Result<Spawned, E> {
        self.make(
            id,
            bundle,
            launch,
            |_| Ok(Start::WhenNoted),
            |child, record| {
                let spawned = child.let_go(ready)?;
                self.tell_started(record)?;
                Ok(spawned)
            },
        )
    }

    /// Sets a container up; `finish` decides what becomes of its first process, of which a note is made by then. On
    /// failure nothing is left.
    fn make<E: From<Error>>(
        &self,
        id: &str,
        bundle: &Path,
        launch: Launch,
        start: impl FnOnce(&Path) -> Result<Start, Error>,
        finish: impl FnOnce(Conversation<'_>, &Record) -> Result<Spawned, E>,
    ) -> Result<Spawned, E> {
        let folder = Folder::of(&self.root, id)?;
        let spec = spec::load(bundle)?;
        let cgroup = CgroupPlan::new(&spec, id, self.settings)?;
        let filter = seccomp::of_spec(&spec)?;
        // A cgroup that was there before stays.
        let is_new = !cgroup.cgroup.exists();
        let mut undo = Undo::new();
        folder.make(id)?;
        undo.push(|| drop(folder.remove()));
        let mut record = Record::new(id, bundle, &spec, (&cgroup, self.settings))?;
        folder.save(&record)?;
        filter.as_ref().map(|filter| folder.save_filter(filter)).transpose()?;
        cgroup.check_unused()?;
        undo.push(|| {
            if is_new {
                drop(cgroup.cgroup.remove())
            }
        });
        let making = plan::when_cgroup_is_made(&spec)?;
        // Until the container's own process is in the cgroup, or there is none.
        let _stand_in = match self.settings.systemd_cgroup {
            true => Some(StandIn::begin_scope(&cgroup.cgroup)?),
            false => None,
        };
        match making {
            Making::Before => cgroup.apply()?,
            Making::Meanwhile => cgroup.cgroup.make_unified().map_err(Error::from)?,
        }
        let plan = plan::init((&spec, id), (&record.bundle, &record.rootfs), (&cgroup, making), filter, launch)?;
        let mut child = Conversation::begin(&plan, &cgroup.cgroup, start(&folder.start_socket())?)?;
        if making == Making::Meanwhile {
            cgroup.apply()?;
            child.go_on();
        }
        let pid = child.pid();
        let mut maker = Maker { spec: &spec, plan: &plan, record: &record, hooks_ran: false };
        let set_up = net_device::move_all(&spec, pid).and_then(|()| child.until_ready(&mut maker));
        let hooks_ran = maker.hooks_ran;
        let made = set_up.map_err(E::from).and_then(|()| {
            record.note(pid, &plan)?;
            folder.save(&record)?;
            finish(child, &record)
        });
        match &made {
            Ok(_) => undo.dismiss(),
            // Whatever the first hooks made, these take away (runtime spec, runtime.md#lifecycle, step 13).
            Err(_) if hooks_ran => drop(record.run_poststop(pid)),
            Err(_) => {}
        }
        made
    }

    pub(crate) fn start_container(&self, id: &str) -> Result<(), Error> {
        let folder = Folder::of(&self.root, id)?;
        let record = folder.load(id)?;
        let status = folder.status(&record)?;
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
                return Err(wrong(folder.status(&record)?));
            }
            other => other.map_err(Error::file("connect to", &path))?,
        };
        match sync::receive(&connection, phase, ANSWER_DEADLINE)?.message {
            Some(Message::Going) => drop(fs::remove_file(&path)),
            // Of two who want to start it, it listens to one.
            _ if record.init.is_some_and(InitRecord::is_alive) => return Err(wrong(Status::Running)),
            _ => return Err(Error::Died { phase }),
        }
        record.await_execution(&connection, phase)?;
        self.tell_started(&record)
    }

    /// Hooks that fail now have a container to end.
    fn tell_started(&self, record: &Record) -> Result<(), Error> {
        let (Some(hooks), Some(init)) = (&record.hooks, record.init) else { return Ok(()) };
        hooks::run_here(hooks, &["poststart"], &record.told(Status::Running, init.pid)).inspect_err(|_| {
            let _ = self.kill(&record.id, nix::libc::SIGKILL, true);
        })
    }
}

/// What the maker of a container does for its init process.
struct Maker<'a> {
    spec: &'a Spec,
    plan: &'a Plan,
    record: &'a Record,
    hooks_ran: bool,
}

impl Duties for Maker<'_> {
    fn run_hooks(&mut self, pid: i32) -> Result<(), Error> {
        let Some(hooks) = self.spec.hooks() else { return Ok(()) };
        self.hooks_ran = true;
        hooks::run_here(hooks, &["prestart", "createRuntime"], &self.record.told(Status::Creating, pid))?;
        for (input, status) in self.plan.hook_inputs.iter().zip([Status::Creating, Status::Created]) {
            input.fill(&self.record.told(status, pid))?;
        }
        Ok(())
    }

    fn hand_over(&mut self, pid: i32, listener: OwnedFd) -> Result<(), Error> {
        Listener::hand_over(self.record, Status::Creating, pid, listener)
    }
}

impl Record {
    fn new(id: &str, bundle: &Path, spec: &Spec, (cgroup, settings): (&CgroupPlan, Settings)) -> Result<Self, Error> {
        let bundle = bundle.canonicalize().map_err(Error::file("find the bundle", bundle))?;
        Ok(Self {
            id: id.to_owned(),
            rootfs: spec::rootfs(spec, &bundle)?,
            bundle,
            annotations: spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
            created: jiff::Timestamp::now(),
            owner: nix::unistd::geteuid().as_raw(),
            cgroup: cgroup.cgroup.path().to_owned(),
            is_systemd_s: settings.systemd_cgroup,
            controllers: cgroup.controllers.iter().map(|name| (*name).to_owned()).collect(),
            namespaces: spec::namespace_flags(spec)?.bits(),
            curious: spec.process().as_ref().is_some_and(spec::is_curious) || spec::has_neighbours(spec),
            hooks: spec.hooks().clone().filter(|hooks| *hooks != Hooks::default()),
            listener: seccomp::listener_of(spec)?,
            init: None,
            first_step: 0,
            steps: Vec::new(),
            program: String::new(),
            warnings: Vec::new(),
        })
    }

    /// Notes the init process, and what has to be known about it when it is started.
    fn note(&mut self, pid: i32, plan: &Plan) -> Result<(), Error> {
        let start_time = proc::start_time(pid).map_err(|_| Error::Died { phase: "set up" })?;
        self.init = Some(InitRecord { pid, start_time });
        self.steps = plan.finish.iter().map(ToString::to_string).collect();
        self.first_step = plan.setup.len() as u16;
        self.program.clone_from(&plan.program_name);
        self.warnings.clone_from(&plan.warnings);
        Ok(())
    }

    /// Accompanies a process that was let go until it executes its program.
    fn await_execution(&self, connection: &OwnedFd, phase: &'static str) -> Result<(), Error> {
        let own =
            self.hooks.as_ref().map(|hooks| hooks::ready(hooks.start_container(), "startContainer")).transpose()?;
        let patience = ANSWER_DEADLINE + hooks::time_max(&own.unwrap_or_default());
        loop {
            let heard = sync::receive(connection, phase, patience)?;
            match heard.message {
                Some(Message::Listener { number }) => {
                    let pid = self.init.map_or(0, |init| init.pid);
                    let pidfd = process::pidfd_open(pid).map_err(Error::Spawn)?;
                    Listener::hand_over(self, Status::Created, pid, Listener::take(&pidfd, number)?)?;
                    let _ = sync::send(connection, Message::GoOn);
                }
                Some(Message::Failed { step, errno }) => return Err(self.failure(step, errno, heard.words)),
                _ => return Ok(()),
            }
        }
    }

    fn failure(&self, step: u16, errno: i32, story: String) -> Error {
        let name = step.checked_sub(self.first_step).and_then(|step| self.steps.get(usize::from(step)));
        failure(name.cloned(), &self.program, errno, story)
    }
}
