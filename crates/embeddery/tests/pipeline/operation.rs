//! Operation of a cluster: stopping and starting workers, cancelling jobs, versions, and configuration errors.

use std::{process::Stdio, time::Duration};

use embeddery_test_support::redis::Redis;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, ClusterConfig, ended},
    support::{KEY, command, run},
    tokens::token,
};

fn documents(count: usize) -> Vec<(String, String)> {
    (0..count).map(|i| (format!("d{i}"), format!("Document number {i}."))).collect()
}

fn signal(child: &std::process::Child, name: &str) {
    let status =
        std::process::Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_finishes_its_documents_after_sigterm() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let held = cluster.vendors.hold();
    let job = cluster.submit("stop", "notes", &documents(3)).await;
    held.arrived(1).await;
    signal(&cluster.workers[0], "TERM");
    held.release();
    assert!(cluster.workers[0].wait().unwrap().success());
    assert_eq!(cluster.job(&job).await["status"], "running");
    cluster.kill_worker(0); // the worker has ended; this starts a new one
    assert_eq!(cluster.ended(&job).await["status"], "completed");
    assert_eq!(cluster.vendors.texts().len(), 3, "the documents in progress are not embedded again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_worker_at_once() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let held = cluster.vendors.hold();
    cluster.submit("stop", "notes", &documents(3)).await;
    held.arrived(1).await;
    signal(&cluster.workers[0], "TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    signal(&cluster.workers[0], "TERM");
    assert_eq!(cluster.workers[0].wait().unwrap().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_embeds_no_further_documents() {
    let cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let held = cluster.vendors.hold();
    let job = cluster.submit("cancel", "notes", &documents(300)).await;
    held.arrived(1).await;
    let path = format!("/api/v1/embeddings/jobs/{job}");
    let (status, _) = cluster.send_until_available(|| cluster.request(Method::DELETE, &path)).await;
    assert_eq!(status, 202);
    held.release();
    assert_eq!(cluster.ended(&job).await["status"], "cancelled");
    let next = cluster.submit("next", "other", &documents(3)).await;
    assert_eq!(cluster.ended(&next).await["status"], "completed");
    assert!(cluster.vendors.texts().len() < 150, "{}", cluster.vendors.texts().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_twice_is_one_job() {
    let cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let documents = documents(30);
    let submit = || cluster.submit("k", "notes", &documents);
    let (first, second) = tokio::join!(submit(), submit());
    assert_eq!(first, second);
    cluster.ended(&first).await;
    assert_eq!(cluster.vendors.texts().len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_reports_that_no_worker_runs() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let job = cluster.submit("k", "notes", &documents(1)).await;
    cluster.ended(&job).await;
    crate::cluster::kill(&mut cluster.workers[0]);
    // The test waits until the worker's last heartbeat expires.
    let says =
        async || cluster.send_until_available(|| cluster.request(Method::GET, "/ready")).await.1.to_string();
    while !says().await.contains("no worker") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_tenant_does_not_wait_for_a_large_one() {
    small_before_large(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; `make soak`"]
async fn soak_a_small_tenant_does_not_wait_for_a_large_one() {
    small_before_large(10_000).await;
}

async fn small_before_large(count: usize) {
    let mut cluster =
        Cluster::start(ClusterConfig { workers: 2, extra_config: "auth: {mode: multi_user}" }).await;
    let (ann, bob) = (token("ann", "user"), token("bob", "user"));
    cluster.key.clone_from(&ann);
    let held = cluster.vendors.hold();
    let large = cluster.submit("large", "notes", &documents(count)).await;
    held.arrived(1).await;
    cluster.key = bob;
    let small = cluster.submit("small", "notes", &documents(5)).await;
    held.release();
    assert_eq!(cluster.ended(&small).await["status"], "completed");
    cluster.key = ann;
    let job = cluster.job(&large).await;
    assert!(!ended(&job), "the large job is still running: {job}");
    let job = cluster.until(&large, Duration::from_secs(600), ended).await;
    assert_eq!(job["documents"]["stored"].as_u64(), Some(count as u64), "{job}");
}

/// A worker finds a message of a newer version and an unreadable message in its queue.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_newer_version_wait_and_unreadable_ones_are_replaced() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    crate::cluster::kill(&mut cluster.workers[0]);
    let job = cluster.submit("versions", "notes", &documents(10)).await;
    let record = format!("{{embeddings}}:job:{job}");
    let message = cluster.ask_redis(&["HGET", &record, "3"]);
    assert!(message.contains("\"v\":1"), "{message}");
    let write = |item: &str, text: &str| cluster.ask_redis(&["HSET", &record, item, text]);
    write("3", &message.replace("\"v\":1", "\"v\":2,\"new\":\"words\""));
    write("5", "this is no message");
    cluster.kill_worker(0); // the worker has ended; this starts a new one
    let nine = |job: &Value| job["documents"]["stored"] == 9;
    let waits = cluster.until(&job, Duration::from_secs(60), nine).await;
    assert_eq!((&waits["status"], &waits["documents"]["failed"]), (&json!("running"), &json!(0)), "{waits}");
    let path = "/api/v1/embeddings/orchestrator/summary";
    let (_, summary) = cluster.send_until_available(|| cluster.request(Method::GET, path)).await;
    assert_eq!(
        summary["newer"],
        json!({"embeddings:chunking": 1, "embeddings:embedding": 0, "embeddings:storage": 0})
    );
    let dlq = "/api/v1/embeddings/dlq?stage=chunking";
    let (_, dead_letters) = cluster.send_until_available(|| cluster.request(Method::GET, dlq)).await;
    assert!(dead_letters.to_string().contains("unreadable"), "{dead_letters}");
    let kept = cluster.ask_redis(&["HGET", &record, "3"]);
    for part in ["\"new\":\"words\"", "\"a\":0", "\"d\":0"] {
        assert!(kept.contains(part), "{kept}");
    }
    // Stands for a worker of the newer version: the message gets the version that this worker knows.
    cluster.ask_redis(&["HSET", &record, "3", &kept.replace("\"v\":2", "\"v\":1")]);
    cluster.ask_redis(&["ZADD", "{embeddings}:chunking:newer", "1", &format!("{job}:3")]);
    assert_eq!(cluster.ended(&job).await["status"], "completed", "{}", cluster.logs());
    assert_eq!(cluster.stored("notes").await.len(), 10);
}

#[test]
fn a_worker_without_redis_names_the_missing_setting() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(command(dir.path(), &["worker"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("REDIS_URL"), "{stderr}");
    let (code, _, stderr) = run(command(dir.path(), &["worker", "--stages", "chunking,storing"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("'storing' is unknown"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_state_directory_stops_and_names_the_fix() {
    let cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let job = cluster.submit("k", "notes", &documents(1)).await;
    cluster.ended(&job).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = command(elsewhere.path(), &["worker", "--stages", "storage"]);
    command.env("REDIS_URL", cluster.redis.as_ref().unwrap().url()).env("SINGLE_USER_API_KEY", KEY);
    let (code, _, stderr) = run(command);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("DATABASE_URL") && stderr.contains("USER_DB_BASE_DIR"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_redis_and_logs_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut redis = Redis::durable().unwrap();
    redis.kill().unwrap();
    let mut command = command(dir.path(), &["worker"]);
    command.env("REDIS_URL", redis.url()).stdout(Stdio::null());
    let log = dir.path().join("log");
    let mut worker = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    let waiting = async {
        while !logged("the queue is unreachable") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        redis.restart().unwrap();
        while !logged("processing documents") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    crate::cluster::kill(&mut worker);
    assert!(waited.is_ok(), "{}", std::fs::read_to_string(&log).unwrap());
}
