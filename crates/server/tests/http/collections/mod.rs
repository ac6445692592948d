//! Collections through the API, in the embedded store.

mod bad_input;
mod deletions;
mod documents;
mod export_import;
mod lifecycle;
mod numbers;
mod quota;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const BASE: &str = "/api/v1/embeddings/collections";

/// A server with a collection `notes`.
async fn with_notes() -> Server {
    let server = Server::start().await;
    let made = server.post(BASE, &json!({"name": "notes", "metadata": {"topic": "all"}})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    server
}

fn path(rest: &str) -> String {
    format!("{BASE}/notes{rest}")
}

async fn add(server: &Server, body: &Value) -> Answer {
    server.post(&path("/documents"), body).await
}

async fn search(server: &Server, body: &Value) -> Answer {
    server.post(&path("/search"), body).await
}

async fn delete(server: &Server, path: &str, body: Option<Value>) -> Answer {
    let request = server.request(Method::DELETE, path);
    Answer::of(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

/// The document ids of the results of a search.
fn found(answer: &Answer) -> Vec<&str> {
    let results = answer.json["results"].as_array().unwrap_or_else(|| panic!("no results: {}", answer.text));
    results.iter().map(|hit| hit["document_id"].as_str().unwrap()).collect()
}

fn three() -> Value {
    json!({"documents": [
        {"id": "fox", "text": "The quick brown fox", "metadata": {"kind": "animal", "legs": 4}},
        {"id": "hen", "text": "A hen on the roof", "metadata": {"kind": "animal", "legs": 2}},
        {"id": "table", "text": "A table of oak", "metadata": {"kind": "thing", "legs": 4}},
    ]})
}
