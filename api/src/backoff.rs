//! How long to wait before the next try, as pure values.

use std::time::Duration;

/// A delay that doubles with each failure in a row, from `first` up to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Curve {
    /// The delay after the first failure.
    pub first: Duration,
    /// The longest delay.
    pub most: Duration,
}

/// A container that ends again and again (kubelet's `CrashLoopBackOff`). The first restart is at once; the second ends
/// in a row waits ten seconds.
pub const CRASH_LOOP: Curve = Curve { first: Duration::from_secs(10), most: Duration::from_secs(300) };
/// An image that cannot be pulled (kubelet's `ImagePullBackOff`).
pub const IMAGE_PULL: Curve = Curve { first: Duration::from_secs(10), most: Duration::from_secs(300) };
/// What the node itself failed to do: a sandbox, a mount, an environment.
pub const NODE_WORK: Curve = Curve { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// A container that ran this long without ending is healthy: its next restart is the first again.
pub const CRASH_LOOP_RESET: Duration = Duration::from_secs(600);

impl Curve {
    /// The delay after so many failures in a row; none after no failure.
    pub fn delay(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.checked_mul(factor).map_or(self.most, |delay| delay.min(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crash_loop_waits_10_20_40_up_to_300_seconds() {
        let delays: Vec<u64> = (0..8).map(|failures| CRASH_LOOP.delay(failures).as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn no_count_is_too_large() {
        for failures in [31, 32, 33, 64, u32::MAX] {
            assert_eq!(CRASH_LOOP.delay(failures), CRASH_LOOP.most);
        }
    }
}
