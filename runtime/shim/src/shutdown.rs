//! The shim's own end, when a client asks for it.

use std::time::Instant;

use berth_runtime::shim::client;
use berth_runtime::shim::protocol::{Answer, FaultKind};
use berth_sys::file;
use nix::libc;

use crate::clients::Asker;
use crate::container::{Container, Life};
use crate::fault::fault;
use crate::limits::SHUTDOWN_TIME_MAX;
use crate::note::note;
use crate::record;
use crate::sandbox;
use crate::shim::Shim;

/// The end was asked for.
#[derive(Debug)]
pub(crate) struct Ending {
    askers: Vec<Asker>,
    /// How long to wait for containers that were killed.
    pub(crate) until: Instant,
}

impl Shim {
    /// Kills every container; [`Self::try_to_end`] does the rest when they have ended.
    pub(crate) fn shut_down(&mut self, asker: Asker) {
        if let Some(ending) = &mut self.ending {
            return ending.askers.push(asker);
        }
        self.ending = Some(Ending { askers: vec![asker], until: Instant::now() + SHUTDOWN_TIME_MAX });
        let alive = |container: &Container| matches!(container.life, Life::Alive);
        if self.tool.is_none() {
            for container in self.containers.values().filter(|container| alive(container)) {
                // One that cannot be killed now is tried again by its deletion.
                let _ = self.runtime.kill(&container.id, libc::SIGKILL, true);
            }
            return;
        }
        let numbers: Vec<(u32, bool)> =
            self.containers.iter().map(|(number, container)| (*number, alive(container))).collect();
        for (number, alive) in numbers {
            if !alive {
                self.delete_if_wanted(number);
            } else if let Err(fault) = self.begin_kill(None, number, libc::SIGKILL, true) {
                note(format_args!("{}", fault.message));
            }
        }
    }

    /// Whether the end was asked for and all is done for it. What could not be removed is told, and left to whoever
    /// cleans up after dead shims.
    pub(crate) fn try_to_end(&mut self) -> bool {
        let Some(ending) = &self.ending else { return false };
        let all_ended = match self.tool {
            // By then they are deleted, too.
            Some(_) => self.containers.is_empty() && self.works.is_empty(),
            None => self.containers.values().all(|container| matches!(container.life, Life::Ended { .. })),
        };
        if !all_ended && Instant::now() < ending.until {
            return false;
        }
        let askers = self.ending.take().map(|ending| ending.askers).unwrap_or_default();
        let failures = self.clear_away();
        let result = if failures.is_empty() {
            Ok(Answer::Done)
        } else {
            Err(fault(FaultKind::Failed, format!("shutting down {}: {}", self.dir.display(), failures.join("; "))))
        };
        for asker in askers {
            self.clients.answer(&self.poller, asker, result.clone());
        }
        true
    }

    /// Removes everything but the directory itself, and tells what could not be.
    pub(crate) fn clear_away(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        let numbers: Vec<u32> = self.containers.keys().copied().collect();
        for number in numbers {
            match (&self.tool, self.containers.get(&number)) {
                (Some(_), Some(container)) => {
                    failures.push(format!("container {} could not be deleted in time", container.id));
                }
                _ => failures.extend(self.forget_container(number).err().map(|fault| fault.message)),
            }
        }
        for work in self.works.values_mut() {
            work.run.kill();
        }
        failures.extend(sandbox::unmake(&self.dir, &mut self.sandbox));
        failures.extend(client::end_cgroup(&self.spec.cgroup).err());
        failures.extend(record::remove_all(&self.dir).err().map(|error| format!("removing exit records: {error}")));
        for name in ["shim.sock", "shim.json"] {
            let removed = file::remove(&self.dir.join(name));
            failures.extend(removed.err().map(|error| format!("removing {name}: {error}")));
        }
        failures
    }
}
