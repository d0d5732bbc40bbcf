//! The conformance suite of OCI runtimes: a file per chapter of the specification.
#![forbid(unsafe_code)]

mod capabilities;
mod cgroups;
mod devices;
mod lifecycle;
mod mount_options;
mod mounts;
mod names;
mod namespaces;
mod process;
mod propagation;
mod root;
mod update;
