//! Our runtime under faults: each system call of a command fails, or the command is killed there; many containers come and
//! go at once. Afterwards nothing is left.
//!
//! | file | what it owns |
//! |---|---|
//! | `sweep` | the tests: every verb with a fault at every place |
//! | `inject` | places, and what happens there |
//! | `subject` | the containers that it happens to, and that nothing is left of them |
//! | `crowd` | many at once |
//!
//! Other runtimes are not held to this: run it with ours alone.

mod crowd;
mod inject;
mod subject;
mod sweep;
