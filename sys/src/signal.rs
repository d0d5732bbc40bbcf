//! Signals as a new program should find them.

use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

/// The highest signal number of the kernel.
const SIGNAL_MAX: i32 = 64;

/// The kernel's `struct sigaction` on x86-64 and aarch64, which is not libc's.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// What the kernel does by itself.
const DEFAULT: Action = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };

/// Takes back what the calling process ignores and blocks, so that the program that it executes next finds every
/// signal at its default. Handlers are reset by `execve` itself.
pub fn reset() -> nix::Result<()> {
    for signal in 1..=SIGNAL_MAX {
        let mut action = DEFAULT;
        change(signal, None, Some(&mut action))?;
        if action.handler == libc::SIG_IGN {
            change(signal, Some(&DEFAULT), None)?;
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Lets this process wait for its children: where its parent ignored their ends, the kernel would reap them unseen, and
/// a wait for one would last until the last had gone (`man 2 wait`, NOTES).
pub fn heed_children() -> nix::Result<()> {
    change(libc::SIGCHLD, Some(&DEFAULT), None)
}

/// By the system call itself: libc keeps two signals to itself, which somebody may have set to be ignored all the same.
fn change(signal: i32, new: Option<&Action>, old: Option<&mut Action>) -> nix::Result<()> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let old = old.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: both are null or references to structures of the kernel's layout that outlive the call; the only action
    // ever set is the default, which runs no code.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) }).map(drop)
}
