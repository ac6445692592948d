//! Retention of tombstones. Submissions are ordered by their ids: UUIDs of version 7, which grow with time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// How long a tombstone is kept. No job that was submitted before the deletion may still be running by then.
const TOMBSTONE_TTL: Duration = Duration::from_secs(30 * 86_400);

/// Submission id below which tombstones have expired.
pub(crate) fn tombstone_horizon() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let horizon_ms = u64::try_from(now.saturating_sub(TOMBSTONE_TTL).as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(horizon_ms, &[0; 10]).into_uuid()
}
