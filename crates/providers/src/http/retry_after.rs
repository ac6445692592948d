//! How long a vendor asks to wait before a retry. Vendors report it in one of several headers, in the details of the
//! error, or only in the error message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// Maximum wait. Longer ones are parsing errors and are ignored.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long to wait, if the response says so. `Retry-After` comes first, then the error's `details` and `message`. The
/// reset time of a rate limit comes last, because it does not refer to this request.
pub(super) fn wait(
    headers: &HeaderMap,
    details: Option<&Value>,
    message: &str,
    now: SystemTime,
) -> Option<Duration> {
    let explicit = from_headers(headers, now).or_else(|| from_body(details, message));
    explicit.or_else(|| until_reset(headers, now)).filter(|wait| *wait <= MAX_RETRY_AFTER)
}

/// The headers `Retry-After-Ms` and `Retry-After`.
fn from_headers(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds =
        text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()).and_then(|ms| seconds(ms / 1000.0));
    let standard = || {
        let text = text(RETRY_AFTER.as_str())?;
        match text.parse::<f64>() {
            Ok(number) => seconds(number),
            Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
        }
    };
    milliseconds.or_else(standard)
}

/// When the exhausted rate limit resets. If none is reported as exhausted, the longest time.
fn until_reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let limits = ["requests", "tokens"].map(|unit| {
        let exhausted = text(&format!("x-ratelimit-remaining-{unit}")) == Some("0");
        (exhausted, text(&format!("x-ratelimit-reset-{unit}")).and_then(|text| reset(text, now)))
    });
    let any_exhausted = limits.iter().any(|(exhausted, reset)| *exhausted && reset.is_some());
    let relevant = limits.iter().filter(|(exhausted, _)| *exhausted || !any_exhausted);
    relevant.filter_map(|(_, reset)| *reset).max().or_else(|| reset(text("x-ratelimit-reset")?, now))
}

/// The wait in an error's details (Google's `RetryInfo`) or in its message.
fn from_body(details: Option<&Value>, message: &str) -> Option<Duration> {
    let retry_info = details
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find_map(|detail| span(detail.get("retryDelay")?.as_str()?));
    retry_info.or_else(|| from_message(message))
}

/// The wait in a message such as "Please try again in 1m30.5s", "retry in 27 seconds", "retry after 20 seconds".
fn from_message(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let rest = ["try again in ", "retry in ", "retry after ", "try again after "]
        .iter()
        .find_map(|lead| lower.split_once(lead))
        .map(|(_, rest)| rest)?;
    let mut words = rest.split_whitespace();
    let first = words.next()?.trim_end_matches(['.', ',', ';', ')']);
    if let Some(span) = span(first) {
        return Some(span);
    }
    let number: f64 = first.parse().ok()?;
    match words.next().unwrap_or("seconds") {
        unit if unit.starts_with("ms") || unit.starts_with("milli") => seconds(number / 1000.0),
        unit if unit.starts_with("min") => seconds(number * 60.0),
        unit if unit.starts_with("hour") => seconds(number * 3600.0),
        unit if unit.starts_with("sec") || unit == "s" => seconds(number),
        _ => None,
    }
}

/// The time until a rate limit resets. The header has a time span, seconds, or a Unix time in seconds or milliseconds.
pub(super) fn reset(text: &str, now: SystemTime) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(unix_time) if unix_time > 1e9 => {
            let since = seconds(if unix_time > 1e12 { unix_time / 1000.0 } else { unix_time })?;
            Some(UNIX_EPOCH.checked_add(since)?.duration_since(now).unwrap_or_default())
        }
        Ok(number) => seconds(number),
        Err(_) => span(text),
    }
}

/// A time span such as `27s`, `1m30s`, `20ms`, `1h2m3.5s`.
fn span(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    seconds(total)
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn waits(headers: &[(&'static str, &'static str)]) -> Option<f64> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        wait(&headers, None, "", now).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn all_headers_are_read_and_milliseconds_take_precedence() {
        assert_eq!(waits(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(waits(&[("retry-after", "0.5")]), Some(0.5));
        assert_eq!(waits(&[("retry-after", "9"), ("retry-after-ms", "250")]), Some(0.25));
        assert_eq!(waits(&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")]), Some(30.0));
        assert_eq!(waits(&[("retry-after", "Wed, 21 Oct 2026 07:00:00 GMT")]), Some(0.0));
        assert_eq!(waits(&[("retry-after", "-3")]), None);
        assert_eq!(waits(&[("retry-after", "soon")]), None);
        assert_eq!(waits(&[]), None);
    }

    #[test]
    fn the_exhausted_limit_takes_precedence() {
        let both = [("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-reset-tokens", "20ms")];
        assert_eq!(waits(&both), Some(360.0));
        let tokens_exhausted = [both[0], both[1], ("x-ratelimit-remaining-tokens", "0")];
        assert_eq!(waits(&tokens_exhausted), Some(0.02));
        assert_eq!(waits(&[("x-ratelimit-reset", "1792567690")]), Some(10.0));
    }

    #[test]
    fn a_message_takes_precedence_over_reset_times() {
        let headers =
            [(HeaderName::from_static("x-ratelimit-reset-tokens"), HeaderValue::from_static("6m0s"))];
        let headers = headers.into_iter().collect();
        let wait = wait(&headers, None, "Please try again in 2s.", SystemTime::now());
        assert_eq!(wait, seconds(2.0));
    }

    #[test]
    fn details_and_messages_are_read() {
        let details = json!([{"@type": "Help"}, {"@type": "…RetryInfo", "retryDelay": "27.5s"}]);
        assert_eq!(from_body(Some(&details), ""), seconds(27.5));
        let message = |text| from_body(None, text).map(|wait| wait.as_secs_f64());
        assert_eq!(message("Rate limit reached … Please try again in 1m30s. Visit …"), Some(90.0));
        assert_eq!(message("Please retry in 27.5s."), Some(27.5));
        assert_eq!(message("Please retry after 20 seconds."), Some(20.0));
        assert_eq!(message("Please try again in 150ms"), Some(0.15));
        assert_eq!(message("try again in a while"), None);
        assert_eq!(message("no hint"), None);
    }
}
