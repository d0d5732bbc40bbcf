//! The shim's own end, when a client asks for it.

use std::time::Instant;

use berth_runtime::shim::protocol::{Answer, FaultKind};
use berth_sys::file;

use crate::clients::Asker;
use crate::container::Life;
use crate::fault::fault;
use crate::limits::SHUTDOWN_TIME_MAX;
use crate::record;
use crate::sandbox;
use crate::shim::Shim;
use crate::work::Goal;

/// The end was asked for.
#[derive(Debug)]
pub(crate) struct Ending {
    askers: Vec<Asker>,
    /// How long to wait for containers that were killed.
    pub(crate) until: Instant,
}

impl Shim {
    /// Kills every container; [`Self::try_to_end`] does the rest when they have ended and are deleted.
    pub(crate) fn shut_down(&mut self, asker: Asker) {
        if let Some(ending) = &mut self.ending {
            return ending.askers.push(asker);
        }
        self.ending = Some(Ending { askers: vec![asker], until: Instant::now() + SHUTDOWN_TIME_MAX });
        let numbers: Vec<u32> = self.containers.keys().copied().collect();
        for number in numbers {
            match self.containers.get(&number).map(|container| &container.life) {
                Some(Life::Alive) => self.kill_for_good(number),
                Some(Life::Creating) => self.give_up(number, |goal| matches!(goal, Goal::Create { .. })),
                _ => self.delete_if_wanted(number),
            }
        }
    }

    /// Whether the end was asked for and all is done for it. What could not be removed is told, and left to whoever
    /// cleans up after dead shims.
    pub(crate) fn try_to_end(&mut self) -> bool {
        let Some(ending) = &self.ending else { return false };
        let all_done = self.containers.is_empty() && self.works.is_empty();
        if !all_done && Instant::now() < ending.until {
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
        self.works.values_mut().for_each(|work| work.run.be_late());
        let left = self.containers.values();
        let mut failures: Vec<String> =
            left.map(|container| format!("container {} could not be deleted in time", container.id)).collect();
        failures.extend(sandbox::unmake(&self.dir, &self.spec, &mut self.sandbox));
        failures.extend(record::remove_all(&self.dir).err().map(|error| format!("removing exit records: {error}")));
        for name in ["shim.sock", "shim.json"] {
            let removed = file::remove(&self.dir.join(name));
            failures.extend(removed.err().map(|error| format!("removing {name}: {error}")));
        }
        failures
    }
}
