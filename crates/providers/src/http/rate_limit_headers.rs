//! The rate limits in the headers of a response.

use std::time::SystemTime;

use embeddery_core::{RateLimitInfo, RateWindow};
use reqwest::header::HeaderMap;

use super::retry_after;

/// The last part of the header names of one limit: that of OpenAI, Azure and most others, then that of Mistral.
const REQUESTS: [&str; 2] = ["requests", "req-minute"];
const TOKENS: [&str; 2] = ["tokens", "tokens-minute"];

/// The rate limits; `None` if the headers report none.
pub(super) fn parse(headers: &HeaderMap) -> Option<RateLimitInfo> {
    // Most responses have no such headers. One pass over the names is cheaper than eight lookups.
    if !headers.keys().any(|name| name.as_str().starts_with("x-ratelimit-")) {
        return None;
    }
    let now = SystemTime::now();
    let info =
        RateLimitInfo { requests: window(headers, REQUESTS, now), tokens: window(headers, TOKENS, now) };
    (info != RateLimitInfo::default()).then_some(info)
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

    fn parse(headers: &[(&'static str, &'static str)]) -> Option<RateLimitInfo> {
        super::parse(
            &headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
        )
    }

    #[test]
    fn headers_of_openai_and_mistral_are_parsed() {
        let openai = parse(&[
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
        let mistral = parse(&[("x-ratelimit-remaining-req-minute", "5")]).unwrap();
        assert_eq!(mistral.requests.remaining, Some(5));
    }

    #[test]
    fn missing_and_invalid_headers_give_none() {
        assert_eq!(parse(&[("content-type", "application/json")]), None);
        assert_eq!(parse(&[("x-ratelimit-remaining-requests", "many")]), None);
    }
}
