//! `run`: everything from create to delete.

use berth_sys::process;

use crate::Host;
use crate::args::Run;
use crate::error::Error;
use crate::foreground::{self, Signals};
use crate::launch;
use crate::relay::Relay;

/// Runs a container and, unless detached, stays with it to its end. Returns its program's code.
pub(crate) fn run(host: &Host<'_>, args: &Run) -> Result<u8, Error> {
    // Before there is a process whose end could be missed.
    let signals = match args.create.launching.detach {
        true => None,
        false => Some(attend(args)?),
    };
    let launching = &args.create.launching;
    let launch = launch::prepare(launching)?;
    let mut relay = None;
    let spawned = host.runtime.run(&args.create.id, &args.create.bundle, launch, |spawned| {
        let terminal = launch::announce(launching, spawned)?;
        // Before the program looks at its size.
        relay = terminal.map(Relay::begin).transpose().map_err(Error::Attend)?;
        Ok::<(), Error>(())
    })?;
    host.warn(&spawned.warnings);
    let Some(signals) = signals else { return Ok(0) };
    let outcome = foreground::attend(&spawned, &signals, relay).map_err(Error::Attend);
    if !args.keep {
        match host.runtime.delete(&args.create.id) {
            Ok(warnings) => host.warn(&warnings),
            Err(error) if outcome.is_ok() => return Err(error.into()),
            // What came first counts.
            Err(_) => {}
        }
    }
    outcome
}

fn attend(args: &Run) -> Result<Signals, Error> {
    if !args.no_subreaper {
        process::set_child_subreaper().map_err(Error::Attend)?;
    }
    Signals::hold().map_err(Error::Attend)
}
