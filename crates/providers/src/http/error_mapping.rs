//! Maps the error responses of all vendors to [`EmbedError`]s.
//!
//! Vendors use different statuses and similar messages for the same error, so both are read. If the caller is at fault,
//! the error quotes the vendor's message without keys. All other errors have texts of our own, because a vendor's message
//! may contain details that callers must not see.

use std::time::{Duration, SystemTime};

use embeddery_core::{EmbedError, ErrorKind, Fault, InputError, Retry};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{Target, retry_after};

/// An error response.
pub(super) struct Failure<'a> {
    pub target: &'a Target,
    pub status: u16,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// The number of inputs of the call.
    pub inputs: usize,
}

/// The parsed body of an error response.
#[derive(Debug, Default, PartialEq)]
struct ErrorBody {
    message: String,
    /// The code and the type of the error, in lower case. Vendors use the two fields differently.
    code: String,
    details: Option<Value>,
}

impl Failure<'_> {
    pub(super) fn classify(&self) -> EmbedError {
        let body = ErrorBody::parse(self.body);
        let message = body.message.to_ascii_lowercase();
        tracing::debug!(
            provider = %self.target.provider, model = %self.target.model, status = self.status,
            message = %self.redacted(&body.message), "vendor returned an error"
        );
        match self.status {
            401 | 403 | 498 => self.unauthorized(),
            402 => self.quota_exhausted(),
            429 => self.rate_limited(&body, &message),
            // Messages about the size of a call count under any status: llama.cpp and Ollama send them with 500.
            _ if is_input_too_long(&body.code, &message) => self.input_too_long(&body),
            413 => self.batch_too_large(&body),
            400 | 422 if self.inputs > 1 && is_batch_too_large(&body.code, &message) => {
                self.batch_too_large(&body)
            }
            500..=599 if self.inputs > 1 && is_runner_crash(&message) => self.batch_too_large(&body),
            400..=499 if is_model_not_found(self.status, &body.code, &message) => self.model_not_found(),
            404 | 405 => self.wrong_url(),
            408 | 409 | 424 | 425 | 499 | 500..=599 => self.unavailable(&body),
            _ => self.invalid(&body),
        }
    }

    fn unauthorized(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::UpstreamAuth,
            Fault::Us,
            Retry::Never,
            format!(
                "{} refused the key ({}); check {}",
                self.target.provider,
                self.status,
                self.target.keys.setting()
            ),
        )
    }

    fn rate_limited(&self, body: &ErrorBody, message: &str) -> EmbedError {
        let wait = self.wait(body);
        let must_not_retry = self.headers.get("x-should-retry").is_some_and(|value| value == "false");
        if body.code.contains("insufficient_quota")
            || (wait.is_none() && message.contains("check your plan and billing"))
        {
            return self.quota_exhausted();
        }
        let retry = match wait {
            _ if must_not_retry => Retry::Never,
            Some(wait) => Retry::After(wait),
            None => Retry::Backoff,
        };
        self.target.rate_limit_error(retry)
    }

    fn wait(&self, body: &ErrorBody) -> Option<Duration> {
        retry_after::wait(self.headers, body.details.as_ref(), &body.message, SystemTime::now())
    }

    fn quota_exhausted(&self) -> EmbedError {
        let message = format!(
            "reports that the account's quota is exhausted; check its plan and billing, or change {}",
            self.target.keys.setting()
        );
        self.error(ErrorKind::RateLimited, Retry::Never, &message)
    }

    fn input_too_long(&self, body: &ErrorBody) -> EmbedError {
        let index = input_index(&body.message).or((self.inputs == 1).then_some(0));
        let inputs = index
            .filter(|index| *index < self.inputs)
            .map(|index| InputError { index, tokens: None })
            .into_iter()
            .collect();
        EmbedError::new(
            ErrorKind::InputTooLong,
            Fault::Caller,
            Retry::Never,
            format!("an input is longer than the limit of '{}'; {}", self.target.model, self.quote(body)),
        )
        .with_inputs(inputs)
    }

    fn batch_too_large(&self, body: &ErrorBody) -> EmbedError {
        EmbedError::new(
            ErrorKind::BatchTooLarge,
            Fault::Caller,
            Retry::Never,
            format!("input: too large for one call; {}", self.quote(body)),
        )
    }

    fn model_not_found(&self) -> EmbedError {
        EmbedError::model_not_found(format!(
            "{} has no model '{}', or the key has no access to it",
            self.target.provider, self.target.model
        ))
    }

    fn wrong_url(&self) -> EmbedError {
        self.error(
            ErrorKind::Unavailable,
            Retry::Never,
            &format!("has no API at its configured URL ({}); correct base_url or api_url", self.status),
        )
    }

    fn unavailable(&self, body: &ErrorBody) -> EmbedError {
        let wait = self.wait(body);
        self.error(
            ErrorKind::Unavailable,
            wait.map_or(Retry::Backoff, Retry::After),
            &format!("failed ({})", self.status),
        )
    }

    fn invalid(&self, body: &ErrorBody) -> EmbedError {
        EmbedError::invalid(self.quote(body))
    }

    /// An error with the vendor at fault.
    fn error(&self, kind: ErrorKind, retry: Retry, problem: &str) -> EmbedError {
        EmbedError::new(kind, Fault::Upstream, retry, format!("{} {problem}", self.target.provider))
    }

    /// The vendor's message for the caller.
    fn quote(&self, body: &ErrorBody) -> String {
        if body.message.is_empty() {
            return format!("{} refused the request ({})", self.target.provider, self.status);
        }
        format!("{} reports: {}", self.target.provider, self.redacted(&body.message))
    }

    /// A vendor's message on one line, shortened, without our keys and other words that look like keys.
    fn redacted(&self, text: &str) -> String {
        const MAX_MESSAGE_CHARS: usize = 300;
        let mut text = self.target.keys.redact(text);
        // A configured header may be a key.
        for value in self.target.headers.values().filter_map(|value| value.to_str().ok()) {
            if value.len() >= 8 && text.contains(value) {
                text = text.replace(value, "***");
            }
        }
        let words = text.split_whitespace().map(|word| if looks_like_key(word) { "***" } else { word });
        let line: String = words
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_MESSAGE_CHARS)
            .collect();
        line
    }
}

impl ErrorBody {
    /// Parses `{"error":{…}}`, `{"error":"…"}`, `{"message":…}`, `{"detail":…}`, and arrays of one of them.
    fn parse(body: &[u8]) -> Self {
        let Ok(mut json) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        if let Value::Array(items) = &mut json
            && !items.is_empty()
        {
            json = items.swap_remove(0);
        }
        let inner = if json["error"].is_object() { &json["error"] } else { &json };
        let texts = |names: &[&str]| {
            let text = |name: &&str| match &inner[*name] {
                Value::String(text) => Some(text.to_ascii_lowercase()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            };
            names.iter().filter_map(text).collect::<Vec<_>>().join(" ")
        };
        let message = ["message", "error", "detail"].iter().find_map(|name| match &inner[*name] {
            Value::String(text) => Some(text.clone()),
            // Pydantic's schema: `[{"loc": […], "msg": "…"}]`.
            Value::Array(items) => items.first()?["msg"].as_str().map(str::to_owned),
            Value::Object(object) => object.get("message")?.as_str().map(str::to_owned),
            _ => None,
        });
        Self {
            message: message.unwrap_or_default(),
            code: texts(&["code", "type", "error_type", "status"]),
            details: inner.get("details").cloned(),
        }
    }
}

fn contains_any(text: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| text.contains(pattern))
}

fn is_input_too_long(code: &str, message: &str) -> bool {
    // OpenAI's message for a whole call is similar. Its code tells the two apart.
    !code.contains("max_tokens_per_request")
        && (code.contains("context_length_exceeded")
            || contains_any(
                message,
                &[
                    "maximum context length",
                    "maximum input length",
                    "maximum model length",
                    "exceeds the context length",
                    "exceeds the available context",
                    "exceed context size",
                    "context window",
                    "input is too large to process",
                    "must have less than", // TEI
                    "too long: the total number of tokens",
                ],
            ))
}

fn is_batch_too_large(code: &str, message: &str) -> bool {
    contains_any(code, &["max_tokens_per_request", "3210"])
        || contains_any(
            message,
            &[
                "tokens per request",
                "per submitted batch",
                "too many tokens",
                "split into more batches",
                "batch size",
                "in one batch",
                "payload size exceeds",
                "array too long",
                "too many inputs",
                "total number of texts",
                "maximum number of inputs",
                "request too large",
            ],
        )
}

/// Whether Ollama's runner crashed. Some inputs crash it, and the whole batch fails with them.
fn is_runner_crash(message: &str) -> bool {
    message == "eof"
        || contains_any(message, &[": eof", "runner process has terminated", "do embedding request"])
}

fn is_model_not_found(status: u16, code: &str, message: &str) -> bool {
    contains_any(code, &["model_not_found", "invalid_model", "deploymentnotfound", "modelnotfound"])
        || (status == 404 && contains_any(message, &["model", "deployment"]))
        || contains_any(message, &["invalid model", "unknown model", "is not a supported model"])
        || (message.starts_with("model ") && message.contains("is not supported"))
}

/// The index of the input that a message names, as in `input[3]` and `at index 3`.
fn input_index(message: &str) -> Option<usize> {
    let rest = ["input[", "inputs[", "at index "].iter().find_map(|lead| message.split_once(lead))?.1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Whether a word has a prefix that vendors give their keys.
fn looks_like_key(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    word.len() >= 8
        && ["sk-", "al-", "pa-", "AIza", "gsk_", "hf_"].iter().any(|prefix| word.starts_with(prefix))
}

#[cfg(test)]
#[path = "error_mapping_tests.rs"]
mod tests;
