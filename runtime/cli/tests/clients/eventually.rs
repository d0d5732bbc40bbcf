//! Waiting for a condition.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long a condition may take. Generous: a loaded machine must not fail a right program.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until the answer is `Ok`, and gives it.
#[track_caller]
pub(crate) fn eventually<T, E: Display>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(refusal) if Instant::now() > end => panic!("not in time: {what}; at the last look: {refusal}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
