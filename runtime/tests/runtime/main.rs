//! Containers of the real kernel, with a busybox as their root file system. Run as root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod files;
mod identity;
mod lifecycle;
mod limits;
mod namespaces;
mod support;
