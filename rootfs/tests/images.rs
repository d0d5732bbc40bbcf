//! The store against real programs, registries and filesystems. Run as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "images/import.rs"]
mod import;
#[path = "images/support.rs"]
mod support;
