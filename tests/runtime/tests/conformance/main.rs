//! The conformance suite of OCI runtimes.
//!
//! | chapter of the specification | files |
//! |---|---|
//! | runtime.md | `lifecycle` |
//! | config.md | `root`, `mounts`, `mount_options`, `process`, `capabilities`, `terminal`, `names`, `hooks` |
//! | config-linux.md | `namespaces`, `user_namespace`, `devices`, `cgroups`, `seccomp`, `masks`, `propagation`, `kernel` |
//! | features.md | `features` |
//! | runc's command line | `command_line`, `exec`, `update` |
//! | attacks of the past | `security` |
#![forbid(unsafe_code)]

mod capabilities;
mod cgroups;
mod command_line;
mod devices;
mod exec;
mod features;
mod hooks;
mod kernel;
mod lifecycle;
mod masks;
mod mount_options;
mod mounts;
mod names;
mod namespaces;
mod process;
mod propagation;
mod root;
mod seccomp;
mod security;
mod terminal;
mod update;
mod user_namespace;
