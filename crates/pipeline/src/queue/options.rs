//! Options that hold for every queue.

use std::time::Duration;

/// The operator's options for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Maximum number of leased tasks of one tenant in a stage; `None` is unlimited.
    pub in_flight_per_tenant: Option<u32>,
    /// The queue was unavailable when no worker was heard for longer than this. It is longer than the interval between
    /// two heartbeats, and shorter than what is left of a lease at the second one.
    pub outage_threshold: Duration,
    /// Maximum number of dead letters of a stage. The oldest are removed first.
    pub dead_letters: u32,
    /// How long a dead letter is kept.
    pub dead_letter_age: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            in_flight_per_tenant: None,
            outage_threshold: Duration::from_secs(30),
            dead_letters: 10_000,
            dead_letter_age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}
