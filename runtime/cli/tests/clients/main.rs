//! The runtime as its real callers use it: Debian's podman with conmon, and containerd with its shim, each with folders
//! of its own. Needs root. `RUNTIME=/usr/sbin/runc` holds the same tests against runc, which they have to pass: one
//! that runc fails is a wrong test.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the lints know only functions marked as tests"
)]

mod containerd;
mod ended;
mod eventually;
mod image;
mod leftovers;
mod podman;
mod pods;
mod tasks;
mod terminals;

use std::path::PathBuf;

/// The runtime under test.
fn runtime() -> PathBuf {
    std::env::var_os("RUNTIME").map_or_else(|| env!("CARGO_BIN_EXE_berth-runtime").into(), PathBuf::from)
}
