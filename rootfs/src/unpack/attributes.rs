//! Who may open what: owner, mode, times and extended attributes of one unpacked thing, in the order the kernel needs.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use berth_sys::beneath::Folder;
use berth_sys::xattr;
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use super::tar::{Entry, Kind};

/// File capabilities: the one attribute of the security namespace that is an image's to give.
const CAPABILITY: &[u8] = b"security.capability";
const USER: &[u8] = b"user.";
/// What overlayfs itself writes for mounts without privilege: never an image's to give.
const OVERLAY: &[u8] = b"user.overlay.";

/// What to do, and why it failed.
type Step = (&'static str, io::Error);

/// Gives `name` all that `entry` says of it but its time. A change of owner takes set-user-ID bits and capabilities off,
/// so they come after.
pub(crate) fn apply(folder: &Folder, name: &OsStr, entry: &Entry) -> Result<(), Step> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    folder.set_owner(name, uid, gid).map_err(|error| ("set its owner", error))?;
    if entry.kind != Kind::SymbolicLink {
        folder.set_mode(name, Mode::from_bits_truncate(entry.mode)).map_err(|error| ("set its mode", error))?;
    }
    for (attribute, value) in &entry.attributes {
        set_attribute(attribute, |attribute| xattr::set(folder, name, attribute, value))?;
    }
    Ok(())
}

/// As [`apply`], with the file open, and its time too.
pub(crate) fn apply_to_file(file: &std::fs::File, entry: &Entry) -> Result<(), Step> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    nix::unistd::fchown(file, Some(uid), Some(gid)).map_err(|errno| ("set its owner", errno.into()))?;
    let mode = Mode::from_bits_truncate(entry.mode);
    nix::sys::stat::fchmod(file, mode).map_err(|errno| ("set its mode", errno.into()))?;
    for (attribute, value) in &entry.attributes {
        set_attribute(attribute, |attribute| xattr::set_file(file, attribute, value))?;
    }
    let time = time_of(entry);
    nix::sys::stat::futimens(file, &time, &time).map_err(|errno| ("set its time", errno.into()))
}

/// Gives `name` its time, for access too: images say nothing of that.
pub(crate) fn apply_time(folder: &Folder, name: &OsStr, time: TimeSpec) -> Result<(), Step> {
    folder.set_times(name, time, time).map_err(|error| ("set its time", error))
}

/// The time of an entry as the kernel has it.
pub(crate) fn time_of(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.modified.0, i64::from(entry.modified.1))
}

/// Whether an image may set an attribute: none that the kernel, a security module or overlayfs believes.
pub(crate) fn is_allowed(attribute: &[u8]) -> bool {
    attribute == CAPABILITY || (attribute.starts_with(USER) && !attribute.starts_with(OVERLAY))
}

fn set_attribute(attribute: &[u8], set: impl FnOnce(&OsStr) -> io::Result<()>) -> Result<(), Step> {
    if !is_allowed(attribute) {
        return Ok(());
    }
    match set(OsStr::from_bytes(attribute)) {
        // A user attribute is decoration: a filesystem without them, or a link that cannot bear one, is no reason to
        // refuse the image. A program that lacks its capability would fail later and less clearly.
        Err(error) if attribute != CAPABILITY && matches!(error.raw_os_error(), Some(ENOTSUP | EPERM)) => Ok(()),
        other => other.map_err(|error| ("set an extended attribute", error)),
    }
}

const ENOTSUP: i32 = nix::errno::Errno::ENOTSUP as i32;
const EPERM: i32 = nix::errno::Errno::EPERM as i32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_set_no_attribute_that_anybody_believes() {
        for good in ["user.a", "security.capability"] {
            assert!(is_allowed(good.as_bytes()), "{good}");
        }
        for bad in ["trusted.overlay.opaque", "user.overlay.opaque", "security.selinux", "system.posix_acl_access", "a"]
        {
            assert!(!is_allowed(bad.as_bytes()), "{bad}");
        }
    }
}
