//! The shim as its clients meet it: real namespaces, real cgroups, a static busybox. Needs root.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the lints know only functions marked as tests"
)]

mod attach;
mod chaos;
mod exec;
mod faults;
mod foreign;
mod idle;
mod lifecycle;
mod logs;
mod memory;
mod pids;
mod pod;
mod waits;
