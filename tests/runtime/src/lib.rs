//! A conformance suite of OCI runtimes. It drives a binary with runc's command line, and knows nothing else of it:
//!
//! ```text
//! cargo test -p berth-runtime-tests                        # berth-runtime, from the same target folder
//! RUNTIME=/usr/sbin/runc cargo test -p berth-runtime-tests # any other, as root
//! ```
//!
//! Tests are in `tests/conformance`, a file per chapter of the runtime specification. Each makes containers with state,
//! bundle, id and cgroup of their own, so that all run side by side; what it made is gone when it ends, however it ends.
//!
//! | room | what it gives a test |
//! |---|---|
//! | [`runtime`] | which binary is tested, and what it is known to lack |
//! | [`machine`] | what this machine's kernel lacks, and mounts that tests make on it |
//! | [`bundle`] | a bundle that stays, for measuring |
//! | [`call`] | one call of the binary, with a deadline |
//! | [`container`] | a container: its bundle, its life, its end |
//! | [`spec`] | the configuration that containers begin with |
//! | [`rootfs`] | their root folder: busybox, and the probe |
//! | [`report`] | what a process sees of itself; the `probe` program prints it inside containers |
//! | [`cgroup`] | a container's folders of every hierarchy, and their files |
//! | [`socket`] | the sockets on which runtimes hand over terminals and filters |
//! | [`mod@until`] | waiting for a condition |
//!
//! A skipped test says so on the error stream, in a line that begins with `SKIPPED`, with the binary and the reason.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod call;
pub mod cgroup;
pub mod container;
pub mod machine;
pub mod report;
pub mod rootfs;
pub mod runtime;
pub mod socket;
pub mod spec;
pub mod until;

pub use container::Container;
pub use runtime::lacks;
pub use until::until;
