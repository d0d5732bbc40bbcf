//! A container's plan as far as it can be made without opening anything: whether it makes sense.

use oci_spec::runtime::Spec;

use super::users::Wanted;
use super::{cgroup, devices, entry, folder, identity, mounts, namespaces, schedule};
use crate::Settings;
use crate::error::Error;
use crate::hooks;
use crate::limits::ID_BYTES_MAX;
use crate::spec;

/// Makes every part of a plan that is words alone, and throws it away.
pub(crate) fn check(spec: &Spec, settings: Settings) -> Result<(), Error> {
    container(spec, settings)?;
    process(spec)
}

fn container(spec: &Spec, settings: Settings) -> Result<(), Error> {
    let linux = spec::linux(spec)?;
    spec::root(spec)?;
    // Whatever the container will be called, it is no longer than this.
    cgroup::path(linux.cgroups_path().as_deref(), &"x".repeat(ID_BYTES_MAX), settings)?;
    linux.resources().as_ref().map(cgroup::Content::of).transpose()?;
    let has_users = !matches!(Wanted::of(linux)?, Wanted::Machine);
    namespaces::inside(spec, linux)?;
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        entry::Entry::of(mount, number, has_users)?;
    }
    entry::label(linux)?;
    entry::paths(linux.readonly_paths(), "linux.readonlyPaths")?;
    entry::paths(linux.masked_paths(), "linux.maskedPaths")?;
    mounts::root_propagation(linux.rootfs_propagation().as_deref())?;
    devices::nodes(linux)?;
    schedule::of_container(linux)?;
    spec.hooks().as_ref().map_or(Ok(()), hooks::check)
}

fn process(spec: &Spec) -> Result<(), Error> {
    let process = spec::process(spec)?;
    folder(process)?;
    schedule::before_cgroup(process)?;
    // As if it were one more process: what does not count for the first one has to make sense all the same.
    schedule::after_cgroup(process, false)?;
    identity::limits(process)?;
    identity::program(process, Vec::new()).map(drop)
}
