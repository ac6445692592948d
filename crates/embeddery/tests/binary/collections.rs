//! Collections with the real model: semantic search, and acknowledged writes that survive a kill.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex},
};

use super::support::{KEY, Server, models};
use serde_json::{Value, json};

const BASE: &str = "/api/v1/embeddings/collections";

fn on(data: &Path) -> Server {
    Server::with(|command| {
        command
            .env("EMBEDDINGS_MODEL_STORAGE_DIR", models())
            .env("SINGLE_USER_API_KEY", KEY)
            .env("USER_DB_BASE_DIR", data);
    })
}

async fn post(server: &Server, path: &str, body: Value) -> Value {
    let answer = server.post(&format!("{BASE}{path}"), &body).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn get(server: &Server, path: &str) -> Value {
    let url = format!("{}{BASE}{path}", server.url);
    reqwest::Client::new().get(url).bearer_auth(KEY).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn semantic_search_finds_documents_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let server = on(data.path());
    server.ready().await;
    post(&server, "", json!({"name": "notes"})).await;
    let long = "The hotel lies at the lake. ".repeat(40) + "Money is given back within thirty days.";
    let documents = json!([
        {"id": "cook", "text": "Boil the potatoes for twenty minutes."},
        {"id": "long", "text": long},
        {"id": "cat", "text": "Our cat sleeps all day."},
    ]);
    let chunking = json!({"method": "recursive", "size": 40, "overlap": 0});
    post(&server, "/notes/documents", json!({"documents": documents, "chunking": chunking})).await;
    drop(server);

    let server = on(data.path());
    server.ready().await;
    let found = post(&server, "/notes/search", json!({"query": "How do I get a refund?", "top_k": 1})).await;
    let hit = &found["results"][0];
    assert_eq!(hit["document_id"], "long");
    let (from, to) = (hit["bytes"][0].as_u64().unwrap() as usize, hit["bytes"][1].as_u64().unwrap() as usize);
    assert_eq!(hit["text"], long[from..to]);
    assert!(hit["text"].as_str().unwrap().contains("Money is given back"));
    assert!(data.path().join("1").join("vectors.db").is_file(), "each user has a directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_during_writes_loses_no_acknowledged_document() {
    let data = tempfile::tempdir().unwrap();
    let mut server = on(data.path());
    server.ready().await;
    post(&server, "", json!({"name": "notes"})).await;
    let acknowledged: Arc<Mutex<HashSet<String>>> = Arc::default();
    let enough = Arc::new(tokio::sync::Notify::new());
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (acknowledged, enough) = (Arc::clone(&acknowledged), Arc::clone(&enough));
            let url = format!("{}{BASE}/notes/documents", server.url);
            tokio::spawn(async move {
                for round in 0.. {
                    let ids: Vec<String> = (0..5).map(|i| format!("{writer}-{round}-{i}")).collect();
                    let documents: Vec<Value> = ids
                        .iter()
                        .map(|id| json!({"id": id, "text": format!("First {id}. Second {id}.")}))
                        .collect();
                    let chunking = json!({"method": "sentences", "size": 3, "overlap": 0, "unit": "words"});
                    let body = json!({"documents": documents, "chunking": chunking});
                    let sent = reqwest::Client::new().post(&url).bearer_auth(KEY).json(&body).send().await;
                    // The process was killed.
                    let Ok(answer) = sent else { return };
                    if answer.status() != 200 {
                        return;
                    }
                    let mut all = acknowledged.lock().unwrap();
                    all.extend(ids);
                    if all.len() >= 100 {
                        enough.notify_one();
                    }
                }
            })
        })
        .collect();
    enough.notified().await;
    server.signal("KILL");
    server.wait();
    for writer in writers {
        writer.await.unwrap();
    }

    let server = on(data.path());
    let (mut there, mut vectors, mut after) = (HashSet::new(), 0, String::new());
    loop {
        let page = get(&server, &format!("/notes/documents?limit=50&after={after}")).await;
        for document in page["documents"].as_array().unwrap() {
            assert!(
                document["chunks"].as_u64().unwrap() >= 2,
                "a document is stored incompletely: {document}"
            );
            vectors += document["chunks"].as_u64().unwrap();
            there.insert(document["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    let lost: Vec<String> = acknowledged.lock().unwrap().difference(&there).cloned().collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let stats = get(&server, "/notes/stats").await;
    assert_eq!(stats["count"], vectors, "as many vectors as chunks");
}
