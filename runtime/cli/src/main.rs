//! `berth-runtime`: an OCI runtime that takes runc's words. All of it is in the library beside this file.
#![no_main]
#![forbid(unsafe_code)]

// A verb takes a millisecond or two, and begins twice.
berth_sys::entry!(run);

fn run() -> u8 {
    berth_runtime_cli::run(std::env::args_os())
}
