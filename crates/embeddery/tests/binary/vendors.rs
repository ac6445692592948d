//! `embeddery serve` with remote providers: fake vendors over real HTTP.

use crate::support::{KEY, Server, command, run};
use embeddery_test_support::vendors::{Behaviour, VendorApi, Vendors, vector};
use serde_json::{Value, json};

const SECRET: &str = "sk-the-vendors-secret-key";

/// A server whose providers are the fake vendors.
fn server(vendors: &Vendors) -> Server {
    Server::with(|command| {
        command.env("SINGLE_USER_API_KEY", KEY);
        for (variable, form) in [
            ("OPENAI", VendorApi::OpenAi),
            ("COHERE", VendorApi::Cohere),
            ("GOOGLE", VendorApi::Google),
            ("MISTRAL", VendorApi::Mistral),
        ] {
            command.env(format!("{variable}_API_KEY"), SECRET);
            command.env(format!("{variable}_BASE_URL"), vendors.base_url(form));
        }
        // Voyage has no key.
        command.env("VOYAGE_BASE_URL", vendors.base_url(VendorApi::Voyage));
        command.env("LOCAL_API_URL", vendors.base_url(VendorApi::OllamaLegacy));
    })
}

async fn ask(server: &Server, body: Value) -> (u16, Value) {
    let answer = server.post("/v1/embeddings", &body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_vendors_model_is_served_under_its_own_name() {
    let vendors = Vendors::start().await;
    let server = server(&vendors);
    for (model, length) in [
        ("text-embedding-3-small", 1536),
        ("embed-v4.0", 1536),
        ("gemini-embedding-001", 3072),
        ("mistral-embed", 1024),
        ("local_api:nomic-embed-text:latest", 16),
    ] {
        let (status, answer) = ask(&server, json!({"model": model, "input": "hello"})).await;
        assert_eq!(status, 200, "{model}: {answer}");
        let numbers = answer["data"][0]["embedding"].as_array().unwrap();
        for (got, due) in numbers.iter().zip(vector("hello", length)) {
            assert!((got.as_f64().unwrap() as f32 - due).abs() < 1e-6, "{model}");
        }
        assert_eq!(numbers.len(), length);
    }
    let listed: Value = reqwest::Client::new()
        .get(format!("{}/v1/models", server.url))
        .bearer_auth(KEY)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let ids: Vec<_> =
        listed["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert!(ids.contains(&"text-embedding-3-large") && !ids.contains(&"voyage-4"), "{ids:?}");
}

#[tokio::test]
async fn a_missing_key_is_a_503_that_names_the_variable() {
    let vendors = Vendors::start().await;
    let server = server(&vendors);
    let (status, answer) = ask(&server, json!({"model": "voyage-4", "input": "hello"})).await;
    assert_eq!(status, 503);
    assert!(answer["error"]["message"].as_str().unwrap().contains("VOYAGE_API_KEY"), "{answer}");
    assert!(vendors.requests().is_empty());
}

#[tokio::test]
async fn a_revoked_key_is_a_502_without_the_key() {
    let vendors = Vendors::start().await;
    let server = server(&vendors);
    vendors.set_default(Some(Behaviour::Unauthorized));
    let (status, answer) = ask(&server, json!({"model": "text-embedding-3-small", "input": "hello"})).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (502, Some("upstream_unauthorized")));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("openai") && message.contains("OPENAI_API_KEY"), "{message}");
    assert!(!answer.to_string().contains(SECRET) && !server.log().contains(SECRET));
}

#[tokio::test]
async fn a_model_name_with_a_header_injection_is_not_sent() {
    let vendors = Vendors::start().await;
    let server = server(&vendors);
    let (status, answer) = ask(&server, json!({"model": "google:m\r\nX-Evil: 1", "input": "hello"})).await;
    assert_eq!(status, 404, "{answer}");
    assert!(vendors.requests().is_empty());
}

#[test]
fn an_invalid_url_stops_the_start_with_the_variables_name() {
    let dir = tempfile::tempdir().unwrap();
    for (variable, text) in [("OPENAI_BASE_URL", "api.openai.com"), ("COHERE_BASE_URL", "not a url")] {
        let mut command = command(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
        command.env(variable, text);
        let (code, _, stderr) = run(command);
        assert_eq!(code, 2);
        assert!(stderr.contains(&format!("{variable}: '{text}' is not a URL")), "{stderr}");
    }
}
