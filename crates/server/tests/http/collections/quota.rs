//! The quota of stored vectors with concurrent writers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use embeddery_accounts::ledger::Quotas;
use embeddery_core::DimensionPolicy;
use embeddery_pipeline::{
    Stage, Worker, WorkerConfig, WorkerMetrics,
    stages::{PausedProviders, StageContext},
};
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use reqwest::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::BASE;
use crate::{
    jobs::id_of,
    support::{Answer, Server},
};

const QUOTA: usize = 10;
const WRITERS: usize = 20;

/// A server whose users may store [`QUOTA`] vectors, with a collection of the model `test/gated`, whose calls wait
/// for permits of the gate.
async fn with_gated_collection() -> Server {
    let server = Server::with_accounts(|_, accounts| {
        accounts.ledger.quotas = Quotas { stored_vectors: Some(QUOTA as u64), ..Quotas::default() };
    })
    .await;
    server.fake.gate.add_permits(1);
    let created = server.post(BASE, &json!({"name": "notes", "embedding_model": "test/gated"})).await;
    assert_eq!(created.status, 201, "{}", created.text);
    server
}

/// Adds a document of one chunk.
async fn add(server: &Server, id: &str) -> Answer {
    let body = json!({"documents": [{"id": id, "text": format!("text of {id}")}]});
    server.post(&format!("{BASE}/notes/documents"), &body).await
}

/// Vectors in the collection, and vectors in the account.
async fn stored(server: &Server) -> (u64, u64) {
    let stats = server.get(&format!("{BASE}/notes/stats")).await;
    let quotas = server.get("/api/v1/embeddings/tenant/quotas").await;
    let count = |answer: &Answer, path| answer.json.pointer(path).and_then(|count| count.as_u64());
    (count(&stats, "/count").unwrap(), count(&quotas, "/stored_vectors/used").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_fill_the_quota_and_do_not_exceed_it() {
    let server = with_gated_collection().await;
    let before = *server.fake.begun.borrow();
    let ids: Vec<String> = (0..WRITERS).map(|writer| format!("d{writer}")).collect();
    let open_gate = async {
        server.fake.has_begun(before + QUOTA).await;
        // The other writers meet the quota while the first ones embed.
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.fake.gate.add_permits(WRITERS);
    };
    let (answers, ()) = tokio::join!(join_all(ids.iter().map(|id| add(&server, id))), open_gate);
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(stored(&server).await, (QUOTA as u64, QUOTA as u64));
    assert_eq!(accepted, QUOTA);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((refused.status.as_u16(), refused.code()), (429, "quota_exceeded"), "{}", refused.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_of_the_same_document_are_not_refused() {
    let server = with_gated_collection().await;
    server.fake.gate.add_permits(100);
    let documents: Vec<_> =
        (0..QUOTA).map(|i| json!({"id": format!("d{i}"), "text": format!("text {i}")})).collect();
    let (body, path) = (json!({ "documents": documents }), format!("{BASE}/notes/documents"));
    let answers = join_all((0..WRITERS).map(|_| server.post(&path, &body))).await;
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(stored(&server).await, (QUOTA as u64, QUOTA as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vectors_of_a_writer_that_fails_or_disconnects_are_available_to_others() {
    let server = with_gated_collection().await;
    let before = *server.fake.begun.borrow();
    let path = format!("{BASE}/notes/documents");
    let documents: Vec<_> =
        (0..QUOTA).map(|i| json!({"id": format!("d{i}"), "text": format!("text {i}")})).collect();
    // The first writer reserves the whole quota, and its caller disconnects while the model works.
    let first = server.request(Method::POST, &path).json(&json!({ "documents": documents })).send();
    let begun = async { server.fake.has_begun(before + 1).await };
    tokio::select! { _ = first => unreachable!("the gate is shut"), () = begun => {} }
    server.fake.has_ended(before + 1).await;
    server.fake.gate.add_permits(100);
    let answers = join_all((0..QUOTA).map(async |i| add(&server, &format!("e{i}")).await)).await;
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(stored(&server).await, (QUOTA as u64, QUOTA as u64));
    // Deleted vectors can be stored again at once.
    let deleted = server.request(Method::DELETE, &path).json(&json!({"ids": ["e0", "e1"]}));
    assert_eq!(Answer::of(deleted).await.json["deleted"], 2);
    assert_eq!(add(&server, "f0").await.status, 200);
    assert_eq!(add(&server, "f1").await.status, 200);
    assert_eq!(add(&server, "f2").await.code(), "quota_exceeded");
    assert_eq!(stored(&server).await, (QUOTA as u64, QUOTA as u64));
}

/// Starts a worker of all stages in the process of the server.
fn start_worker(server: &Server, stop: &CancellationToken) {
    let context = StageContext {
        jobs: Arc::clone(&server.jobs),
        ingest: server.ingest.clone(),
        dimension_policy: DimensionPolicy::Reduce,
        paused_providers: PausedProviders::default(),
        timeout: Duration::from_secs(60),
    };
    let config = WorkerConfig {
        stages: Stage::ALL.to_vec(),
        concurrency: 2,
        slots: BTreeMap::from([(Stage::Chunking, 4), (Stage::Embedding, 4), (Stage::Storage, 4)]),
        lease: Duration::from_secs(10),
        deadline: Duration::from_secs(120),
        max_attempts: 3,
        backoff: Duration::from_millis(10),
        grace: Duration::from_secs(5),
        host: "test".into(),
    };
    let metrics = WorkerMetrics::new(&mut Registry::default());
    let worker = Worker::new(Arc::new(context), server.queue.clone(), config, metrics).unwrap();
    tokio::spawn(worker.run(stop.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_and_concurrent_writers_share_the_quota() {
    let server = with_gated_collection().await;
    server.fake.gate.add_permits(1000);
    let stop = CancellationToken::new();
    start_worker(&server, &stop);
    let documents: Vec<_> = (0..WRITERS)
        .map(|i| json!({"id": format!("j{i}"), "text": format!("text {i} of the job")}))
        .collect();
    let body = json!({"collection": "notes", "documents": documents});
    let submit = server.submit(&body);
    let ids: Vec<String> = (0..WRITERS).map(|writer| format!("d{writer}")).collect();
    let (job, answers) = tokio::join!(submit, join_all(ids.iter().map(|id| add(&server, id))));
    let id = id_of(&job);
    let ended = loop {
        let job = server.job(id).await;
        assert!(stored(&server).await.0 <= QUOTA as u64, "the quota is exceeded: {job}");
        if !["pending", "running"].contains(&job["status"].as_str().unwrap()) {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    stop.cancel();
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.code(), "quota_exceeded", "{}", answer.text);
    }
    assert_eq!(stored(&server).await, (QUOTA as u64, QUOTA as u64), "{ended}");
}
