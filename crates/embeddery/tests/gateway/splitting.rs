//! Requests larger than a vendor takes, and inputs that fail alone.

use embeddery_test_support::vendors::Behaviour;
use serde_json::{Value, json};

use crate::gateway::{Gateway, MODEL};

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text number {number}")).collect()
}

#[tokio::test]
async fn a_request_beyond_the_vendors_limits_comes_back_whole_and_in_order() {
    let gateway = Gateway::start().await;
    for (model, count, length, calls) in [
        ("embed-v4.0", 200, 1536, 3),           // 96 items
        ("gemini-embedding-001", 250, 3072, 3), // 100 items
        ("mistral-embed", 1000, 1024, 2),       // 512 items
    ] {
        let texts = texts(count);
        let answer = gateway.embed(&json!({"input": texts, "model": model})).await;
        answer.is_right_for_length(&texts, length);
        assert_eq!(gateway.vendors.requests().len(), calls, "{model}");
        let mut billed = gateway.billed();
        billed.sort_by_key(|text| text.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
        assert_eq!(billed, texts, "{model}: each text once");
    }
}

#[tokio::test]
async fn tokens_are_kept_within_the_limit_too() {
    let gateway = Gateway::start().await;
    // 16 384 tokens a call at a quarter of the bytes: four calls at least, whatever the estimate.
    let texts: Vec<String> = (0..60).map(|n| format!("{n} {}", "word ".repeat(800))).collect();
    let answer = gateway.embed(&json!({"input": texts, "model": "mistral-embed"})).await;
    answer.is_right_for_length(&texts, 1024);
    assert!(gateway.vendors.requests().len() >= 4);
    assert_eq!(gateway.billed().len(), texts.len(), "no call was refused");
}

#[tokio::test]
async fn a_part_that_the_vendor_finds_too_large_is_halved() {
    let gateway = Gateway::start().await;
    gateway.vendors.set_default(Some(Behaviour::TooManyTokensAbove(3)));
    let texts = texts(10);
    gateway.embed(&json!({"input": texts, "model": MODEL})).await.is_right_for(&texts);
    let sizes: Vec<usize> = gateway.vendors.requests().iter().map(|seen| seen.texts.len()).collect();
    assert!(sizes.contains(&10) && sizes.iter().filter(|size| **size <= 3).sum::<usize>() == 10, "{sizes:?}");
    assert_eq!(gateway.breaker("openai").await, "CLOSED");
    gateway.vendors.set_default(Some(Behaviour::TooManyTokensAbove(0)));
    let alone = gateway.embed(&json!({"input": "one that is too large alone", "model": MODEL})).await;
    assert_eq!(alone.status, 400, "{}", alone.json);
}

#[tokio::test]
async fn one_bad_input_in_two_hundred_fails_alone_where_that_is_asked_for() {
    let gateway = Gateway::start().await;
    let texts = texts(200);
    gateway.vendors.poison(&texts[123]);
    let refused = gateway.embed(&json!({"input": texts, "model": MODEL})).await;
    assert_eq!(refused.status, 400, "{}", refused.json);
    gateway.billed();

    let answer = gateway.embed(&json!({"input": texts, "model": MODEL, "on_error": "partial"})).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    let data = answer.json["data"].as_array().unwrap();
    let failed: Vec<&Value> = data.iter().filter(|item| item["object"] == "error").collect();
    assert_eq!((failed.len(), &failed[0]["index"], failed[0].get("embedding")), (1, &json!(123), None));
    assert_eq!(failed[0]["error"]["type"], "invalid_request_error");
    assert_eq!(failed[0]["error"]["code"], "invalid_value");
    for (index, text) in texts.iter().enumerate().filter(|(index, _)| *index != 123) {
        let due = embeddery_test_support::vendors::vector(text, crate::gateway::DIM);
        assert!((answer.vector(index)[0] - due[0]).abs() < 1e-6, "{text}");
    }
    // Halving finds it in about twice the logarithm of the number of texts.
    let calls = gateway.vendors.requests().len();
    assert!(calls <= 18, "{calls} calls");
    assert_eq!(gateway.breaker("openai").await, "CLOSED");

    let all_bad = gateway.embed(&json!({"input": [texts[123]], "model": MODEL, "on_error": "partial"})).await;
    assert_eq!(all_bad.status, 400, "an answer without a vector helps nobody: {}", all_bad.json);
}
