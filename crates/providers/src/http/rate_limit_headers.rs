//! What an answer's headers say of the vendor's budgets.

use std::time::SystemTime;

use embeddery_core::{RateLimitInfo, RateWindow};
use reqwest::header::HeaderMap;

use super::retry_after;

/// The names of one budget's headers: OpenAI's, Azure's and most others' first, then Mistral's.
const REQUESTS: [&str; 2] = ["requests", "req-minute"];
const TOKENS: [&str; 2] = ["tokens", "tokens-minute"];

/// `None` when the headers say nothing.
pub(super) fn hint(headers: &HeaderMap) -> Option<RateLimitInfo> {
    // One look decides for the many answers that say nothing.
    if !headers.keys().any(|name| name.as_str().starts_with("x-ratelimit-")) {
        return None;
    }
    let now = SystemTime::now();
    let hint =
        RateLimitInfo { requests: window(headers, REQUESTS, now), tokens: window(headers, TOKENS, now) };
    (hint != RateLimitInfo::default()).then_some(hint)
}

fn window(headers: &HeaderMap, units: [&str; 2], now: SystemTime) -> RateWindow {
    let text = |part: &str| {
        units.iter().find_map(|unit| headers.get(format!("x-ratelimit-{part}-{unit}"))?.to_str().ok())
    };
    RateWindow {
        limit: text("limit").and_then(|text| text.trim().parse().ok()),
        remaining: text("remaining").and_then(|text| text.trim().parse().ok()),
        reset: text("reset").and_then(|text| retry_after::reset(text.trim(), now)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Option<RateLimitInfo> {
        hint(
            &headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
        )
    }

    #[test]
    fn openai_and_mistral_are_read() {
        let openai = read(&[
            ("x-ratelimit-limit-requests", "3000"),
            ("x-ratelimit-remaining-requests", "2999"),
            ("x-ratelimit-reset-requests", "20ms"),
            ("x-ratelimit-remaining-tokens", "0"),
        ])
        .unwrap();
        assert_eq!(
            openai.requests,
            RateWindow { limit: Some(3000), remaining: Some(2999), reset: Some(Duration::from_millis(20)) }
        );
        assert_eq!(openai.tokens, RateWindow { remaining: Some(0), ..RateWindow::default() });
        let mistral = read(&[("x-ratelimit-remaining-req-minute", "5")]).unwrap();
        assert_eq!(mistral.requests.remaining, Some(5));
    }

    #[test]
    fn silence_is_no_hint() {
        assert_eq!(read(&[("content-type", "application/json")]), None);
        assert_eq!(read(&[("x-ratelimit-remaining-requests", "many")]), None);
    }
}
