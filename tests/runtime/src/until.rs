//! Waiting for a condition.

use std::time::{Duration, Instant};

/// The longest that any test waits for anything. Generous: a loaded machine must not fail a right program.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long to pause between two looks.
pub const PAUSE: Duration = Duration::from_millis(2);

/// Waits until something is so; after [`DEADLINE`] the test fails.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "still not: {what}");
        std::thread::sleep(PAUSE);
    }
}
