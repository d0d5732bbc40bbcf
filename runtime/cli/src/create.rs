//! `create`.

use crate::Host;
use crate::args::Create;
use crate::error::Error;
use crate::launch;

/// Makes a container and leaves its first process waiting for its start.
pub(crate) fn create(host: &Host<'_>, args: &Create) -> Result<u8, Error> {
    let launch = launch::prepare(&args.launching)?;
    let mut spawned = host.runtime.create(&args.id, &args.bundle, launch)?;
    // A terminal that nobody takes ends with this process, as the option that would take it was not given.
    let announced = launch::announce(&args.launching, &mut spawned).inspect_err(|_| {
        let _ = host.runtime.delete(&args.id);
    })?;
    drop(announced);
    host.warn(&spawned.warnings);
    Ok(0)
}

impl Host<'_> {
    /// Tells what went wrong without being in the way. Only of what was done: podman takes a log with a warning and an
    /// error for none.
    pub(crate) fn warn(&self, warnings: &[String]) {
        warnings.iter().for_each(|warning| self.log.warn(warning));
    }
}
