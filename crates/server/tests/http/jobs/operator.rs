//! The operator's routes for jobs, which are those of the replaced service.

use embeddery_pipeline::Priority;
use serde_json::json;

use super::{JOBS, request};
use crate::support::{Answer, Server};

const SKIP: &str = "/api/v1/embeddings/job/skip";
const BUMP: &str = "/api/v1/embeddings/job/priority/bump";
const LEDGER: &str = "/api/v1/embeddings/ledger/status";

#[tokio::test]
async fn a_job_is_skipped() {
    let server = Server::start().await;
    let id = server.submitted(3).await;
    let status = async || server.get(&format!("{SKIP}/status?job_id={id}")).await.json;
    assert_eq!(status().await, json!({"job_id": id.to_string(), "skipped": false}));
    server.work(id, 0).await;
    let answer = server.post(SKIP, &json!({"job_id": id.to_string()})).await;
    assert_eq!(answer.json, json!({"ok": true, "job_id": id.to_string(), "ttl_seconds": 604_800}));
    assert_eq!(status().await["skipped"], true);
    assert_eq!(server.job(id).await["documents"]["skipped"], 2);
    assert_eq!(server.queued("1").await, 0);
    let log = std::fs::read_to_string(server.dir.path().join("audit.jsonl")).unwrap();
    assert!(log.contains("admin_action") && log.contains(SKIP), "{log}");

    assert_eq!(server.post(SKIP, &json!({"job_id": "nothing"})).await.status, 404);
    assert_eq!(server.post(SKIP, &json!({"job_id": id.to_string(), "ttl_seconds": 59})).await.status, 400);
    assert_eq!(server.post(SKIP, &json!({})).await.status, 422);
    assert_eq!(server.get(&format!("{SKIP}/status?job_id=nothing")).await.json["skipped"], false);
    assert_eq!(server.get(&format!("{SKIP}/status")).await.status, 400);
}

#[tokio::test]
async fn a_job_gets_another_priority() {
    let server = Server::start().await;
    let id = server.submitted(2).await;
    let body = json!({"job_id": id.to_string(), "priority": "high"});
    let answer = server.post(BUMP, &body).await;
    assert_eq!(
        answer.json,
        json!({"status": "ok", "job_id": id.to_string(), "priority": "high", "ttl_seconds": 600})
    );
    assert_eq!(server.job(id).await["priority"], "high");
    let unfinished = server.jobs.unfinished(std::time::Duration::ZERO, None, 10).await.unwrap();
    assert_eq!(unfinished[0].priority, Priority::High);
    for (field, value, status) in
        [("priority", json!("urgent"), 400), ("ttl_seconds", json!(86_401), 400), ("job_id", json!("x"), 404)]
    {
        let mut bad = body.clone();
        bad[field] = value;
        assert_eq!(server.post(BUMP, &bad).await.status, status, "{field}");
    }
    server.work(id, 0).await;
    server.work(id, 1).await;
    assert_eq!(server.post(BUMP, &body).await.status, 404, "it has ended");
}

#[tokio::test]
async fn the_ledger_knows_keys() {
    let server = Server::start().await;
    let sent = server.request(reqwest::Method::POST, JOBS).header("idempotency-key", "k").json(&request(1));
    let id = super::id_of(&Answer::of(sent).await);
    let ask = async || server.get(&format!("{LEDGER}?idempotency_key=k")).await.json["idempotency"].clone();
    let entry = ask().await;
    assert_eq!((&entry["key"], &entry["status"]), (&json!("k"), &json!("in_progress")));
    assert_eq!((&entry["job_id"], &entry["ttl_seconds"]), (&json!(id.to_string()), &json!(null)));
    let raw: serde_json::Value = serde_json::from_str(entry["raw"].as_str().unwrap()).unwrap();
    assert_eq!(raw["ts"], entry["ts"]);
    server.work(id, 0).await;
    let entry = ask().await;
    assert_eq!(entry["status"], "completed");
    assert!(entry["ttl_seconds"].as_u64().unwrap() > 600_000, "{entry}");
    let none = server.get(&format!("{LEDGER}?dedupe_key=x")).await.json;
    assert_eq!(none, json!({"idempotency": null, "dedupe": null}));
    assert_eq!(server.get(LEDGER).await.status, 400);
}
