//! Who the calling thread is: capability sets, user and groups.
//!
//! Names and bit numbers are the `caps` crate's. Setting them is done here, by bare system calls: a child between
//! `clone3` and `execve` must not allocate, and libc's own `setgroups` and `setresuid` signal every thread of the
//! parent that the child does not have.

use std::str::FromStr;

use caps::{CapSet, Capability};
use nix::errno::Errno;

/// A set of capabilities, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// The capability of this name, `CAP_CHOWN` or so.
    pub fn named(name: &str) -> Option<Self> {
        Capability::from_str(name).ok().map(|capability| Self(capability.bitmask()))
    }

    /// What is in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is here but not in the other.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of what is in it.
    pub fn names(self) -> Vec<String> {
        let mut known: Vec<Capability> =
            caps::all().into_iter().filter(|capability| capability.bitmask() & self.0 != 0).collect();
        known.sort_unstable_by_key(Capability::index);
        known.iter().map(ToString::to_string).collect()
    }
}

/// The bounding set of the calling thread: nothing beyond it can be had again.
pub fn bounding() -> std::io::Result<Set> {
    let known = caps::read(None, CapSet::Bounding).map_err(std::io::Error::other)?;
    Ok(known.iter().fold(Set::default(), |set, capability| set.or(Set(capability.bitmask()))))
}

/// Drops these from the bounding set, for good.
pub fn drop_bounding(set: Set) -> nix::Result<()> {
    bits(set).try_for_each(|bit| prctl(libc::PR_CAPBSET_DROP, bit.into(), 0))
}

/// Makes the next change of the user id keep the permitted set.
pub fn keep_across_ids() -> nix::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)
}

/// Sets the effective, permitted and inheritable sets at once.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> nix::Result<()> {
    /// `struct __user_cap_header_struct`, linux/capability.h.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `struct __user_cap_data_struct`: version 3 takes two, the low and the high half.
    #[repr(C)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let half = |shift: u32| Half {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: (inheritable.0 >> shift) as u32,
    };
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: both structures are laid out as the kernel's, have the length that version 3 demands, and outlive the
    // call; pid 0 is the calling thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Makes the ambient set exactly this one; each must be permitted and inheritable.
pub fn set_ambient(set: Set) -> nix::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    bits(set).try_for_each(|bit| prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, bit.into()))
}

/// Replaces the supplementary groups of the calling thread.
pub fn set_groups(groups: &[u32]) -> nix::Result<()> {
    // SAFETY: the slice is valid for the length given; the kernel only reads it.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets the real, effective and saved user and group of the calling thread, the group first.
pub fn set_ids(user: u32, group: u32) -> nix::Result<()> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) })?;
    // SAFETY: integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) }).map(drop)
}

fn bits(set: Set) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| set.0 >> bit & 1 == 1)
}

fn prctl(option: i32, second: u64, third: u64) -> nix::Result<()> {
    // SAFETY: only the options named above are passed, and they take integers.
    Errno::result(unsafe { libc::prctl(option, second, third, 0_u64, 0_u64) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_are_the_kernel_s() {
        assert_eq!(Set::named("CAP_CHOWN"), Some(Set(1)));
        assert_eq!(Set::named("CAP_SYS_ADMIN"), Some(Set(1 << 21)));
        assert_eq!(Set::named("CAP_NONSENSE"), None);
        assert_eq!(Set(1 | 1 << 21).names(), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
    }
}
