//! The error table: status, code and headers of every failure behind the API, without internal details.

use std::{collections::HashSet, time::Duration};

use embeddery_core::{EmbedError, ErrorKind, Fault, InputError, Retry};
use serde_json::{Value, json};

use crate::support::{Answer, Server};

/// A kind of failure, and the expected error.
struct Row {
    kind: ErrorKind,
    fault: Fault,
    status: u16,
    code: &'static str,
    r#type: &'static str,
    param: Option<&'static str>,
}

fn row(kind: ErrorKind, fault: Fault, status: u16, code: &'static str) -> Row {
    let r#type = match status {
        429 => "rate_limit_error",
        502 | 504 => "upstream_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    Row { kind, fault, status, code, r#type, param: None }
}

impl Row {
    fn with_param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }
}

fn table() -> Vec<Row> {
    use ErrorKind as K;
    use Fault::{Caller, Upstream, Us};

    vec![
        row(K::InvalidRequest, Caller, 400, "invalid_value"),
        row(K::InputTooLong, Caller, 400, "input_too_long").with_param("input"),
        row(K::BatchTooLarge, Caller, 400, "input_too_long").with_param("input"),
        row(K::Forbidden, Caller, 403, "forbidden").with_param("model"),
        row(K::ModelNotFound, Caller, 404, "model_not_found").with_param("model"),
        row(K::Overloaded, Us, 429, "overloaded"),
        row(K::RateLimited, Upstream, 429, "upstream_rate_limited"),
        row(K::Internal, Us, 500, "internal_error"),
        row(K::UpstreamAuth, Us, 502, "upstream_unauthorized"),
        row(K::InvalidUpstreamResponse, Upstream, 502, "bad_upstream_answer"),
        row(K::ModelLoading { percent: 42 }, Us, 503, "model_loading").with_param("model"),
        row(K::ModelUnusable, Us, 503, "model_unusable").with_param("model"),
        row(K::Unavailable, Us, 503, "unavailable"),
        row(K::BreakerOpen, Upstream, 503, "breaker_open"),
        row(K::Timeout, Us, 504, "timeout"),
    ]
}

/// The response if the model fails with `failure`.
async fn answer_to(server: &Server, failure: EmbedError) -> Answer {
    *server.fake.failure.lock().unwrap() = failure;
    server.post("/v1/embeddings", &json!({"input": "a", "model": "test/failing"})).await
}

#[tokio::test]
async fn every_kind_has_its_status_code_and_type() {
    let server = Server::start().await;
    let document = serde_json::to_value(embeddery_server::openapi()).unwrap();
    let documented = &document["paths"]["/v1/embeddings"]["post"]["responses"];
    for Row { kind, fault, status, code, r#type, param } in table() {
        let failure = EmbedError::new(kind, fault, Retry::Never, "a message for the caller");
        let answer = answer_to(&server, failure).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{kind:?}: {}", answer.text);
        assert_eq!(answer.json["error"]["type"], r#type, "{kind:?}");
        assert_eq!(answer.json["error"]["param"], json!(param), "{kind:?}");
        assert_eq!(answer.header("retry-after"), "", "{kind:?}: a retry would not help");
        assert_eq!(answer.header("content-type"), "application/json");
        if kind != ErrorKind::Internal {
            assert_eq!(answer.message(), "a message for the caller", "{kind:?}");
        }
        assert!(documented.get(status.to_string()).is_some(), "{status} is not in the OpenAPI document");
    }
}

#[tokio::test]
async fn retry_after_has_the_wait_in_seconds() {
    let server = Server::start().await;
    let wait = |milliseconds| Retry::After(Duration::from_millis(milliseconds));
    for (retry, seconds) in [
        (wait(0), "1"),
        (wait(1), "1"),
        (wait(1000), "1"),
        (wait(1001), "2"),
        (wait(30_000), "30"),
        (wait(120_000), "120"),
        (wait(3_600_000), "120"),
        (Retry::After(Duration::MAX), "120"),
        (Retry::Backoff, "5"),
    ] {
        for kind in
            [ErrorKind::Overloaded, ErrorKind::RateLimited, ErrorKind::Unavailable, ErrorKind::BreakerOpen]
        {
            let answer = answer_to(&server, EmbedError::new(kind, Fault::Us, retry, "busy")).await;
            assert_eq!(answer.header("retry-after"), seconds, "{kind:?} {retry:?}");
        }
    }
    let late = answer_to(&server, EmbedError::timeout("late")).await;
    assert_eq!((late.status.as_u16(), late.header("retry-after")), (504, ""));
}

#[tokio::test]
async fn detail_has_data_for_programs() {
    let server = Server::start().await;
    let loading = ErrorKind::ModelLoading { percent: 42 };
    let retry = Retry::After(Duration::from_secs(7));
    let answer = answer_to(&server, EmbedError::new(loading, Fault::Us, retry, "the model is loading")).await;
    assert_eq!(answer.json["detail"], json!({"message": "the model is loading", "percent": 42}));
    assert_eq!(answer.header("retry-after"), "7");

    let inputs = vec![InputError { index: 0, tokens: Some(900) }, InputError { index: 7, tokens: None }];
    let answer = answer_to(&server, EmbedError::invalid("two inputs are bad").with_inputs(inputs)).await;
    assert_eq!(answer.json["detail"], json!([{"index": 0, "tokens": 900}, {"index": 7}]));

    let answer = answer_to(&server, EmbedError::invalid("plain")).await;
    assert_eq!(answer.json["detail"], "plain");
}

#[tokio::test]
async fn the_field_at_fault_is_read_from_the_message() {
    let server = Server::start().await;
    for (message, param) in [
        ("dimensions: 9 is too many", json!("dimensions")),
        ("input[3] is odd", json!("input")),
        ("model is odd", json!("model")),
        ("something else", Value::Null),
    ] {
        let answer = answer_to(&server, EmbedError::invalid(message)).await;
        assert_eq!(answer.json["error"]["param"], param, "{message}");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_with_an_error_body_and_the_server_keeps_running() {
    let server = Server::start().await;
    for _ in 0..3 {
        let answer = server.post("/v1/embeddings", &json!({"input": "a", "model": "test/panicking"})).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (500, "internal_error"), "{}", answer.text);
        assert_eq!(answer.json["error"]["type"], "server_error");
        assert!(
            !answer.text.contains("as configured"),
            "the response does not have the message of the panic: {}",
            answer.text
        );
        assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).await.status, 200);
    }
    let metrics = server.get("/metrics").await.text;
    assert!(
        metrics.contains("\nactive_embedding_requests 0\n"),
        "no request stays counted as active: {metrics}"
    );
}

#[tokio::test]
async fn internal_details_are_not_disclosed() {
    let server = Server::start().await;
    let secret = "/home/operator/models: sk-secret at src/engine.rs:7";
    let answer = answer_to(&server, EmbedError::internal(secret)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (500, "internal_error"));
    for word in ["operator", "sk-secret", "engine.rs"] {
        assert!(!answer.text.contains(word), "{}", answer.text);
        assert!(
            answer
                .headers
                .values()
                .all(|value| !value.as_bytes().windows(word.len()).any(|w| w == word.as_bytes()))
        );
    }
    let names: HashSet<_> = answer.headers.keys().map(|name| name.as_str()).collect();
    assert!(!names.contains("server") && !names.contains("x-powered-by"), "{names:?}");
}

#[tokio::test]
async fn a_deadline_that_passes_is_a_504_and_ends_the_work() {
    let server = Server::with(|settings| settings.request_timeout = Duration::from_millis(50)).await;
    let answer = server.post("/v1/embeddings", &json!({"input": "a", "model": "test/gated"})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, "timeout"), "{}", answer.text);
    server.fake.has_ended(1).await;
}
