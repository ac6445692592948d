//! After an outage of a provider, Redis or the disk, all jobs complete, and no document is charged an attempt.

use std::time::Duration;

use embeddery_test_support::vendors::Behaviour;
use reqwest::Method;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterConfig};

fn documents(count: usize) -> Vec<(String, String)> {
    (0..count).map(|i| (format!("d{i}"), format!("Document number {i}."))).collect()
}

async fn attempts(cluster: &Cluster, job: &str) -> Vec<u64> {
    let path = format!("/api/v1/embeddings/jobs/{job}/documents?limit=1000");
    let (_, response) = cluster.send_until_available(|| cluster.request(Method::GET, &path)).await;
    let rows = response["documents"].as_array().unwrap_or_else(|| panic!("{response}"));
    rows.iter().map(|row| row["attempts"].as_u64().unwrap_or(0)).collect()
}

/// The records of documents that are leased at the stage embedding.
fn leased(cluster: &Cluster, job: &str) -> Vec<Value> {
    let records = cluster.ask_redis(&["HVALS", &format!("{{embeddings}}:job:{job}")]);
    let records = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["st"] == "l" && record["s"] == "embedding").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_provider_is_not_charged_as_an_attempt() {
    let extra_config =
        "breaker: {failures: 2, open_seconds: 1}\nretry: {max_retries: 1, base_delay_seconds: 0.05}";
    let cluster = Cluster::start(ClusterConfig { workers: 1, extra_config }).await;
    cluster.vendors.set_default(Some(Behaviour::Status(503)));
    let job = cluster.submit("down", "notes", &documents(50)).await;
    while cluster.vendors.requests().len() < 6 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.job(&job).await["status"], "running");
    cluster.vendors.set_default(None);
    assert_eq!(cluster.ended(&job).await["status"], "completed");
    assert!(attempts(&cluster, &job).await.iter().all(|attempts| *attempts == 0));
    assert_eq!(cluster.stored("notes").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_redis_longer_than_a_lease_is_not_charged_as_an_attempt() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 2, extra_config: "" }).await;
    let held = cluster.vendors.hold();
    let job = cluster.submit("away", "notes", &documents(20)).await;
    held.arrived(1).await;
    let before = leased(&cluster, &job);
    assert!(!before.is_empty());
    // Longer than two leases.
    cluster.redis.as_mut().unwrap().kill().unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.redis.as_mut().unwrap().restart().unwrap();
    // The same time again, in which other workers look for expired leases.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = leased(&cluster, &job);
    for record in &before {
        assert!(after.contains(record), "{record} has lost its lease: {after:?}");
    }
    assert!(after.iter().all(|record| record["d"] == 0 && record["a"] == 0), "{after:?}");
    held.release();
    assert_eq!(cluster.ended(&job).await["status"], "completed", "{}", cluster.logs());
    assert!(attempts(&cluster, &job).await.iter().all(|attempts| *attempts == 0));
    assert_eq!(cluster.vendors.texts().len(), 20, "each text is embedded once");
    assert_eq!(cluster.stored("notes").await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_waits_while_the_disk_is_full() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    // The API runs with the default of min_free_bytes. The worker gets a value that no disk has free.
    let config = cluster.dir.path().join("embeddery.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}collections: {{min_free_bytes: 1000000000000000}}\n")).unwrap();
    cluster.kill_worker(0);
    let job = cluster.submit("full", "notes", &documents(5)).await;
    let at_storage = |job: &Value| job["documents"]["storage"] == 5;
    cluster.until(&job, Duration::from_secs(60), at_storage).await;
    std::fs::write(&config, text).unwrap();
    cluster.kill_worker(0);
    assert_eq!(cluster.ended(&job).await["status"], "completed");
    assert!(attempts(&cluster, &job).await.iter().all(|attempts| *attempts == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_reports_that_redis_is_unavailable() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let summary = async |cluster: &Cluster| {
        let request = cluster.request(Method::GET, "/api/v1/embeddings/orchestrator/summary");
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let until_available = async |cluster: &Cluster| loop {
        let (status, seen) = summary(cluster).await;
        assert_eq!(status, 200, "{seen}");
        if seen["unreachable"] == serde_json::json!({}) {
            assert_eq!(seen["queues"]["embeddings:chunking"], 0, "{seen}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    until_available(&cluster).await;
    cluster.redis.as_mut().unwrap().kill().unwrap();
    let (status, seen) = summary(&cluster).await;
    assert_eq!((status, &seen["queues"]), (200, &serde_json::json!({})), "{seen}");
    assert!(
        seen["unreachable"]["queue"].as_str().unwrap().contains("queue") && seen["ts"].is_f64(),
        "{seen}"
    );
    assert!(seen["unreachable"]["jobs"].is_null(), "{seen}");
    let events = cluster.request(Method::GET, "/api/v1/embeddings/orchestrator/events").send().await;
    let first = events.unwrap().chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: error\ndata: {\"error\":"), "{first:?}");
    let metrics = cluster.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\norchestrator_summary_failures_total 2\n"), "{metrics}");
    cluster.redis.as_mut().unwrap().restart().unwrap();
    until_available(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_restored_after_redis_lost_its_data() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let held = cluster.vendors.hold();
    let job = cluster.submit("lost", "notes", &documents(20)).await;
    held.arrived(1).await;
    cluster.redis.as_mut().unwrap().restart_empty().unwrap();
    held.release();
    assert_eq!(cluster.ended(&job).await["status"], "completed");
    assert_eq!(cluster.stored("notes").await.len(), 20);
}
