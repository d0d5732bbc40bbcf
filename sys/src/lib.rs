//! Linux, made safe: the only crate of berth with `unsafe` in it. It knows no containers and no Kubernetes.
//!
//! | room | what it makes safe |
//! |---|---|
//! | [`file`] | atomic replacement of small files, locks |
//! | [`namespace`] | namespaces made, pinned, opened, entered |
//! | [`proc`] | what `/proc` tells about one process |
//! | [`process`] | pidfds, waiting, adoption of orphans |
//! | [`undo`] | what to take back when a set-up fails half way |
//!
//! Kernel floor: 5.15 (`mount_setattr`, `clone3` into a cgroup, `openat2`, pidfds).

pub mod file;
pub mod namespace;
pub mod proc;
pub mod process;
pub mod undo;
