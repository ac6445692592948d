//! The wall clock, in the unit of all stored times.

use std::time::SystemTime;

use embeddery_core::to_ms;

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    to_ms(since)
}
