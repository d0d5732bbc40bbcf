//! Waiting for a condition.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long a condition may take. Generous: a loaded machine must not fail a right program.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`, and gives it. After [`DEADLINE`] the test fails and tells the last refusal.
#[track_caller]
pub fn eventually<T, E: Display>(what: &str, ask: impl FnMut() -> Result<T, E>) -> T {
    within(DEADLINE, what, ask)
}

/// As [`eventually`], with a deadline of the caller's.
#[track_caller]
pub fn within<T, E: Display>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(refusal) if Instant::now() > end => {
                panic!("not within {deadline:?}: {what}; at the last look: {refusal}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// `Ok` if it holds; otherwise what was found instead.
pub fn check(holds: bool, found: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(found.to_string()) }
}
