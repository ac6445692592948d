//! What a refusal means: from a status, headers and a vendor's words to a decision, once, for everybody.
//!
//! Vendors disagree about statuses and agree about words, so both are read. A caller's mistake is told in the
//! vendor's own words, keys taken out; for everything else the words are ours, because a vendor's may show
//! what callers need not see.

use std::time::{Duration, SystemTime};

use embeddery_core::{EmbedError, ErrorKind, Fault, InputError, Retry};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{Target, retry_after};

/// A refusal as it came.
pub(super) struct Failure<'a> {
    pub target: &'a Target,
    pub status: u16,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// Inputs in the refused call.
    pub items: usize,
}

/// The error in a vendor's answer, wherever the vendor puts it.
#[derive(Debug, Default, PartialEq)]
struct ErrorBody {
    message: String,
    /// Code and type together, in lower case: vendors do not agree on which is which.
    code: String,
    details: Option<Value>,
}

impl Failure<'_> {
    pub(super) fn classify(&self) -> EmbedError {
        let complaint = ErrorBody::read(self.body);
        let words = complaint.message.to_ascii_lowercase();
        tracing::debug!(
            provider = %self.target.provider, model = %self.target.model, status = self.status,
            message = %self.redacted(&complaint.message), "the vendor refused"
        );
        match self.status {
            401 | 403 | 498 => self.unauthorized(),
            402 => self.quota_exhausted(),
            429 => self.rate_limited(&complaint, &words),
            // The size of a call is read from the words under any status: llama.cpp and Ollama say it with 500.
            _ if says_input_too_long(&complaint.code, &words) => self.input_too_long(&complaint),
            413 => self.batch_too_large(&complaint),
            400 | 422 if self.items > 1 && says_batch_too_large(&complaint.code, &words) => {
                self.batch_too_large(&complaint)
            }
            500..=599 if self.items > 1 && is_runner_crash(&words) => self.batch_too_large(&complaint),
            400..=499 if says_no_such_model(self.status, &complaint.code, &words) => self.no_such_model(),
            404 | 405 => self.wrong_address(),
            408 | 409 | 424 | 425 | 499 | 500..=599 => self.unavailable(&complaint),
            _ => self.invalid(&complaint),
        }
    }

    fn unauthorized(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::UpstreamAuth,
            Fault::Us,
            Retry::Never,
            format!(
                "{} refuses the key ({}); check {}",
                self.target.provider,
                self.status,
                self.target.keys.setting()
            ),
        )
    }

    fn rate_limited(&self, complaint: &ErrorBody, words: &str) -> EmbedError {
        let wait = self.wait(complaint);
        let never = self.headers.get("x-should-retry").is_some_and(|value| value == "false");
        if complaint.code.contains("insufficient_quota")
            || (wait.is_none() && words.contains("check your plan and billing"))
        {
            return self.quota_exhausted();
        }
        let retry = match wait {
            _ if never => Retry::Never,
            Some(wait) => Retry::After(wait),
            None => Retry::Backoff,
        };
        self.error(ErrorKind::RateLimited, retry, "asks for fewer requests; try again later")
    }

    fn wait(&self, complaint: &ErrorBody) -> Option<Duration> {
        let body = (complaint.details.as_ref(), complaint.message.as_str());
        retry_after::wait(self.headers, body, SystemTime::now())
    }

    fn quota_exhausted(&self) -> EmbedError {
        let message = format!(
            "says that the account's quota is used up; check its plan and billing, or change {}",
            self.target.keys.setting()
        );
        self.error(ErrorKind::RateLimited, Retry::Never, &message)
    }

    fn input_too_long(&self, complaint: &ErrorBody) -> EmbedError {
        let index = named_index(&complaint.message).or((self.items == 1).then_some(0));
        let inputs = index
            .filter(|index| *index < self.items)
            .map(|index| InputError { index, tokens: None })
            .into_iter()
            .collect();
        EmbedError::new(
            ErrorKind::InputTooLong,
            Fault::Caller,
            Retry::Never,
            format!("an input is longer than '{}' reads; {}", self.target.model, self.quote(complaint)),
        )
        .with_inputs(inputs)
    }

    fn batch_too_large(&self, complaint: &ErrorBody) -> EmbedError {
        EmbedError::new(
            ErrorKind::BatchTooLarge,
            Fault::Caller,
            Retry::Never,
            format!("input: too much for one call; {}", self.quote(complaint)),
        )
    }

    fn no_such_model(&self) -> EmbedError {
        EmbedError::model_not_found(format!(
            "{} knows no model '{}', or the key may not use it",
            self.target.provider, self.target.model
        ))
    }

    fn wrong_address(&self) -> EmbedError {
        self.error(
            ErrorKind::Unavailable,
            Retry::Never,
            &format!("has nothing at its configured address ({}); correct base_url or api_url", self.status),
        )
    }

    fn unavailable(&self, complaint: &ErrorBody) -> EmbedError {
        let wait = self.wait(complaint);
        self.error(
            ErrorKind::Unavailable,
            wait.map_or(Retry::Backoff, Retry::After),
            &format!("failed ({})", self.status),
        )
    }

    fn invalid(&self, complaint: &ErrorBody) -> EmbedError {
        EmbedError::invalid(self.quote(complaint))
    }

    /// An upstream fault.
    fn error(&self, kind: ErrorKind, retry: Retry, what: &str) -> EmbedError {
        EmbedError::new(kind, Fault::Upstream, retry, format!("{} {what}", self.target.provider))
    }

    fn quote(&self, complaint: &ErrorBody) -> String {
        if complaint.message.is_empty() {
            return format!("{} refused the request ({})", self.target.provider, self.status);
        }
        format!("{} says: {}", self.target.provider, self.redacted(&complaint.message))
    }

    /// A vendor's words without our keys, without whatever else looks like one, on one line, not too long.
    fn redacted(&self, text: &str) -> String {
        const MAX_MESSAGE_CHARS: usize = 300;
        let mut text = self.target.keys.redact(text);
        // A configured header may be a key as well.
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
    /// Reads `{"error":{…}}`, `{"error":"…"}`, `{"message":…}`, `{"detail":…}`, and lists of one of them.
    fn read(body: &[u8]) -> Self {
        let Ok(mut whole) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        if let Value::Array(items) = &mut whole
            && !items.is_empty()
        {
            whole = items.swap_remove(0);
        }
        let inner = if whole["error"].is_object() { &whole["error"] } else { &whole };
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
            // Pydantic's form: `[{"loc": […], "msg": "…"}]`.
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

fn any(words: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| words.contains(pattern))
}

fn says_input_too_long(code: &str, words: &str) -> bool {
    // OpenAI's limit of a whole call also speaks of tokens; its code tells them apart.
    !code.contains("max_tokens_per_request")
        && (code.contains("context_length_exceeded")
            || any(
                words,
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

fn says_batch_too_large(code: &str, words: &str) -> bool {
    any(code, &["max_tokens_per_request", "3210"])
        || any(
            words,
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

/// Ollama's runner dies of some inputs, and of the whole batch with them.
fn is_runner_crash(words: &str) -> bool {
    words == "eof" || any(words, &[": eof", "runner process has terminated", "do embedding request"])
}

fn says_no_such_model(status: u16, code: &str, words: &str) -> bool {
    any(code, &["model_not_found", "invalid_model", "deploymentnotfound", "modelnotfound"])
        || (status == 404 && any(words, &["model", "deployment"]))
        || any(words, &["invalid model", "unknown model", "is not a supported model"])
        || (words.starts_with("model ") && words.contains("is not supported"))
}

/// `input[3]`, `index 3`.
fn named_index(message: &str) -> Option<usize> {
    let rest = ["input[", "inputs[", "at index "].iter().find_map(|lead| message.split_once(lead))?.1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// The prefixes that vendors give their keys.
fn looks_like_key(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    word.len() >= 8
        && ["sk-", "al-", "pa-", "AIza", "gsk_", "hf_"].iter().any(|prefix| word.starts_with(prefix))
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
