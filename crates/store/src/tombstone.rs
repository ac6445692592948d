//! The order of submissions: UUIDs of version 7, which are higher the later they were made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// How long a deletion is remembered: longer than any job that was submitted before it runs.
const TOMBSTONE_TTL: Duration = Duration::from_secs(30 * 86_400);

/// Deletions before this one are forgotten.
pub(crate) fn tombstone_horizon() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = u64::try_from(now.saturating_sub(TOMBSTONE_TTL).as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(then, &[0; 10]).into_uuid()
}
