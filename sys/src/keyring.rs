//! Session keyrings (keyrings(7)): a container that shared its maker's could read its keys.

use std::ffi::CStr;

use nix::errno::Errno;

/// Gives the calling process a new session keyring of this name. Allocates nothing. A kernel without keyrings is
/// `ENOSYS`.
pub fn join_new_session(name: &CStr) -> nix::Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: the string is terminated and outlives the call, which only reads it.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}
