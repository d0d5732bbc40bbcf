//! The harness of the tests that need a whole machine.
//!
//! | room | what it gives a test |
//! |---|---|
//! | [`machine`] | a machine of its own: network, mounts, processes; gone when the test ends, however it ends |
//! | [`switch`] | a network that joins machines |
//! | [`cluster`] | berth on machines, and kubectl to talk to it |
//! | [`eventually`] | waiting for a condition, and what was last in its way |
//! | [`images`] | images made from Debian's busybox |
#![forbid(unsafe_code)]

pub mod cluster;
pub mod eventually;
pub mod images;
pub mod machine;
pub mod switch;
