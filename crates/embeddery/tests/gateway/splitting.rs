//! Requests over a vendor's limits, and inputs that fail without the others.

use embeddery_test_support::vendors::Behaviour;
use serde_json::{Value, json};

use crate::gateway::{Gateway, MODEL};

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text number {number}")).collect()
}

#[tokio::test]
async fn a_request_over_the_vendors_limits_is_split_and_returned_in_order() {
    let gateway = Gateway::start().await;
    for (model, count, length, calls) in [
        ("embed-v4.0", 200, 1536, 3),           // 96 items
        ("gemini-embedding-001", 250, 3072, 3), // 100 items
        ("mistral-embed", 1000, 1024, 2),       // 512 items
    ] {
        let texts = texts(count);
        let response = gateway.embed(&json!({"input": texts, "model": model})).await;
        response.assert_vectors_of_dim(&texts, length);
        assert_eq!(gateway.vendors.requests().len(), calls, "{model}");
        let mut billed = gateway.billed();
        billed.sort_by_key(|text| text.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
        assert_eq!(billed, texts, "{model}: each text once");
    }
}

#[tokio::test]
async fn a_request_is_split_by_tokens() {
    let gateway = Gateway::start().await;
    // The limit is 16,384 tokens a call, estimated as a quarter of the bytes, so at least four calls are needed.
    let texts: Vec<String> = (0..60).map(|n| format!("{n} {}", "word ".repeat(800))).collect();
    let response = gateway.embed(&json!({"input": texts, "model": "mistral-embed"})).await;
    response.assert_vectors_of_dim(&texts, 1024);
    assert!(gateway.vendors.requests().len() >= 4);
    assert_eq!(gateway.billed().len(), texts.len(), "no call was refused");
}

#[tokio::test]
async fn a_batch_that_the_vendor_refuses_as_too_large_is_bisected() {
    let gateway = Gateway::start().await;
    gateway.vendors.set_default(Some(Behaviour::TooManyTokensAbove(3)));
    let texts = texts(10);
    gateway.embed(&json!({"input": texts, "model": MODEL})).await.assert_vectors_of(&texts);
    let sizes: Vec<usize> = gateway.vendors.requests().iter().map(|request| request.texts.len()).collect();
    assert!(sizes.contains(&10) && sizes.iter().filter(|size| **size <= 3).sum::<usize>() == 10, "{sizes:?}");
    assert_eq!(gateway.breaker("openai").await, "CLOSED");
    gateway.vendors.set_default(Some(Behaviour::TooManyTokensAbove(0)));
    let alone = gateway.embed(&json!({"input": "one that is too large alone", "model": MODEL})).await;
    assert_eq!(alone.status, 400, "{}", alone.json);
}

#[tokio::test]
async fn with_on_error_partial_one_bad_input_of_two_hundred_fails_alone() {
    let gateway = Gateway::start().await;
    let texts = texts(200);
    gateway.vendors.poison(&texts[123]);
    let refused = gateway.embed(&json!({"input": texts, "model": MODEL})).await;
    assert_eq!(refused.status, 400, "{}", refused.json);
    gateway.billed();

    let response = gateway.embed(&json!({"input": texts, "model": MODEL, "on_error": "partial"})).await;
    assert_eq!(response.status, 200, "{}", response.json);
    let data = response.json["data"].as_array().unwrap();
    let failed: Vec<&Value> = data.iter().filter(|item| item["object"] == "error").collect();
    assert_eq!((failed.len(), &failed[0]["index"], failed[0].get("embedding")), (1, &json!(123), None));
    assert_eq!(failed[0]["error"]["type"], "invalid_request_error");
    assert_eq!(failed[0]["error"]["code"], "invalid_value");
    for (index, text) in texts.iter().enumerate().filter(|(index, _)| *index != 123) {
        let expected = embeddery_test_support::vendors::vector(text, crate::gateway::DIM);
        assert!((response.vector(index)[0] - expected[0]).abs() < 1e-6, "{text}");
    }
    // Bisection needs about twice the binary logarithm of the number of texts.
    let calls = gateway.vendors.requests().len();
    assert!(calls <= 18, "{calls} calls");
    assert_eq!(gateway.breaker("openai").await, "CLOSED");

    let all_bad = gateway.embed(&json!({"input": [texts[123]], "model": MODEL, "on_error": "partial"})).await;
    assert_eq!(all_bad.status, 400, "a response without any vector is an error: {}", all_bad.json);
}
