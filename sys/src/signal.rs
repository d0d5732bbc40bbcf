//! Signals as a new program should find them.

use std::{mem, ptr};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

/// Takes back what the calling process ignores and blocks, so that the program that it executes next finds every
/// signal at its default. Handlers are reset by `execve` itself.
pub fn reset() -> nix::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        let mut action = mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the structure is large enough and valid when zeroed. The numbers that libc keeps for itself and
        // those that cannot be changed are refused, which is what we want.
        let ignored = unsafe {
            libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init_ref().sa_sigaction == libc::SIG_IGN
        };
        if ignored {
            // SAFETY: the default action runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}
