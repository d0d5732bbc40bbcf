//! A program's beginning without that of Rust's standard library, for programs that live for milliseconds: that reads the
//! process' memory map and makes a stack for signals, to tell a full stack from other faults.

use std::ffi::c_int;
use std::process;

use nix::errno::Errno;
use nix::fcntl::{OFlag, fcntl, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;

/// Makes `$run`, a function without arguments that gives the exit code, the program's beginning; the crate has `#![no_main]`.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn main(_: ::std::ffi::c_int, _: *const *const ::std::ffi::c_char) -> ::std::ffi::c_int {
            $crate::entry::begin($run)
        }
    };
}

/// What of the standard library's beginning counts: nothing that is opened later gets the number of a standard stream, and
/// a closed pipe is an error of whoever writes.
#[doc(hidden)]
#[allow(clippy::exit, reason = "this is the program's end")]
pub fn begin(run: fn() -> u8) -> c_int {
    for stream in 0..=2 {
        // SAFETY: the number is only asked for, and nothing is closed.
        let known = fcntl(unsafe { std::os::fd::BorrowedFd::borrow_raw(stream) }, nix::fcntl::FcntlArg::F_GETFD);
        if known == Err(Errno::EBADF) {
            // It gets the lowest number that is free: this one.
            let opened = open("/dev/null", OFlag::O_RDWR, Mode::empty());
            std::mem::forget(opened);
        }
    }
    // SAFETY: no handler is set, the signal is ignored.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    // Not returned from: this flushes what is still to be written.
    process::exit(run().into())
}
