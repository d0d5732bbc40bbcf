//! One more process in a container.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::cgroup::{Cgroup, Membership, Version};
use berth_sys::process::pidfd_open;
use nix::sched::CloneFlags;
use oci_spec::runtime::Process;

use crate::conversation::{Conversation, Duties};
use crate::error::Error;
use crate::home;
use crate::init::Start;
use crate::plan::{self, Host};
use crate::seccomp::Listener;
use crate::spec;
use crate::state::{Folder, InitRecord, Record, Status};
use crate::{ExecOptions, Runtime, Spawned};

impl Runtime {
    pub(crate) fn exec_in_container(
        &self,
        id: &str,
        process: &Process,
        options: ExecOptions,
    ) -> Result<Spawned, Error> {
        let folder = Folder::of(&self.root, id)?;
        let mut record = folder.load(id)?;
        let status = folder.status(&record)?;
        let wrong = || Error::WrongState { id: id.to_owned(), status, wanted: "running" };
        let can = match status {
            Status::Created | Status::Running => true,
            Status::Paused => options.even_if_paused,
            Status::Creating | Status::Stopped => false,
        };
        let init = record.init.filter(|_| can).ok_or_else(wrong)?;
        let pidfd = pidfd_open(init.pid).map_err(|_| wrong())?;
        // The descriptor is of the process that has the pid now: is it still the one?
        if !init.is_alive() {
            return Err(wrong());
        }
        let cgroup = match &options.sub_cgroup {
            Some(path) => below(&record.cgroup()?, path)?,
            None => record.cgroup_of_init(init)?,
        };
        let kinds = CloneFlags::from_bits_truncate(record.namespaces) | CloneFlags::CLONE_NEWNS;
        record.note_curiosity(&folder, process)?;
        let host = Host {
            init: pidfd,
            kinds,
            curious: record.curious,
            cgroup: &cgroup,
            filter: folder.load_filter()?,
            home: home::in_container(process, init.pid),
        };
        let plan = plan::exec(process, host, options.launch)?;
        let child = Conversation::begin(&plan, &cgroup, Start::AtOnce)?;
        child.until_executed(&mut Guest(&record))
    }
}

/// A cgroup below a container's, in some hierarchies or in all.
fn below(cgroup: &Cgroup, text: &Path) -> Result<Cgroup, Error> {
    let text = text.to_string_lossy();
    let (controllers, path) = match text.split_once(':') {
        Some((controllers, path)) => (controllers.split(',').collect(), path),
        None => (Vec::new(), &*text),
    };
    Ok(cgroup.below(Path::new(path.trim_start_matches('/')), &controllers)?)
}

/// What the maker of one more process does for it.
struct Guest<'a>(&'a Record);

impl Duties for Guest<'_> {
    fn run_hooks(&mut self, _: i32) -> Result<(), Error> {
        Ok(())
    }

    fn hand_over(&mut self, pid: i32, listener: OwnedFd) -> Result<(), Error> {
        Listener::hand_over(self.0, Status::Running, pid, listener)
    }
}

impl Record {
    /// From now on somebody in the container may look into those that join it.
    fn note_curiosity(&mut self, folder: &Folder, process: &Process) -> Result<(), Error> {
        if self.curious || !spec::is_curious(process) {
            return Ok(());
        }
        let _lock = folder.lock(&self.id)?;
        *self = folder.load(&self.id)?;
        self.curious = true;
        folder.save(self)
    }

    /// Where the init process is: in the container's cgroup, or on v2 in one of its own making below, when the
    /// container's own holds no processes any more.
    fn cgroup_of_init(&self, init: InitRecord) -> Result<Cgroup, Error> {
        let cgroup = self.cgroup()?;
        if cgroup.folders().any(|(_, _, version)| version == Version::V1) {
            return Ok(cgroup);
        }
        let membership = Membership::of(init.pid)?;
        let below = membership.unified().and_then(|own| own.strip_prefix(&self.cgroup).ok());
        match below.filter(|below| below.components().next().is_some()) {
            Some(below) => Ok(cgroup.below(below, &[])?),
            None => Ok(cgroup),
        }
    }
}
