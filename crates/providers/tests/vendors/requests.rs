//! Requests to vendors without faults, and the responses of each API.

use embeddery_core::{Input, InputType, ProviderKind, SupportedDimensions, Truncate};
use embeddery_providers::ModelSettings;
use embeddery_test_support::vendors::{VendorApi, Vendors, token_text, vector};
use serde_json::json;

use crate::support::{
    APIS, KEY, adapter, assert_vectors, config, dimensions, embed, endpoint, kind, open, request,
    with_settings,
};

#[tokio::test]
async fn every_api_returns_the_right_vectors() {
    let vendors = Vendors::start().await;
    for (api, model) in APIS {
        // The name of an Azure deployment is part of the path. Names with spaces are refused before a request.
        let model = model.replace(' ', "-");
        let embedder = adapter(&vendors, api, &model).await;
        let texts: &[&str] = if api == VendorApi::OllamaLegacy {
            &["Grüße \"😀\"\n"]
        } else {
            &["one", "Grüße \"😀\"\n", "three"]
        };
        vendors.clear_requests();
        let response = embed(&embedder, texts).await.unwrap_or_else(|error| panic!("{api:?}: {error}"));
        assert_vectors(&response, texts);
        assert_eq!(vendors.texts(), texts, "{api:?}");
        assert_eq!(vendors.requests().len(), 1, "{api:?}");
        assert_eq!(response.space.as_str().split(':').next(), Some(kind(api).as_str()));
        assert!(response.space.as_str().ends_with(&format!(":{}", response.dim)), "{}", response.space);
        assert_eq!(response.tokens.len(), texts.len());
        assert!(response.tokens.iter().all(|count| *count > 0), "{api:?}");
        assert_eq!(response.billed_tokens > 0, kind(api) != ProviderKind::LocalApi, "{api:?}");
        assert_eq!(&*response.served_by.name, model);
        assert_eq!(response.served_by.dimensions, dimensions(response.dim));
    }
}

#[tokio::test]
async fn keys_are_sent_in_the_header_of_the_vendor() {
    let vendors = Vendors::start().await;
    for (api, header, value) in [
        (VendorApi::OpenAi, "authorization", format!("Bearer {KEY}")),
        (VendorApi::Azure, "api-key", KEY.to_owned()),
        (VendorApi::Google, "x-goog-api-key", KEY.to_owned()),
        (VendorApi::Cohere, "authorization", format!("Bearer {KEY}")),
        (VendorApi::Tei, "authorization", format!("Bearer {KEY}")),
    ] {
        vendors.clear_requests();
        embed(&adapter(&vendors, api, "m").await, &["a"]).await.unwrap();
        let requests = vendors.requests();
        assert_eq!(requests[0].headers.get(header), Some(&value), "{api:?}");
        assert!(!requests[0].path.contains(KEY), "a key is in a URL");
    }
    assert_eq!(vendors.requests().len(), 1);
    // Local servers get no header if there is no key.
    vendors.clear_requests();
    let embedder =
        open(config(ProviderKind::LocalApi, endpoint(&vendors, VendorApi::Ollama, &[])), "m").await;
    embed(&embedder, &["a"]).await.unwrap();
    assert!(!vendors.requests()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_url_of_azure_has_the_deployment_and_the_version() {
    let vendors = Vendors::start().await;
    embed(&adapter(&vendors, VendorApi::Azure, "emb/1").await, &["a"]).await.unwrap();
    let path = &vendors.requests()[0].path;
    assert_eq!(path, "/azure/openai/deployments/emb%2F1/embeddings?api-version=2024-10-21");
}

#[tokio::test]
async fn requested_dimensions_are_sent_to_vendors_that_support_them() {
    let vendors = Vendors::start().await;
    for (api, model, requested, field) in [
        (VendorApi::OpenAi, "text-embedding-3-large", 256, "/dimensions"),
        (VendorApi::Cohere, "embed-v4.0", 512, "/output_dimension"),
        (VendorApi::Google, "gemini-embedding-001", 768, "/requests/0/outputDimensionality"),
        (VendorApi::Mistral, "codestral-embed", 3072, "/output_dimension"),
        (VendorApi::Voyage, "voyage-4", 2048, "/output_dimension"),
    ] {
        vendors.clear_requests();
        let embedder = adapter(&vendors, api, model).await;
        assert!(embedder.limits().dimensions.contains(dimensions(requested).unwrap()), "{api:?}");
        let mut params = request(&["a"]);
        params.dimensions = dimensions(requested);
        let response = embedder.embed(params).await.unwrap();
        assert_eq!(response.dim, requested);
        assert_vectors(&response, &["a"]);
        assert_eq!(vendors.requests()[0].body.pointer(field), Some(&json!(requested)), "{api:?}");
        assert!(response.space.as_str().ends_with(&format!(":{requested}")));
    }
    let fixed = adapter(&vendors, VendorApi::OpenAi, "text-embedding-ada-002").await;
    assert_eq!(fixed.limits().dimensions, SupportedDimensions::Own);
    let mut params = request(&["a"]);
    params.dimensions = dimensions(256);
    assert!(fixed.embed(params.clone()).await.unwrap_err().message.starts_with("dimensions: "));
    // The model's own dimensions are not sent.
    params.dimensions = dimensions(1536);
    assert_eq!(fixed.embed(params).await.unwrap().dim, 1536);
}

#[tokio::test]
async fn input_types_are_mapped_to_the_vendors_values() {
    let vendors = Vendors::start().await;
    for (api, model, field, value) in [
        (VendorApi::Cohere, "embed-v4.0", "/input_type", json!("search_query")),
        (VendorApi::Voyage, "voyage-4", "/input_type", json!("query")),
        (VendorApi::Google, "gemini-embedding-001", "/requests/0/taskType", json!("RETRIEVAL_QUERY")),
        (
            VendorApi::Google,
            "gemini-embedding-2",
            "/requests/0/content/parts/0/text",
            json!("task: search result | query: a"),
        ),
    ] {
        vendors.clear_requests();
        let mut params = request(&["a"]);
        params.input_type = Some(InputType::Query);
        adapter(&vendors, api, model).await.embed(params).await.unwrap();
        assert_eq!(vendors.requests()[0].body.pointer(field), Some(&value), "{model}");
    }
    let prompts = [(InputType::Query, "search_query: ".into())].into();
    let settings = ModelSettings { prompts, ..ModelSettings::default() };
    let config = config(ProviderKind::LocalApi, endpoint(&vendors, VendorApi::Ollama, &[]));
    let embedder = open(with_settings(config, "nomic-embed-text", settings), "nomic-embed-text").await;
    vendors.clear_requests();
    let mut params = request(&["a"]);
    params.input_type = Some(InputType::Query);
    embedder.embed(params).await.unwrap();
    assert_eq!(vendors.texts(), ["search_query: a"]);
}

#[tokio::test]
async fn token_ids_are_sent_to_openai_only() {
    let vendors = Vendors::start().await;
    let mut params = request(&["x"]);
    params.inputs = [Input::Tokens(vec![9906, 1917].into()), Input::Tokens(vec![15339].into())].into();
    let response = adapter(&vendors, VendorApi::OpenAi, "text-embedding-3-small")
        .await
        .embed(params.clone())
        .await
        .unwrap();
    let expected = [token_text(&[9906, 1917]), token_text(&[15339])];
    assert_eq!(vendors.texts(), expected);
    assert_eq!(response.rows().next().unwrap(), vector(&expected[0], 1536));
    vendors.clear_requests();
    assert!(adapter(&vendors, VendorApi::Voyage, "voyage-4").await.embed(params).await.is_err());
    assert!(vendors.requests().is_empty());
}

#[tokio::test]
async fn vectors_have_unit_length_unless_normalize_is_off() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OllamaLegacy, "m").await;
    let mut params = request(&["a"]);
    assert_vectors(&embedder.embed(params.clone()).await.unwrap(), &["a"]);
    params.normalize = false;
    let raw = embedder.embed(params).await.unwrap();
    let norm: f32 = raw.data.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((norm - 3.0).abs() < 1e-4, "the length of the raw vector is {norm}");
}

#[tokio::test]
async fn a_vector_of_unit_length_keeps_its_bits() {
    let vendors = Vendors::start().await;
    let response =
        embed(&adapter(&vendors, VendorApi::OpenAi, "text-embedding-3-small").await, &["a"]).await.unwrap();
    assert_eq!(response.data, vector("a", 1536));
}

#[tokio::test]
async fn the_first_response_sets_the_dimensions_of_an_unknown_model() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::Ollama, "some-model").await;
    assert_eq!(embedder.model().dimensions, None);
    assert_eq!(embed(&embedder, &["a"]).await.unwrap().space.as_str(), "local_api:some-model:16");
    assert_eq!(embedder.model().dimensions, dimensions(16));
    // Another model behind the same name is detected.
    vendors.set_dimensions("some-model", 24);
    let error = embed(&embedder, &["a"]).await.unwrap_err();
    assert!(error.message.contains("vectors of 24 dimensions instead of 16"), "{error}");
}

#[tokio::test]
async fn models_of_one_family_share_a_space() {
    let vendors = Vendors::start().await;
    let mut spaces = Vec::new();
    for model in ["voyage-4-large", "voyage-4", "voyage-4-lite"] {
        let response = embed(&adapter(&vendors, VendorApi::Voyage, model).await, &["a"]).await.unwrap();
        spaces.push(response.space.to_string());
    }
    assert_eq!(spaces, ["voyage:voyage-4:1024"; 3]);
    let identity = adapter(&vendors, VendorApi::Voyage, "voyage-4-lite").await.identity().unwrap();
    assert_eq!(identity.space.as_str(), "voyage:voyage-4:1024");
}

#[tokio::test]
async fn different_prompts_make_different_spaces() {
    let vendors = Vendors::start().await;
    let with_prompt = |prompt: &str| {
        let prompts = [(InputType::Query, prompt.into())].into();
        let config = config(ProviderKind::LocalApi, endpoint(&vendors, VendorApi::Ollama, &[]));
        open(with_settings(config, "m", ModelSettings { prompts, ..ModelSettings::default() }), "m")
    };
    let plain = adapter(&vendors, VendorApi::Ollama, "m").await.identity().unwrap();
    let (one, two) = (with_prompt("a: ").await, with_prompt("b: ").await);
    assert_eq!(plain.space.as_str(), "local_api:m");
    assert_ne!(one.identity(), two.identity());
    assert_eq!(one.identity(), with_prompt("a: ").await.identity());
    let response = embed(&one, &["x"]).await.unwrap();
    assert!(response.space.as_str().starts_with("local_api:m+") && response.space.as_str().ends_with(":16"));
}

#[tokio::test]
async fn truncation_is_mapped_to_the_vendors_values() {
    let vendors = Vendors::start().await;
    for (api, truncate, field, value) in [
        (VendorApi::Cohere, Truncate::Start, "/truncate", json!("START")),
        (VendorApi::Voyage, Truncate::None, "/truncation", json!(false)),
        (VendorApi::Ollama, Truncate::End, "/truncate", json!(true)),
        (VendorApi::Tei, Truncate::Start, "/truncation_direction", json!("Left")),
    ] {
        vendors.clear_requests();
        let mut params = request(&["a"]);
        params.truncate = Some(truncate);
        adapter(&vendors, api, "m").await.embed(params).await.unwrap();
        assert_eq!(vendors.requests()[0].body.pointer(field), Some(&value), "{api:?}");
    }
    for api in
        [VendorApi::OpenAi, VendorApi::Google, VendorApi::Mistral, VendorApi::Voyage, VendorApi::Ollama]
    {
        let mut params = request(&["a"]);
        params.truncate = Some(Truncate::Start);
        let error = adapter(&vendors, api, "m").await.embed(params).await.unwrap_err();
        assert!(error.message.starts_with("truncate: "), "{api:?}: {error}");
    }
}
