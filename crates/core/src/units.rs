//! Durations and sizes as the numbers and texts that files, scripts and messages use.

use std::time::Duration;

/// The maximum of [`to_ms`], some 140,000 years. It is exact as a double, which Lua scripts calculate with, and a time in
/// milliseconds since 1970 plus this fits an `i64`.
const MAX_MS: u64 = 1 << 52;

/// A duration in whole milliseconds, rounded down and bounded by 2^52.
pub fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(MAX_MS, |ms| ms.min(MAX_MS))
}

/// A size in megabytes (10⁶ bytes) for messages: `91.4 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_bounded_and_exact_as_doubles() {
        assert_eq!(to_ms(Duration::from_micros(1999)), 1);
        assert_eq!(to_ms(Duration::MAX), MAX_MS);
        assert_eq!(MAX_MS as f64 as u64, MAX_MS);
    }

    #[test]
    fn megabytes_have_one_decimal() {
        assert_eq!(megabytes(91_350_000), "91.3 MB");
        assert_eq!(megabytes(0), "0.0 MB");
    }
}
