//! Well-behaved vendors: each form's question and answer.

use embeddery_core::{Input, InputType, ProviderKind, SupportedDimensions, Truncate};
use embeddery_providers::ModelSettings;
use embeddery_test_support::vendors::{VendorApi, Vendors, token_text, vector};
use serde_json::json;

use crate::support::{
    FORMS, KEY, access, adapter, assert_right, config, embed, kind, length, open, request, with_settings,
};

#[tokio::test]
async fn every_form_brings_the_right_vectors_home() {
    let vendors = Vendors::start().await;
    for (form, model) in FORMS {
        // What Azure calls the deployment is a path's segment; a blank in it never gets that far.
        let model = model.replace(' ', "-");
        let embedder = adapter(&vendors, form, &model).await;
        let texts: &[&str] = if form == VendorApi::OllamaLegacy {
            &["Grüße \"😀\"\n"]
        } else {
            &["one", "Grüße \"😀\"\n", "three"]
        };
        vendors.forget();
        let answer = embed(&embedder, texts).await.unwrap_or_else(|error| panic!("{form:?}: {error}"));
        assert_right(&answer, texts);
        assert_eq!(vendors.texts(), texts, "{form:?}");
        assert_eq!(vendors.requests().len(), 1, "{form:?}");
        assert_eq!(answer.space.as_str().split(':').next(), Some(kind(form).as_str()));
        assert!(answer.space.as_str().ends_with(&format!(":{}", answer.dim)), "{}", answer.space);
        assert_eq!(answer.tokens.len(), texts.len());
        assert!(answer.tokens.iter().all(|count| *count > 0), "{form:?}");
        assert_eq!(answer.billed_tokens > 0, kind(form) != ProviderKind::LocalApi, "{form:?}");
        assert_eq!(&*answer.served_by.name, model);
        assert_eq!(answer.served_by.dimensions, length(answer.dim));
    }
}

#[tokio::test]
async fn keys_travel_where_the_vendor_wants_them() {
    let vendors = Vendors::start().await;
    for (form, header, value) in [
        (VendorApi::OpenAi, "authorization", format!("Bearer {KEY}")),
        (VendorApi::Azure, "api-key", KEY.to_owned()),
        (VendorApi::Google, "x-goog-api-key", KEY.to_owned()),
        (VendorApi::Cohere, "authorization", format!("Bearer {KEY}")),
        (VendorApi::Tei, "authorization", format!("Bearer {KEY}")),
    ] {
        vendors.forget();
        embed(&adapter(&vendors, form, "m").await, &["a"]).await.unwrap();
        let seen = vendors.requests();
        assert_eq!(seen[0].headers.get(header), Some(&value), "{form:?}");
        assert!(!seen[0].path.contains(KEY), "a key is in an address");
    }
    assert_eq!(vendors.requests().len(), 1);
    // Servers near by get none when there is none.
    vendors.forget();
    let embedder = open(config(ProviderKind::LocalApi, access(&vendors, VendorApi::Ollama, &[])), "m").await;
    embed(&embedder, &["a"]).await.unwrap();
    assert!(!vendors.requests()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn azure_names_the_deployment_and_the_version() {
    let vendors = Vendors::start().await;
    embed(&adapter(&vendors, VendorApi::Azure, "emb/1").await, &["a"]).await.unwrap();
    let path = &vendors.requests()[0].path;
    assert_eq!(path, "/azure/openai/deployments/emb%2F1/embeddings?api-version=2024-10-21");
}

#[tokio::test]
async fn a_wished_length_is_asked_for_where_the_vendor_gives_it() {
    let vendors = Vendors::start().await;
    for (form, model, wanted, field) in [
        (VendorApi::OpenAi, "text-embedding-3-large", 256, "/dimensions"),
        (VendorApi::Cohere, "embed-v4.0", 512, "/output_dimension"),
        (VendorApi::Google, "gemini-embedding-001", 768, "/requests/0/outputDimensionality"),
        (VendorApi::Mistral, "codestral-embed", 3072, "/output_dimension"),
        (VendorApi::Voyage, "voyage-4", 2048, "/output_dimension"),
    ] {
        vendors.forget();
        let embedder = adapter(&vendors, form, model).await;
        assert!(embedder.limits().dimensions.contains(length(wanted).unwrap()), "{form:?}");
        let mut asked = request(&["a"]);
        asked.dimensions = length(wanted);
        let answer = embedder.embed(asked).await.unwrap();
        assert_eq!(answer.dim, wanted);
        assert_right(&answer, &["a"]);
        assert_eq!(vendors.requests()[0].body.pointer(field), Some(&json!(wanted)), "{form:?}");
        assert!(answer.space.as_str().ends_with(&format!(":{wanted}")));
    }
    let fixed = adapter(&vendors, VendorApi::OpenAi, "text-embedding-ada-002").await;
    assert_eq!(fixed.limits().dimensions, SupportedDimensions::Own);
    let mut asked = request(&["a"]);
    asked.dimensions = length(256);
    assert!(fixed.embed(asked.clone()).await.unwrap_err().message.starts_with("dimensions: "));
    // The model's own length is no wish.
    asked.dimensions = length(1536);
    assert_eq!(fixed.embed(asked).await.unwrap().dim, 1536);
}

#[tokio::test]
async fn purposes_become_the_vendors_own() {
    let vendors = Vendors::start().await;
    for (form, model, field, value) in [
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
        vendors.forget();
        let mut asked = request(&["a"]);
        asked.input_type = Some(InputType::Query);
        adapter(&vendors, form, model).await.embed(asked).await.unwrap();
        assert_eq!(vendors.requests()[0].body.pointer(field), Some(&value), "{model}");
    }
    let prompts = [(InputType::Query, "search_query: ".into())].into();
    let settings = ModelSettings { prompts, ..ModelSettings::default() };
    let near = config(ProviderKind::LocalApi, access(&vendors, VendorApi::Ollama, &[]));
    let embedder = open(with_settings(near, "nomic-embed-text", settings), "nomic-embed-text").await;
    vendors.forget();
    let mut asked = request(&["a"]);
    asked.input_type = Some(InputType::Query);
    embedder.embed(asked).await.unwrap();
    assert_eq!(vendors.texts(), ["search_query: a"]);
}

#[tokio::test]
async fn token_ids_reach_openai_and_nobody_else() {
    let vendors = Vendors::start().await;
    let mut asked = request(&["x"]);
    asked.inputs = [Input::Tokens(vec![9906, 1917].into()), Input::Tokens(vec![15339].into())].into();
    let answer = adapter(&vendors, VendorApi::OpenAi, "text-embedding-3-small")
        .await
        .embed(asked.clone())
        .await
        .unwrap();
    let due = [token_text(&[9906, 1917]), token_text(&[15339])];
    assert_eq!(vendors.texts(), due);
    assert_eq!(answer.rows().next().unwrap(), vector(&due[0], 1536));
    vendors.forget();
    assert!(adapter(&vendors, VendorApi::Voyage, "voyage-4").await.embed(asked).await.is_err());
    assert!(vendors.requests().is_empty());
}

#[tokio::test]
async fn vectors_have_unit_length_unless_nobody_wants_that() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OllamaLegacy, "m").await;
    let mut asked = request(&["a"]);
    assert_right(&embedder.embed(asked.clone()).await.unwrap(), &["a"]);
    asked.normalize = false;
    let raw = embedder.embed(asked).await.unwrap();
    let norm: f32 = raw.data.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((norm - 3.0).abs() < 1e-4, "the raw vector's length is {norm}");
}

#[tokio::test]
async fn a_vector_of_unit_length_stays_bit_for_bit() {
    let vendors = Vendors::start().await;
    let answer =
        embed(&adapter(&vendors, VendorApi::OpenAi, "text-embedding-3-small").await, &["a"]).await.unwrap();
    assert_eq!(answer.data, vector("a", 1536));
}

#[tokio::test]
async fn an_unknown_model_shows_its_length_in_its_first_answer() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::Ollama, "some-model").await;
    assert_eq!(embedder.model().dimensions, None);
    assert_eq!(embed(&embedder, &["a"]).await.unwrap().space.as_str(), "local_api:some-model:16");
    assert_eq!(embedder.model().dimensions, length(16));
    // Another model behind the same name must not go unnoticed.
    vendors.set_length("some-model", 24);
    let error = embed(&embedder, &["a"]).await.unwrap_err();
    assert!(error.message.contains("vectors of 24 numbers where 16 were due"), "{error}");
}

#[tokio::test]
async fn models_of_one_family_share_a_space() {
    let vendors = Vendors::start().await;
    let mut spaces = Vec::new();
    for model in ["voyage-4-large", "voyage-4", "voyage-4-lite"] {
        let answer = embed(&adapter(&vendors, VendorApi::Voyage, model).await, &["a"]).await.unwrap();
        spaces.push(answer.space.to_string());
    }
    assert_eq!(spaces, ["voyage:voyage-4:1024"; 3]);
    let identity = adapter(&vendors, VendorApi::Voyage, "voyage-4-lite").await.identity().unwrap();
    assert_eq!(identity.space.as_str(), "voyage:voyage-4:1024");
}

#[tokio::test]
async fn prompts_make_a_space_of_their_own() {
    let vendors = Vendors::start().await;
    let with_prompt = |prompt: &str| {
        let prompts = [(InputType::Query, prompt.into())].into();
        let near = config(ProviderKind::LocalApi, access(&vendors, VendorApi::Ollama, &[]));
        open(with_settings(near, "m", ModelSettings { prompts, ..ModelSettings::default() }), "m")
    };
    let plain = adapter(&vendors, VendorApi::Ollama, "m").await.identity().unwrap();
    let (one, two) = (with_prompt("a: ").await, with_prompt("b: ").await);
    assert_eq!(plain.space.as_str(), "local_api:m");
    assert_ne!(one.identity(), two.identity());
    assert_eq!(one.identity(), with_prompt("a: ").await.identity());
    let answer = embed(&one, &["x"]).await.unwrap();
    assert!(answer.space.as_str().starts_with("local_api:m+") && answer.space.as_str().ends_with(":16"));
}

#[tokio::test]
async fn cutting_is_asked_for_in_the_vendors_words() {
    let vendors = Vendors::start().await;
    for (form, truncate, field, value) in [
        (VendorApi::Cohere, Truncate::Start, "/truncate", json!("START")),
        (VendorApi::Voyage, Truncate::None, "/truncation", json!(false)),
        (VendorApi::Ollama, Truncate::End, "/truncate", json!(true)),
        (VendorApi::Tei, Truncate::Start, "/truncation_direction", json!("Left")),
    ] {
        vendors.forget();
        let mut asked = request(&["a"]);
        asked.truncate = Some(truncate);
        adapter(&vendors, form, "m").await.embed(asked).await.unwrap();
        assert_eq!(vendors.requests()[0].body.pointer(field), Some(&value), "{form:?}");
    }
    for form in
        [VendorApi::OpenAi, VendorApi::Google, VendorApi::Mistral, VendorApi::Voyage, VendorApi::Ollama]
    {
        let mut asked = request(&["a"]);
        asked.truncate = Some(Truncate::Start);
        let error = adapter(&vendors, form, "m").await.embed(asked).await.unwrap_err();
        assert!(error.message.starts_with("truncate: "), "{form:?}: {error}");
    }
}
