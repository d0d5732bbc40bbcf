//! The verbs as they are typed: output, messages, codes. Needs root. `RUNTIME=/usr/sbin/runc` holds the same tests
//! against runc, but for what its version cannot do.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the lints know only functions marked as tests"
)]

mod bundle;
mod errors;
mod exec;
mod foreground;
mod lifecycle;
mod passed;
mod show;
mod terminal;
