//! Allow-lists and dimensions, and how lists, metrics and headers report them.

use serde_json::json;

use crate::gateway::{ApiResponse, Gateway};

#[tokio::test]
async fn a_model_outside_the_allow_list_is_refused_and_marked_in_the_model_list() {
    let file = "policy: {allowed_providers: [openai], allowed_models: ['text-embedding-3-*']}\n";
    let gateway = Gateway::with(file, &[]).await;
    let ask = async |model| gateway.embed(&json!({"input": "x", "model": model})).await;
    assert_eq!(ask("text-embedding-3-small").await.status, 200);
    let model = ask("text-embedding-ada-002").await;
    assert_eq!((model.status.as_u16(), model.code()), (403, "forbidden"));
    let provider = ask("voyage-4").await;
    assert_eq!(provider.status, 403);
    assert!(provider.message().contains("provider 'voyage'"), "{}", provider.json);
    let denied =
        r#"embedding_policy_denied_total{provider="voyage",model="voyage-4",policy_type="provider"}"#;
    assert_eq!(gateway.metric(denied).await, Some(1.0));
    let models = gateway.get("/api/v1/embeddings/models").await;
    assert_eq!(models["allowed_providers"], json!(["openai"]));
    assert_eq!(models["allowed_models"], json!(["text-embedding-3-*"]));
    for model in models["data"].as_array().unwrap() {
        let expected =
            model["provider"] == "openai" && model["id"].as_str().unwrap().starts_with("text-embedding-3-");
        assert_eq!(model["allowed"], expected, "{model}");
    }
    let lax = Gateway::with(file, &[("EMBEDDINGS_ENFORCE_POLICY", "false")]).await;
    assert_eq!(lax.embed(&json!({"input": "x", "model": "voyage-4"})).await.status, 200);
}

#[tokio::test]
async fn dimensions_are_forwarded_to_vendors_that_support_them_and_reduced_for_others() {
    let gateway = Gateway::start().await;
    let ask = |model: &'static str, dimensions: usize| {
        let body = json!({"input": "x", "model": model, "dimensions": dimensions});
        ApiResponse::of(gateway.request(reqwest::Method::POST, "/api/v1/embeddings").json(&body))
    };
    let small = ask("text-embedding-3-small", 512).await;
    assert_eq!((small.status.as_u16(), small.vector(0).len()), (200, 512), "{}", small.json);
    assert_eq!(gateway.vendors.requests()[0].body["dimensions"], 512);
    let ada = ask("text-embedding-ada-002", 512).await;
    assert_eq!((ada.vector(0).len(), ada.header("x-embeddings-dimensions-policy")), (512, "reduce"));
    assert!(gateway.vendors.requests()[1].body.get("dimensions").is_none());
    let length = ada.vector(0).iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    let adjusted = r#"embedding_dimension_adjustments_total{provider="openai",model="text-embedding-ada-002",method="reduce"}"#;
    assert_eq!(gateway.metric(adjusted).await, Some(1.0));
    let more = ask("text-embedding-ada-002", 4096).await;
    assert_eq!((more.status.as_u16(), more.json["error"]["param"].as_str()), (400, Some("dimensions")));
}
