//! Whether a server is asked for vectors as base64.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a refusal is remembered. The server may be updated meanwhile.
const REFUSAL_DURATION: Duration = Duration::from_secs(60 * 60);

/// What is known of one server.
#[derive(Default)]
pub(super) struct Base64Support {
    refused_at: Mutex<Option<Instant>>,
}

impl Base64Support {
    /// Whether a request at this time may ask for base64.
    pub(super) fn is_expected(&self, now: Instant) -> bool {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_none_or(|at| now.saturating_duration_since(at) >= REFUSAL_DURATION)
    }

    /// Remembers that the server refused base64 and then returned numbers. Returns whether that was not known.
    pub(super) fn record_refusal(&self, now: Instant) -> bool {
        let is_new = self.is_expected(now);
        *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_forgotten_after_an_hour() {
        let (support, start) = (Base64Support::default(), Instant::now());
        assert!(support.is_expected(start));
        assert!(support.record_refusal(start) && !support.record_refusal(start));
        assert!(!support.is_expected(start + REFUSAL_DURATION - Duration::from_secs(1)));
        assert!(support.is_expected(start + REFUSAL_DURATION));
        assert!(support.record_refusal(start + REFUSAL_DURATION), "an operator sees it again");
    }
}
