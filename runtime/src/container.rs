//! A container that is there: signalled, paused, looked at, deleted.

use std::fs;
use std::io;

use berth_sys::cgroup::{Cgroup, END_DEADLINE};
use berth_sys::process::{pidfd_open, pidfd_send_signal, wait_for_end};
use nix::libc::{ESRCH, SIGKILL};

use crate::Runtime;
use crate::error::{Error, chain};
use crate::state::{Folder, InitRecord, State, Status, UNDERSTAND};
use crate::systemd;

/// The highest signal number.
const SIGNAL_MAX: i32 = 64;

impl Runtime {
    pub(crate) fn kill_container(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        if !(0..=SIGNAL_MAX).contains(&signal) {
            return Err(Error::spec("signal", format!("{signal} is none")));
        }
        let record = Folder::of(&self.root, id)?.load(id)?;
        match (all, signal) {
            (true, SIGKILL) => Ok(record.cgroup()?.kill()?),
            (true, _) => Ok(record.cgroup()?.signal(signal)?),
            (false, _) => {
                record.init.map_or(Ok(()), |init| signal_init(init, signal))?;
                // On v1 the frozen do not even die.
                match record.cgroup() {
                    Ok(cgroup) if signal == SIGKILL && cgroup.is_frozen().unwrap_or(false) => Ok(cgroup.thaw()?),
                    _ => Ok(()),
                }
            }
        }
    }

    pub(crate) fn delete_container(&self, id: &str) -> Result<Vec<String>, Error> {
        let folder = Folder::of(&self.root, id)?;
        let Some(lock) = lock_to_delete(&folder, id)? else { return Ok(Vec::new()) };
        let record = match folder.load(id) {
            // Cut short before there was anything to remember.
            Err(Error::NotFound { .. }) => return folder.remove().map(|()| Vec::new()),
            other => other?,
        };
        clear(&record.cgroup()?, record.init, record.is_systemd_s)?;
        folder.remove()?;
        // Hooks may be long, and deal with a container of the same name.
        drop(lock);
        Ok(record.run_poststop(0))
    }

    pub(crate) fn delete_container_anyway(&self, id: &str) -> Result<Vec<String>, Error> {
        let folder = Folder::of(&self.root, id)?;
        match folder.load(id) {
            Err(error @ Error::File { action: UNDERSTAND, .. }) => {
                let Some(_lock) = lock_to_delete(&folder, id)? else { return Ok(Vec::new()) };
                let remains = folder.remains();
                match remains.cgroup() {
                    Some(cgroup) => clear(&cgroup, remains.init, remains.is_systemd_s)?,
                    None => remains.init.map_or(Ok(()), end)?,
                }
                folder.remove()?;
                Ok(vec![format!("{}: removed without its hooks, and what else it may have told of", chain(&error))])
            }
            _ => self.delete_container(id),
        }
    }

    pub(crate) fn pause_container(&self, id: &str) -> Result<(), Error> {
        let _lock = Folder::of(&self.root, id)?.lock(id)?;
        match self.state(id)?.status {
            Status::Created | Status::Running => Ok(self.container_cgroup(id)?.freeze()?),
            status => Err(Error::WrongState { id: id.to_owned(), status, wanted: "running" }),
        }
    }

    pub(crate) fn resume_container(&self, id: &str) -> Result<(), Error> {
        let _lock = Folder::of(&self.root, id)?.lock(id)?;
        match self.state(id)?.status {
            Status::Paused => Ok(self.container_cgroup(id)?.thaw()?),
            status => Err(Error::WrongState { id: id.to_owned(), status, wanted: "paused" }),
        }
    }

    pub(crate) fn container_cgroup(&self, id: &str) -> Result<Cgroup, Error> {
        Folder::of(&self.root, id)?.load(id)?.cgroup()
    }

    pub(crate) fn container_state(&self, id: &str) -> Result<State, Error> {
        let folder = Folder::of(&self.root, id)?;
        let record = folder.load(id)?;
        let status = folder.status(&record)?;
        Ok(State {
            status,
            id: record.id,
            pid: if status == Status::Stopped { 0 } else { record.init.map_or(0, |init| init.pid) },
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
            owner: record.owner,
            cgroup: record.cgroup,
            warnings: record.warnings,
        })
    }

    pub(crate) fn list_containers(&self) -> Result<Vec<State>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::file("list", &self.root))?,
        };
        let mut found = Vec::new();
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            // Others are gone meanwhile, or nothing of ours, or of no use: these are no worse for it.
            if let Ok(state) = self.state(&name) {
                found.push(state);
            }
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(found)
    }
}

/// Nothing if there is no container.
fn lock_to_delete(folder: &Folder, id: &str) -> Result<Option<impl Drop + use<>>, Error> {
    match folder.lock(id) {
        Err(Error::NotFound { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Ends a container's processes and takes its cgroup away.
fn clear(cgroup: &Cgroup, init: Option<InitRecord>, is_systemd_s: bool) -> Result<(), Error> {
    // What has ended by itself, as most has, needs no killing.
    let has_ended = init.is_none_or(|init| !init.is_alive());
    if !has_ended || !cgroup.remove_if_empty()? {
        let killed = cgroup.kill();
        let ended = init.map_or(Ok(()), end);
        killed?;
        ended?;
        cgroup.remove()?;
    }
    if is_systemd_s {
        systemd::forget_scope(cgroup);
    }
    Ok(())
}

/// Signals the init process; success if it has ended.
fn signal_init(init: InitRecord, signal: i32) -> Result<(), Error> {
    let Ok(pidfd) = pidfd_open(init.pid) else { return Ok(()) };
    if !init.is_alive() {
        return Ok(());
    }
    match pidfd_send_signal(&pidfd, signal) {
        Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(()),
        other => other.map_err(|source| Error::Setup { step: format!("send signal {signal}"), source }),
    }
}

/// Kills the init process and waits for its end.
fn end(init: InitRecord) -> Result<(), Error> {
    let Ok(pidfd) = pidfd_open(init.pid) else { return Ok(()) };
    if !init.is_alive() {
        return Ok(());
    }
    signal_init(init, SIGKILL)?;
    let ended = wait_for_end(&pidfd, END_DEADLINE.as_millis() as u16).map_err(Error::Spawn)?;
    if ended { Ok(()) } else { Err(Error::Timeout { phase: "killed", seconds: END_DEADLINE.as_secs() }) }
}
