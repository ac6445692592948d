//! Fallback to another configured model. A response never mixes vectors of two spaces.

use embeddery_test_support::vendors::{Behaviour, VendorApi};
use serde_json::json;

use crate::gateway::{ApiResponse, Gateway};

const FAMILY: &str = "
models:
  main: {provider: voyage, model_name_or_path: voyage-4, fallback: lite}
  lite: {provider: voyage, model_name_or_path: voyage-4-lite}
  strict: {provider: openai, model_name_or_path: text-embedding-3-small, fallback: [lite]}
  lax: {provider: openai, model_name_or_path: text-embedding-3-large, fallback: [lite], allow_space_change: true}
retry: {max_retries: 0}
";

#[tokio::test]
async fn a_fallback_of_the_same_space_serves_the_request_and_is_named() {
    let gateway = Gateway::with(FAMILY, &[]).await;
    gateway.vendors.next(Behaviour::Status(500));
    let response = gateway.embed(&json!({"input": "x", "model": "main"})).await;
    response.assert_vectors_of_dim(&["x"], 1024);
    assert_eq!(
        ["x-embeddings-model", "x-embeddings-provider", "x-embeddings-fallback-from"]
            .map(|name| response.header(name)),
        ["voyage-4-lite", "voyage", "voyage"]
    );
    let fell = r#"embedding_fallbacks_total{from_provider="voyage",to_provider="voyage"}"#;
    assert_eq!(gateway.metric(fell).await, Some(1.0));
    // The vector is cached under the name of the model that computed it, not of the requested model.
    gateway.billed();
    let main = gateway.embed(&json!({"input": "x", "model": "main"})).await;
    assert_eq!((main.header("x-embeddings-fallback-from"), gateway.billed().len()), ("", 1));
    let lite = gateway.embed(&json!({"input": "x", "model": "lite"})).await;
    assert_eq!((lite.header("x-embeddings-cache"), gateway.billed().len()), ("hits=1,misses=0", 0));
}

#[tokio::test]
async fn a_fallback_to_another_space_is_refused_unless_it_is_allowed() {
    let gateway = Gateway::with(FAMILY, &[]).await;
    gateway.vendors.next(Behaviour::Status(500));
    let refused = gateway.embed(&json!({"input": "x", "model": "strict"})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "unavailable"), "{}", refused.json);
    let apis: Vec<VendorApi> = gateway.vendors.requests().iter().map(|request| request.api).collect();
    assert_eq!(apis, [VendorApi::OpenAi], "the fallback gets no request");

    let cached = gateway.embed(&json!({"input": "cached", "model": "lax"})).await;
    gateway.vendors.next(Behaviour::Status(500));
    let mixed = gateway.embed(&json!({"input": ["cached", "new"], "model": "lax"})).await;
    // The second vector comes from the fallback, so the cached vector of the first model is not used.
    assert_eq!(mixed.status, 200, "{}", mixed.json);
    let lengths = [0, 1].map(|index| mixed.vector(index).len());
    assert_eq!(lengths[0], lengths[1], "all vectors of a response are of one space");
    assert!(cached.vector(0).len() == 3072);
}

#[tokio::test]
async fn a_request_that_names_a_provider_has_no_fallback() {
    let gateway = Gateway::with(FAMILY, &[]).await;
    gateway.vendors.next(Behaviour::Status(500));
    let request = gateway.request(reqwest::Method::POST, "/v1/embeddings").header("x-provider", "voyage");
    let response = ApiResponse::of(request.json(&json!({"input": "x", "model": "main"}))).await;
    assert_eq!((response.status.as_u16(), response.code()), (503, "unavailable"));
    assert_eq!(gateway.billed().len(), 1);
}

#[tokio::test]
async fn a_callers_error_has_no_fallback() {
    let gateway = Gateway::with(FAMILY, &[]).await;
    gateway.vendors.next(Behaviour::Status(400));
    let response = gateway.embed(&json!({"input": "x", "model": "main"})).await;
    assert_eq!((response.status.as_u16(), gateway.billed().len()), (400, 1));
}

#[tokio::test]
async fn token_ids_are_decoded_for_all_vendors_but_openai() {
    let gateway = Gateway::with(FAMILY, &[]).await;
    // "Hello world" in cl100k_base.
    let ids = json!([9906, 1917]);
    gateway.embed(&json!({"input": ids, "model": "text-embedding-3-small"})).await;
    assert_eq!(gateway.billed(), ["tokens [9906, 1917]"]);
    for model in ["voyage-4", "embed-v4.0", "mistral-embed", "gemini-embedding-001"] {
        let response = gateway.embed(&json!({"input": ids, "model": model})).await;
        assert_eq!(
            (response.status.as_u16(), gateway.billed()),
            (200, vec!["Hello world".to_owned()]),
            "{model}"
        );
    }
    gateway.vendors.next(Behaviour::Status(500));
    let fallen = gateway.embed(&json!({"input": [ids], "model": "lax"})).await;
    assert_eq!(fallen.header("x-embeddings-model"), "voyage-4-lite", "{}", fallen.json);
}
