//! `run`: everything from create to delete.

use std::os::fd::OwnedFd;

use berth_sys::process;

use crate::Host;
use crate::args::Run;
use crate::create;
use crate::error::Error;
use crate::foreground::{self, Signals};
use crate::relay::Relay;
use berth_runtime::Spawned;

/// Runs a container and, unless detached, stays with it to its end. Returns its program's code.
pub(crate) fn run(host: &Host<'_>, args: &Run) -> Result<u8, Error> {
    // Before there is a process whose end could be missed.
    let signals = match args.create.launching.detach {
        true => None,
        false => Some(attend(args)?),
    };
    let (spawned, terminal) = create::set_up(host, &args.create)?;
    let outcome = go(host, args, &spawned, signals, terminal);
    match (&outcome, args.create.launching.detach, args.keep) {
        (Ok(_), true, _) | (_, _, true) => {}
        _ => match host.runtime.delete(&args.create.id) {
            Ok(warnings) => host.warn(&warnings),
            Err(error) if outcome.is_ok() => return Err(error.into()),
            // What came first counts.
            Err(_) => {}
        },
    }
    outcome
}

fn attend(args: &Run) -> Result<Signals, Error> {
    if !args.no_subreaper {
        process::set_child_subreaper().map_err(Error::Attend)?;
    }
    Signals::hold().map_err(Error::Attend)
}

fn go(
    host: &Host<'_>,
    args: &Run,
    spawned: &Spawned,
    signals: Option<Signals>,
    terminal: Option<OwnedFd>,
) -> Result<u8, Error> {
    // Before the program looks at its size.
    let relay = terminal.map(Relay::begin).transpose().map_err(Error::Attend)?;
    host.runtime.start(&args.create.id)?;
    match signals {
        Some(signals) => foreground::attend(spawned, &signals, relay).map_err(Error::Attend),
        None => Ok(0),
    }
}
