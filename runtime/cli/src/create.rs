//! `create`.

use std::os::fd::OwnedFd;

use crate::Host;
use crate::args::Create;
use crate::error::Error;
use crate::launch;
use berth_runtime::Spawned;

/// Makes a container and leaves its first process waiting for its start.
pub(crate) fn create(host: &Host<'_>, args: &Create) -> Result<u8, Error> {
    set_up(host, args)?;
    Ok(0)
}

/// Makes a container; returns its first process, and its terminal if that is ours to attend. On failure nothing is
/// left.
pub(crate) fn set_up(host: &Host<'_>, args: &Create) -> Result<(Spawned, Option<OwnedFd>), Error> {
    let launch = launch::prepare(&args.launching)?;
    let mut spawned = host.runtime.create(&args.id, &args.bundle, launch)?;
    match launch::announce(&args.launching, &mut spawned) {
        Ok(terminal) => {
            host.warn_of(&args.id);
            Ok((spawned, terminal))
        }
        Err(error) => {
            let _ = host.runtime.delete(&args.id);
            Err(error)
        }
    }
}

impl Host<'_> {
    /// Tells what the container could not be granted. Told last: podman takes a log with a warning and an error for
    /// none.
    fn warn_of(&self, id: &str) {
        self.warn(&self.runtime.state(id).map(|state| state.warnings).unwrap_or_default());
    }

    /// Tells what went wrong without being in the way.
    pub(crate) fn warn(&self, warnings: &[String]) {
        warnings.iter().for_each(|warning| self.log.warn(warning));
    }
}
