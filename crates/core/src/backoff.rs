//! Exponential backoff as pure arithmetic: the caller brings the attempt and the random number, and waits.

use std::time::Duration;

/// How long to pause before another attempt: `min`, doubled with each attempt, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The pause after the first attempt.
    pub min: Duration,
    /// The maximum pause.
    pub max: Duration,
    /// Which part of the pause is random, from 0 to 1. With 0 it is exact; with 1 it is between nothing and the doubled
    /// pause ("full jitter"), so that callers that failed together do not return together.
    pub jitter: f64,
}

impl Backoff {
    /// A backoff without jitter.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, jitter: 0.0 }
    }

    /// A backoff with full jitter.
    pub const fn with_full_jitter(min: Duration, max: Duration) -> Self {
        Self { min, max, jitter: 1.0 }
    }

    /// The longest pause after attempt `attempt`, the first of which is 0.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        self.min.saturating_mul(2_u32.saturating_pow(attempt)).min(self.max)
    }

    /// The pause after attempt `attempt`, the first of which is 0. `random` is a number from 0 to 1.
    pub fn pause(&self, attempt: u32, random: f64) -> Duration {
        self.ceiling(attempt).mul_f64(1.0 - self.jitter * (1.0 - random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let backoff = Backoff::new(SECOND, 5 * SECOND);
        assert_eq!([0, 1, 2, 3, 40, u32::MAX].map(|n| backoff.ceiling(n).as_secs()), [1, 2, 4, 5, 5, 5]);
        assert_eq!(backoff.pause(2, 0.3), 4 * SECOND, "without jitter the random number has no effect");
        assert_eq!(Backoff::new(Duration::ZERO, SECOND).ceiling(9), Duration::ZERO);
    }

    #[test]
    fn jitter_takes_from_the_pause() {
        let full = Backoff::with_full_jitter(SECOND, 60 * SECOND);
        assert_eq!([0.0, 0.25, 1.0].map(|random| full.pause(3, random).as_secs()), [0, 2, 8]);
        let half = Backoff { jitter: 0.5, ..full };
        assert_eq!([0.0, 0.5, 1.0].map(|random| half.pause(3, random).as_secs()), [4, 6, 8]);
    }
}
