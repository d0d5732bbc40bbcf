//! THE function: what is to be done for a pod now. Pure: no clock, no I/O, no logging, no randomness.
//!
//! ```text
//!                     ending? ── no ──▶ run ──▶ volumes, sandbox        (all at once)
//!                        │               └────▶ init ▸ restart ▸ image ▸ start   (each container)
//!                        │               └────▶ care: probes, changed images
//!                       yes
//!                        ▼
//!                    terminate ──▶ stop ▸ kill ──▶ stop the sandbox ──▶ forget and free ──▶ finished
//! ```
//!
//! Each chapter reads what there is and writes what is missing into a [`Draft`]; a draft takes an action only if its
//! task is not under way and its last failure is old enough. So a plan can be made at any time, and half-done work is
//! a state like any other.

mod action;
mod care;
mod ending;
mod init;
mod restart;
mod run;
mod terminate;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use action::{Action, Ending, Freed, Plan, Start, Stop, Task};
pub(crate) use restart::{Next, next};

use jiff::Timestamp;

use super::desired::Desired;
use super::memory::{Memory, Readiness};
use super::observe::Observed;

/// What is to be done for a pod now.
pub(crate) fn plan(desired: &Desired, observed: &Observed<'_>, now: Timestamp) -> Plan {
    let mut draft = Draft { plan: Plan::default(), memory: observed.memory, now };
    match ending::ending(desired, observed, &mut draft) {
        None => run::plan(desired, observed, &mut draft),
        Some(ending) => terminate::plan(desired, observed, ending, &mut draft),
    }
    draft.plan
}

/// Why the pod is to be ended, if it is.
pub(crate) fn ending(desired: &Desired, observed: &Observed<'_>, now: Timestamp) -> Option<Ending> {
    let mut draft = Draft { plan: Plan::default(), memory: observed.memory, now };
    ending::ending(desired, observed, &mut draft)
}

/// A plan in the making.
struct Draft<'a> {
    plan: Plan,
    memory: &'a Memory,
    now: Timestamp,
}

impl Draft<'_> {
    /// Adds an action, unless its task is under way or has failed too short a time ago: then the plan asks to be made
    /// again when it may.
    fn begin(&mut self, action: Action) {
        let readiness = action.task().map_or(Readiness::Now, |task| self.memory.ready(&task, self.now));
        match readiness {
            Readiness::Running => {}
            Readiness::At(time) => self.wake(time),
            Readiness::Now => self.plan.actions.push(action),
        }
    }

    /// Asks to be made again at a time, if not before.
    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Whether a task is under way.
    fn runs(&self, task: &Task) -> bool {
        self.memory.running.contains(task)
    }
}
