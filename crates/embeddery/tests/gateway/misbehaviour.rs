//! For each fault of a vendor: the caller's response, the billed texts and the state of the circuit breaker.

use embeddery_test_support::vendors::{Behaviour, Vendors};
use serde_json::json;

use crate::gateway::{ApiResponse, Gateway, MODEL};

const TEXTS: [&str; 3] = ["one", "two", "three"];

async fn ask(gateway: &Gateway) -> ApiResponse {
    gateway.embed(&json!({"input": TEXTS, "model": MODEL})).await
}

async fn without_cache() -> Gateway {
    Gateway::with("", &[("EMBEDDINGS_CACHE_MAX_SIZE", "0")]).await
}

#[tokio::test]
async fn a_temporary_fault_is_retried_and_hidden_from_the_caller() {
    let gateway = without_cache().await;
    for behaviour in [
        Behaviour::Status(500),
        Behaviour::Status(503),
        Behaviour::Status(529),
        Behaviour::RateLimited(0),
        Behaviour::RateLimitedInBody(0),
        Behaviour::RateLimitedInList(0),
        Behaviour::Reset,
        Behaviour::Truncated,
        Behaviour::Html,
        Behaviour::Empty,
        Behaviour::FewerVectors,
        Behaviour::DuplicateIndex,
        Behaviour::WrongLength,
        Behaviour::MixedLengths,
        Behaviour::BrokenBase64,
    ] {
        gateway.vendors.next(behaviour.clone());
        let response = ask(&gateway).await;
        response.assert_vectors_of(&TEXTS);
        assert!(response.header("server-timing").contains("attempts: 2"), "{behaviour:?}");
        assert_eq!(gateway.billed().len(), 2 * TEXTS.len(), "{behaviour:?}: one retry");
        assert_eq!(gateway.breaker("openai").await, "CLOSED", "{behaviour:?}: a success resets the count");
    }
    // A response in another order is correct and is not retried.
    gateway.vendors.next(Behaviour::Shuffled);
    ask(&gateway).await.assert_vectors_of(&TEXTS);
    assert_eq!(gateway.billed().len(), TEXTS.len());
}

#[tokio::test]
async fn a_permanent_fault_opens_the_breaker_and_later_requests_are_not_billed() {
    for (behaviour, status, code) in [
        (Behaviour::Status(500), 503, "unavailable"),
        (Behaviour::Reset, 503, "unavailable"),
        (Behaviour::Html, 502, "bad_upstream_answer"),
        (Behaviour::FewerVectors, 502, "bad_upstream_answer"),
    ] {
        let gateway = without_cache().await;
        gateway.vendors.set_default(Some(behaviour.clone()));
        let first = ask(&gateway).await;
        assert_eq!((first.status.as_u16(), first.code()), (status, code), "{behaviour:?}: {}", first.json);
        assert_eq!(gateway.billed().len(), 4 * TEXTS.len(), "{behaviour:?}: an attempt and three retries");
        let second = ask(&gateway).await;
        assert_eq!((second.status.as_u16(), second.code()), (503, "breaker_open"), "{behaviour:?}");
        assert_eq!(gateway.billed().len(), TEXTS.len(), "{behaviour:?}: the fifth failure opens the breaker");
        assert_eq!(gateway.breaker("openai").await, "OPEN");
        let third = ask(&gateway).await;
        assert_eq!(third.code(), "breaker_open");
        let wait: u64 = third.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(gateway.billed().len(), 0);
        assert_eq!(gateway.breaker("cohere").await, "CLOSED", "each provider has its own breaker");
        let series = r#"circuit_breaker_state{service="embeddings_openai",operation="embed"}"#;
        assert_eq!(gateway.metric(series).await, Some(1.0));
        gateway.vendors.set_default(None);
        let path = "/api/v1/embeddings/circuit-breakers/openai/reset";
        assert_eq!(ApiResponse::of(gateway.request(reqwest::Method::POST, path)).await.status, 200);
        ask(&gateway).await.assert_vectors_of(&TEXTS);
        assert_eq!(gateway.breaker("openai").await, "CLOSED");
    }
}

#[tokio::test]
async fn an_error_that_a_retry_cannot_fix_is_returned_at_once() {
    let gateway = without_cache().await;
    for (behaviour, status, code) in [
        (Behaviour::Unauthorized, 502, "upstream_unauthorized"),
        (Behaviour::Status(403), 502, "upstream_unauthorized"),
        (Behaviour::QuotaExhausted, 429, "upstream_rate_limited"),
        (Behaviour::Status(400), 400, "invalid_value"),
        (Behaviour::InputTooLong, 400, "input_too_long"),
        (Behaviour::NoSuchModel, 404, "model_not_found"),
        (Behaviour::Huge, 502, "bad_upstream_answer"),
        (Behaviour::Nan, 502, "bad_upstream_answer"),
        (Behaviour::ZeroVector, 502, "bad_upstream_answer"),
    ] {
        gateway.vendors.next(behaviour.clone());
        let response = ask(&gateway).await;
        assert_eq!(
            (response.status.as_u16(), response.code()),
            (status, code),
            "{behaviour:?}: {}",
            response.json
        );
        assert!(
            !response.json.to_string().contains("key-of-OPENAI"),
            "{behaviour:?}: the response contains the key"
        );
        assert_eq!(gateway.billed().len(), TEXTS.len(), "{behaviour:?}: one attempt");
    }
    assert_eq!(gateway.breaker("openai").await, "CLOSED", "the provider is available");
    assert!(!gateway.server.log().contains("key-of-OPENAI"), "the key is in the log");
}

#[tokio::test]
async fn a_text_without_a_usable_vector_does_not_open_the_breaker_for_other_texts() {
    for behaviour in [Behaviour::Nan, Behaviour::ZeroVector] {
        let gateway = without_cache().await;
        gateway.vendors.set_default(Some(behaviour.clone()));
        for number in 0..6 {
            let response = gateway.embed(&json!({"input": "bad", "model": MODEL})).await;
            assert_eq!(response.code(), "bad_upstream_answer", "{behaviour:?} {number}: {}", response.json);
            assert_eq!(gateway.billed(), ["bad"], "{behaviour:?}: no retry");
        }
        gateway.vendors.set_default(None);
        assert_eq!(gateway.breaker("openai").await, "CLOSED", "{behaviour:?}");
        ask(&gateway).await.assert_vectors_of(&TEXTS);
    }
}

#[tokio::test]
async fn a_long_retry_after_is_passed_to_the_caller_and_blocks_later_requests() {
    let gateway = without_cache().await;
    gateway.vendors.next(Behaviour::RateLimited(100));
    for billed in [TEXTS.len(), 0] {
        let response = ask(&gateway).await;
        assert_eq!(
            (response.status.as_u16(), response.code()),
            (429, "upstream_rate_limited"),
            "{}",
            response.json
        );
        let wait: u64 = response.header("retry-after").parse().unwrap();
        assert!((90..=100).contains(&wait), "{wait}");
        assert_eq!(gateway.billed().len(), billed, "the upstream limiter blocks the second request");
    }
    assert_eq!(gateway.breaker("openai").await, "CLOSED", "a 429 shows that the provider is available");
}

#[tokio::test]
async fn an_attempt_that_hangs_times_out_and_is_retried() {
    let file = "retry: {base_delay_seconds: 0.001, attempt_timeout_seconds: 0.5, max_retries: 1}\ncache: {max_size: 0}\n";
    let gateway = Gateway::with(file, &[]).await;
    for behaviour in [Behaviour::Hang, Behaviour::Drip] {
        gateway.vendors.next(behaviour.clone());
        ask(&gateway).await.assert_vectors_of(&TEXTS);
        assert_eq!(gateway.billed().len(), 2 * TEXTS.len(), "{behaviour:?}");
    }
    gateway.vendors.set_default(Some(Behaviour::Hang));
    let response = ask(&gateway).await;
    assert_eq!((response.status.as_u16(), response.code()), (504, "timeout"), "{}", response.json);
    let failures = r#"embedding_provider_failures_total{provider="openai",model="text-embedding-3-small",reason="timeout"}"#;
    assert_eq!(gateway.metric(failures).await, Some(4.0));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let (gateway, elsewhere) = (without_cache().await, Vendors::start().await);
    gateway.vendors.next(Behaviour::Redirect(elsewhere.url()));
    let response = ask(&gateway).await;
    assert_eq!((response.status.as_u16(), response.code()), (502, "bad_upstream_answer"));
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_missing_key_is_an_error_that_names_the_variable() {
    let gateway = Gateway::with("", &[("MISTRAL_API_KEY", "")]).await;
    let response = gateway.embed(&json!({"input": "a", "model": "mistral-embed"})).await;
    assert_eq!(response.status, 503, "{}", response.json);
    assert!(response.message().contains("MISTRAL_API_KEY"), "{}", response.json);
    assert!(gateway.billed().is_empty());
}
