//! Responses to valid requests for embeddings.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_core::{DimensionPolicy, Truncate};
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, DIM, MAX_TOKENS, PLAIN, Server, vector};

const PATHS: [&str; 2] = ["/api/v1/embeddings", "/v1/embeddings"];

#[tokio::test]
async fn both_paths_return_the_vector_of_a_text() {
    let server = Server::start().await;
    for path in PATHS {
        let answer = server.post(path, &json!({"input": "two words"})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.vectors(), [vector("two words", true)]);
        let mut rest = answer.json.clone();
        rest["data"][0]["embedding"] = json!("checked above");
        assert_eq!(
            rest,
            json!({
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": "checked above"}],
                "model": "small",
                "usage": {"prompt_tokens": 4, "total_tokens": 4},
            })
        );
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-embeddings-model"), PLAIN);
        assert_eq!(answer.header("x-embeddings-provider"), "huggingface");
        assert_eq!(answer.header("x-embeddings-space"), "test-space");
        assert!(answer.header("server-timing").contains("embed;dur="));
        for absent in ["x-embeddings-truncated", "x-embeddings-dimensions-policy"] {
            assert_eq!(answer.header(absent), "", "{absent}");
        }
    }
}

#[tokio::test]
async fn texts_keep_their_order_and_tokens_add_up() {
    let server = Server::start().await;
    let texts: Vec<String> = (0..2048).map(|i| format!("text {i}")).collect();
    let answer = server.post("/v1/embeddings", &json!({"input": texts})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let expected: Vec<_> = texts.iter().map(|text| vector(text, true)).collect();
    assert_eq!(answer.vectors(), expected);
    assert!((0..2048).all(|i| answer.json["data"][i]["index"] == i));
    assert_eq!(answer.json["usage"], json!({"prompt_tokens": 2048 * 4, "total_tokens": 2048 * 4}));
}

#[tokio::test]
async fn base64_holds_the_same_bits_as_floats() {
    let server = Server::with(|settings| settings.max_inputs = 10_000).await;
    // Few vectors are serialized inline, many on a blocking thread. Both ways are tested.
    for count in [3, 32 * 1024 / DIM + 1] {
        let texts: Vec<String> = (0..count).map(|i| format!("text number {i}")).collect();
        let floats =
            server.post("/v1/embeddings", &json!({"input": texts, "encoding_format": "float"})).await;
        let packed =
            server.post("/v1/embeddings", &json!({"input": texts, "encoding_format": "base64"})).await;
        for (index, row) in floats.vectors().iter().enumerate() {
            let text = packed.json["data"][index]["embedding"].as_str().unwrap();
            let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
            assert_eq!(BASE64_STANDARD.decode(text).unwrap(), bytes);
        }
        assert_eq!(floats.vectors().len(), count);
    }
}

#[tokio::test]
async fn the_model_is_echoed_as_it_was_sent() {
    let server = Server::start().await;
    for sent in ["small", PLAIN, "huggingface:test/plain", "test/other"] {
        let answer = server.post("/v1/embeddings", &json!({"input": "a", "model": sent})).await;
        assert_eq!((answer.status.as_u16(), &answer.json["model"]), (200, &json!(sent)), "{}", answer.text);
    }
}

#[tokio::test]
async fn null_counts_as_absent() {
    let server = Server::start().await;
    let body = json!({
        "input": "a", "model": null, "encoding_format": null, "dimensions": null,
        "user": null, "truncate": null, "normalize": null,
    });
    let answer = server.post("/v1/embeddings", &body).await;
    assert_eq!((answer.status.as_u16(), answer.vectors()), (200, vec![vector("a", true)]), "{}", answer.text);
    assert_eq!(answer.header("x-embeddings-dimensions-policy"), "");
}

#[tokio::test]
async fn every_field_reaches_the_provider() {
    let server = Server::start().await;
    let answer = server.post("/v1/embeddings", &json!({"input": "a", "user": "u", "normalize": false})).await;
    assert_eq!(answer.vectors(), [vector("a", false)]);
    let request = server.fake.last();
    assert_eq!((request.truncate, request.normalize), (None, false));
    assert!(request.context.deadline.is_some());
    assert_eq!(&*request.context.request_id, answer.header("x-request-id"));
    for (value, expected) in [("end", Truncate::End), ("start", Truncate::Start), ("none", Truncate::None)] {
        server.post("/v1/embeddings", &json!({"input": "a", "truncate": value})).await;
        assert_eq!(server.fake.last().truncate, Some(expected));
    }
}

#[tokio::test]
async fn truncated_texts_are_counted_or_rejected_on_request() {
    let server = Server::start().await;
    let long = "word ".repeat(MAX_TOKENS);
    let answer = server.post("/v1/embeddings", &json!({"input": ["short", long, long]})).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-embeddings-truncated")), (200, "2"));

    let body = json!({"input": ["short", long], "truncate": "none"});
    let answer = server.post("/v1/embeddings", &body).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "input_too_long"));
    assert_eq!(answer.json["error"]["param"], "input");
    assert_eq!(answer.json["detail"], json!([{"index": 1, "tokens": MAX_TOKENS + 2}]));
}

#[tokio::test]
async fn dimensions_follow_the_policy_and_v1_is_strict() {
    let server = Server::start().await;
    let body = json!({"input": "a", "dimensions": 4});
    let reduced = server.post("/api/v1/embeddings", &body).await;
    assert_eq!(reduced.header("x-embeddings-dimensions-policy"), "reduce");
    assert_eq!(reduced.vectors()[0].len(), 4);
    let refused = server.post("/v1/embeddings", &body).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_value"));
    assert_eq!(refused.json["error"]["param"], "dimensions");
    let native = server.post("/v1/embeddings", &json!({"input": "a", "dimensions": DIM})).await;
    assert_eq!((native.status.as_u16(), native.header("x-embeddings-dimensions-policy")), (200, "strict"));
    assert_eq!(native.vectors(), [vector("a", true)]);
}

#[tokio::test]
async fn each_policy_does_what_its_name_says() {
    use DimensionPolicy::{Ignore, Pad, Reduce, Strict};

    // The requested dimensions and those of the response; `None` if the request is rejected.
    for (policy, name, requested, expected) in [
        (Strict, "strict", DIM - 1, None),
        (Strict, "strict", DIM, Some(DIM)),
        (Strict, "strict", DIM + 1, None),
        (Reduce, "reduce", DIM - 1, Some(DIM - 1)),
        (Reduce, "reduce", DIM + 1, None),
        (Pad, "pad", DIM + 2, Some(DIM + 2)),
        (Ignore, "ignore", DIM - 1, Some(DIM)),
    ] {
        let server = Server::with(|settings| settings.dimension_policy = policy).await;
        let answer = server.post("/api/v1/embeddings", &json!({"input": "a", "dimensions": requested})).await;
        let Some(expected) = expected else {
            assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_value"), "{name} {requested}");
            assert_eq!(answer.json["error"]["param"], "dimensions");
            assert!(answer.message().contains(&requested.to_string()), "{}", answer.message());
            continue;
        };
        assert_eq!(
            (answer.status.as_u16(), answer.vectors()[0].len()),
            (200, expected),
            "{name} {requested}"
        );
        assert_eq!(answer.header("x-embeddings-dimensions-policy"), name);
        if expected > DIM {
            assert!(answer.vectors()[0][DIM..].iter().all(|number| *number == 0.0));
        }
        // A response to a request without the field names no policy.
        let plain = server.post("/api/v1/embeddings", &json!({"input": "a"})).await;
        assert_eq!(plain.header("x-embeddings-dimensions-policy"), "");
    }
}

#[tokio::test]
async fn the_provider_header_selects_a_provider_or_is_rejected() {
    let server = Server::start().await;
    let send = |provider: &'static str| {
        let request = server.request(Method::POST, "/v1/embeddings").header("x-provider", provider);
        Answer::of(request.json(&json!({"input": "a", "model": "test/plain"})))
    };
    assert_eq!(send("HuggingFace").await.status, 200);
    let unknown = send("unknown").await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (400, "invalid_value"));
    assert!(
        unknown.message().contains("'unknown'") && unknown.message().contains("voyage"),
        "{}",
        unknown.message()
    );
    let absent = send("openai").await;
    assert_eq!((absent.status.as_u16(), absent.code()), (503, "unavailable"));
}
