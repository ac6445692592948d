//! Fields beyond OpenAI's request, and the routes of administrators.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_core::InputType;
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Server, vector};

#[tokio::test]
async fn token_ids_are_decoded_to_text() {
    let server = Server::start().await;
    // cl100k_base for "Hello world" and " two words".
    let both = json!({"input": [[9906, 1917], [1403, 4339]]});
    let answer = server.post("/v1/embeddings", &both).await;
    assert_eq!(
        answer.vectors(),
        [vector("Hello world", true), vector(" two words", true)],
        "{}",
        answer.text
    );
    let one = server.post("/v1/embeddings", &json!({"input": [9906, 1917]})).await;
    assert_eq!(one.vectors(), [vector("Hello world", true)]);
    for (input, param, message) in [
        (
            json!([[9906], [4_000_000]]),
            "input[1]",
            "token id 4000000 is not in the vocabulary of cl100k_base",
        ),
        (json!([9906, 4_000_000]), "input[0]", "cl100k_base"),
        (json!([[9906], [220]]), "input[1]", "decode to blank text"),
    ] {
        let refused = server.post("/v1/embeddings", &json!({"input": input})).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_value"), "{input}");
        assert!(
            refused.message().starts_with(param) && refused.message().contains(message),
            "{}",
            refused.text
        );
        assert_eq!(refused.json["error"]["param"], param);
    }
}

#[tokio::test]
async fn every_field_beyond_openais_reaches_the_provider() {
    let server = Server::start().await;
    for (value, expected) in [
        ("query", InputType::Query),
        ("document", InputType::Document),
        ("classification", InputType::Classification),
        ("clustering", InputType::Clustering),
    ] {
        let body = json!({"input": "a", "input_type": value, "on_error": "partial"});
        assert_eq!(server.post("/v1/embeddings", &body).await.status, 200);
        let request = server.fake.last();
        assert_eq!((request.input_type, request.partial), (Some(expected), true));
    }
}

#[tokio::test]
async fn every_output_type_is_returned() {
    let server = Server::start().await;
    let vector = vector("a", true);
    let int8: Vec<i8> = vector.iter().map(|x| (x * 127.0).round() as i8).collect();
    let bits: u8 = vector.iter().enumerate().map(|(at, x)| if *x > 0.0 { 0x80 >> at } else { 0 }).sum();
    let expected = [
        ("int8", json!(int8), int8.iter().map(|x| *x as u8).collect::<Vec<u8>>()),
        (
            "uint8",
            json!(int8.iter().map(|x| i32::from(*x) + 128).collect::<Vec<_>>()),
            int8.iter().map(|x| (i32::from(*x) + 128) as u8).collect(),
        ),
        ("ubinary", json!([bits]), vec![bits]),
        ("binary", json!([i32::from(bits) - 128]), vec![bits.wrapping_sub(128)]),
    ];
    for (dtype, numbers, bytes) in expected {
        let body = json!({"input": "a", "output_dtype": dtype});
        let answer = server.post("/v1/embeddings", &body).await;
        assert_eq!(answer.json["data"][0]["embedding"], numbers, "{dtype}");
        let body = json!({"input": "a", "output_dtype": dtype, "encoding_format": "base64"});
        let packed = server.post("/v1/embeddings", &body).await;
        let text = packed.json["data"][0]["embedding"].as_str().unwrap();
        assert_eq!(BASE64_STANDARD.decode(text).unwrap(), bytes, "{dtype}");
    }
}

#[tokio::test]
async fn the_batch_route_responds_as_the_replaced_service_did() {
    let server = Server::start().await;
    let body = json!({"texts": ["a", "b"], "model": "small", "batch_size": 1});
    let answer = server.post("/api/v1/embeddings/batch", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let rows: Vec<Vec<f32>> = serde_json::from_value(answer.json["embeddings"].clone()).unwrap();
    assert_eq!(rows, [vector("a", true), vector("b", true)]);
    let (model, provider, count) = (&answer.json["model"], &answer.json["provider"], &answer.json["count"]);
    assert_eq!((model, provider, count), (&json!("test/plain"), &json!("huggingface"), &json!(2)));
    let reduced = server.post("/api/v1/embeddings/batch", &json!({"texts": ["a"], "dimensions": 4})).await;
    assert_eq!(reduced.json["embeddings"][0].as_array().unwrap().len(), 4);
    assert_eq!(reduced.header("x-embeddings-dimensions-policy"), "reduce");
    for (body, status, param) in [
        (json!({"texts": ["a", " "]}), 400, "texts[1]"),
        (json!({"texts": []}), 422, "texts"),
        (json!({"texts": "a"}), 422, "texts"),
        (json!({"texts": ["a", 1]}), 422, "texts[1]"),
        (json!({"texts": ["a"], "batch_size": 0}), 422, "batch_size"),
        (json!({"texts": ["a"], "provider": "unknown"}), 400, "provider"),
        (json!({}), 422, "texts"),
        (json!({"text": ["a"]}), 422, "text"),
    ] {
        let refused = server.post("/api/v1/embeddings/batch", &body).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json["error"]["param"]),
            (status, &json!(param)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn circuit_breakers_of_all_providers_are_listed_and_can_be_reset() {
    let server = Server::start().await;
    let list = server.get("/api/v1/embeddings/circuit-breakers").await;
    let breaker = &list.json["embeddings_openai"];
    assert_eq!((&breaker["state"], &breaker["failure_count"]), (&json!("CLOSED"), &json!(0)));
    let settings = json!({"failure_threshold": 5, "recovery_timeout": 60.0, "success_threshold": 2, "half_open_max_calls": 3});
    assert_eq!((&breaker["settings"], list.json.as_object().unwrap().len()), (&settings, 8));
    let path = |name| format!("/api/v1/embeddings/circuit-breakers/{name}/reset");
    for name in ["openai", "embeddings_voyage"] {
        assert_eq!(Answer::of(server.request(Method::POST, &path(name))).await.status, 200);
    }
    let bad_query = Answer::of(server.request(Method::POST, &format!("{}?port=80", path("openai")))).await;
    assert_eq!(bad_query.status, 400, "{}", bad_query.text);
    let openapi = server.get("/openapi.json").await.json;
    let reset = &openapi["paths"]["/api/v1/embeddings/circuit-breakers/{provider}/reset"]["post"];
    assert!(reset["responses"]["400"].is_object(), "{reset}");
    for unknown in ["unknown/reset", "openai/reset?address=http://elsewhere:80"] {
        let path = format!("/api/v1/embeddings/circuit-breakers/{unknown}");
        let unknown = Answer::of(server.request(Method::POST, &path)).await;
        assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "not_found"), "{}", unknown.text);
    }
}

#[tokio::test]
async fn metrics_and_providers_are_returned_as_json() {
    let server = Server::start().await;
    server.post("/v1/embeddings", &json!({"input": [9906]})).await;
    server.post("/v1/embeddings", &json!({"input": "a", "model": "unknown"})).await;
    let metrics = server.get("/api/v1/embeddings/metrics").await.json;
    assert_eq!(
        (&metrics["counters"]["requests_total"], &metrics["counters"]["token_inputs_total"]),
        (&json!(2.0), &json!(1.0))
    );
    let expected = json!({"name": "embedding_token_inputs_total", "value": 1.0, "mode": "single"});
    assert_eq!(metrics["details"]["token_inputs"], json!([expected]));
    assert_eq!(metrics["config"], json!({"enforce_policy": false, "dimension_policy": "reduce"}));
    let providers = server.get("/api/v1/embeddings/providers-config").await.json;
    let expected = json!({
        "default_provider": "huggingface", "default_model": "small",
        "providers": [{"name": "huggingface", "models": ["test/plain"]}],
    });
    assert_eq!(providers, expected);
    let cleared = Answer::of(server.request(Method::DELETE, "/api/v1/embeddings/cache")).await;
    assert_eq!(cleared.json, json!({"message": "Cache cleared successfully", "entries_removed": 0}));
}
