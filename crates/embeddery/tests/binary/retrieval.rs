//! The labelled set of the store's tests, in English, with a real model: recall among the first ten results in each mode.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::support::{KEY, Server, models};

#[tokio::test]
async fn labelled_passages_are_found_in_every_mode() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/retrieval/en.json");
    let set: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let server = Server::with(|command| {
        command
            .env("EMBEDDINGS_MODEL_STORAGE_DIR", models())
            .env("SINGLE_USER_API_KEY", KEY)
            .env("USER_DB_BASE_DIR", data.path());
    });
    let collections = "/api/v1/embeddings/collections";
    let post = async |path: &str, body: Value| -> Value {
        let response = server.post(path, &body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    };
    post(collections, json!({"name": "labelled"})).await;
    let documents: Vec<Value> = (1..)
        .zip(set["passages"].as_array().unwrap())
        .map(|(id, text)| json!({"id": id.to_string(), "text": text}))
        .collect();
    post(&format!("{collections}/labelled/documents"), json!({"documents": documents})).await;

    let queries = set["queries"].as_array().unwrap();
    for (mode, score_kind, floor) in
        [("vector", "cosine", 0.95), ("text", "bm25", 0.9), ("hybrid", "rrf", 0.95)]
    {
        let mut recall = 0.0;
        for query in queries {
            let body = json!({"query": query["text"], "mode": mode, "top_k": 10});
            let found = post(&format!("{collections}/labelled/search"), body).await;
            let hits = found["results"].as_array().unwrap();
            for hit in hits {
                assert_eq!(hit["score_kind"], score_kind);
                assert_eq!(hit["cosine"].is_number(), mode != "text", "{hit}");
                assert_eq!(hit["text_rank"].is_number(), hit["text_score"].is_number(), "{hit}");
            }
            let relevant = query["relevant"].as_array().unwrap();
            let has = |id: &&Value| hits.iter().any(|hit| hit["document_id"] == id.to_string());
            recall += relevant.iter().filter(has).count() as f64 / relevant.len() as f64;
        }
        recall /= queries.len() as f64;
        assert!(recall >= floor, "recall@10 of mode {mode} is {recall}");
    }
}
