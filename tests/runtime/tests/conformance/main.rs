//! The conformance suite of OCI runtimes: a file per chapter of the specification.
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
