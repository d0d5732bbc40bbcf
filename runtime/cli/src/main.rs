//! `berth-runtime`: an OCI runtime that takes runc's words. All of it is in the library beside this file.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_runtime_cli::run(std::env::args_os())
}
