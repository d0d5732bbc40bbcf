//! Whether the kernel's OOM killer was at a container.

use std::error::Error;

use berth_sys::cgroup::oom::Tally;
use berth_sys::cgroup::{Cgroup, Hierarchies, Membership};

use crate::fault::chain;
use crate::note::note;

/// Watches a container's cgroup; `None` if its memory cannot be watched.
pub(crate) fn watch(cgroup: Result<Cgroup, Box<dyn Error>>, container: &str) -> Option<Tally> {
    let tally = cgroup.and_then(|cgroup| Ok(Tally::begin(cgroup)?));
    tally
        .inspect_err(|error| {
            let error = chain(error.as_ref());
            note(format_args!("the OOM killer's work in {container} cannot be watched: {error}"));
        })
        .ok()
}

/// The cgroup that a process' memory is counted in.
pub(crate) fn cgroup_of(pid: i32) -> Result<Cgroup, Box<dyn Error>> {
    let membership = Membership::of(pid)?;
    let path = membership.with("memory").or(membership.unified()).ok_or("its memory is counted nowhere")?;
    Ok(Cgroup::new(Hierarchies::of_machine()?, path, &[])?)
}
