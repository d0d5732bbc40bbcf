//! Our runtime under faults: the n-th system call of a command fails, or the command is killed there, for every n; many
//! containers come and go at once. Afterwards nothing is left.
//!
//! Other runtimes are not held to this: run it with ours alone.

mod crowd;
mod inject;
mod sweep;
