//! Odd but usable answers of vendors: the vectors reach the caller.

use embeddery_test_support::vendors::{Behaviour, VendorApi};
use serde_json::json;

use crate::gateway::{ApiResponse, Gateway, MODEL};

#[tokio::test]
async fn an_odd_usage_of_any_provider_costs_no_vectors() {
    let gateway = Gateway::with("cache: {max_size: 0}\n", &[]).await;
    let models =
        ["text-embedding-3-small", "embed-v4.0", "gemini-embedding-001", "mistral-embed", "voyage-4"];
    for model in models {
        let usage = async |behaviour: Option<Behaviour>| {
            if let Some(behaviour) = behaviour.clone() {
                gateway.vendors.next(behaviour);
            }
            let response = gateway.embed(&json!({"input": ["one text", "two"], "model": model})).await;
            assert_eq!(response.status, 200, "{model} {behaviour:?}: {}", response.json);
            assert_eq!(gateway.billed().len(), 2, "{model} {behaviour:?}: one attempt");
            response.json["usage"]["prompt_tokens"].as_u64().unwrap()
        };
        let estimate = usage(Some(Behaviour::Usage("null".into()))).await;
        assert!(estimate > 0);
        for odd in ["-1", "\"many\"", "[]", "{}", "[[{\"a\":[5]}]]", "true", "1e999", "99999999999999"] {
            assert_eq!(usage(Some(Behaviour::TokenCount(odd.into()))).await, estimate, "{model} {odd}");
            assert_eq!(usage(Some(Behaviour::Usage(odd.into()))).await, estimate, "{model} {odd}");
        }
        for clear in ["7", "7.0", "\"7\""] {
            assert_eq!(usage(Some(Behaviour::TokenCount(clear.into()))).await, 7, "{model} {clear}");
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_base64_is_asked_for_numbers() {
    let gateway = Gateway::with("cache: {max_size: 0}\n", &[]).await;
    gateway.vendors.refuse_base64(400);
    for formats in [vec!["base64", "float"], vec!["float"], vec!["float"]] {
        let response = gateway.embed(&json!({"input": ["a", "b"], "model": MODEL})).await;
        response.assert_vectors_of(&["a", "b"]);
        assert!(
            response.header("server-timing").contains("attempts: 1"),
            "{}",
            response.header("server-timing")
        );
        let asked = gateway.vendors.requests();
        let asked: Vec<_> =
            asked.iter().map(|request| request.body["encoding_format"].as_str().unwrap()).collect();
        assert_eq!(asked, formats);
        gateway.vendors.clear_requests();
    }
    let failures = "circuit_breaker_failures_total{service=\"embeddings_openai\",operation=\"embed\"}";
    assert_eq!(gateway.metric(failures).await, Some(0.0));
    // A reload asks again, because the server may have been updated.
    gateway.reload("cache: {max_size: 0}\n").await;
    gateway.embed(&json!({"input": "a", "model": MODEL})).await.assert_vectors_of(&["a"]);
    assert_eq!(gateway.vendors.requests().len(), 2);
}

#[tokio::test]
async fn a_vector_of_zeros_is_refused_with_its_input_and_not_cached() {
    let gateway = Gateway::with("retry: {max_retries: 0}\n", &[]).await;
    for model in ["text-embedding-3-small", "embed-v4.0", "gemini-embedding-001", "mistral-embed", "voyage-4"]
    {
        let body = json!({"input": ["one", "two", "three"], "model": model});
        gateway.vendors.next(Behaviour::ZeroVector);
        let response: ApiResponse = gateway.embed(&body).await;
        assert_eq!(
            (response.status.as_u16(), response.code()),
            (502, "bad_upstream_answer"),
            "{}",
            response.json
        );
        assert!(response.message().starts_with("input[2]: "), "{}", response.json);
        let again = gateway.embed(&body).await;
        assert_eq!((again.status.as_u16(), again.header("x-embeddings-cache")), (200, "hits=0,misses=3"));
    }
    for (api, texts) in [
        (VendorApi::Ollama, 2),
        (VendorApi::OllamaLegacy, 1),
        (VendorApi::Tei, 2),
        (VendorApi::Tldw, 2),
        (VendorApi::LocalOpenAi, 2),
    ] {
        let url = gateway.vendors.base_url(api);
        let dialect = if api == VendorApi::Tldw { ", api_dialect: tldw" } else { "" };
        gateway
            .reload(&format!(
                "retry: {{max_retries: 0}}\nmodels:\n  local: {{provider: local_api, model_name_or_path: m, api_url: '{url}'{dialect}}}\n"
            ))
            .await;
        gateway.vendors.next(Behaviour::ZeroVector);
        let input: Vec<String> = (0..texts).map(|number| format!("{api:?} {number}")).collect();
        let response = gateway.embed(&json!({"input": input, "model": "local"})).await;
        assert_eq!(response.status, 502, "{api:?}: {}", response.json);
        assert!(response.message().starts_with(&format!("input[{}]: ", texts - 1)), "{}", response.json);
    }
}
