//! What an operator does: stop, start, look, get something wrong.

use std::{process::Stdio, time::Duration};

use embeddery_test_support::redis::Redis;
use reqwest::Method;

use crate::{
    cluster::{Cluster, Plan, ended},
    support::{KEY, command, run},
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
async fn a_worker_that_is_told_to_stop_finishes_its_documents() {
    let mut cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
    let held = cluster.vendors.hold();
    let job = cluster.submit("stop", "notes", &documents(3)).await;
    held.arrived(1).await;
    signal(&cluster.workers[0], "TERM");
    held.release();
    assert!(cluster.workers[0].wait().unwrap().success());
    assert_eq!(cluster.job(&job).await["status"], "running");
    cluster.kill_worker(0); // it is dead already: this starts a new one
    assert_eq!(cluster.ended(&job).await["status"], "completed");
    assert_eq!(cluster.vendors.texts().len(), 3, "what was under way was finished, not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_worker_at_once() {
    let mut cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
    let held = cluster.vendors.hold();
    cluster.submit("stop", "notes", &documents(3)).await;
    held.arrived(1).await;
    signal(&cluster.workers[0], "TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    signal(&cluster.workers[0], "TERM");
    assert_eq!(cluster.workers[0].wait().unwrap().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_in_the_middle() {
    let cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
    let held = cluster.vendors.hold();
    let job = cluster.submit("cancel", "notes", &documents(300)).await;
    held.arrived(1).await;
    let path = format!("/api/v1/embeddings/jobs/{job}");
    let (status, _) = cluster.patiently(|| cluster.request(Method::DELETE, &path)).await;
    assert_eq!(status, 202);
    held.release();
    assert_eq!(cluster.ended(&job).await["status"], "cancelled");
    let next = cluster.submit("next", "other", &documents(3)).await;
    assert_eq!(cluster.ended(&next).await["status"], "completed");
    assert!(cluster.vendors.texts().len() < 150, "{}", cluster.vendors.texts().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_twice_is_one_job() {
    let cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
    let documents = documents(30);
    let submit = || cluster.submit("k", "notes", &documents);
    let (first, second) = tokio::join!(submit(), submit());
    assert_eq!(first, second);
    cluster.ended(&first).await;
    assert_eq!(cluster.vendors.texts().len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_the_api_says_so() {
    let mut cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
    let job = cluster.submit("k", "notes", &documents(1)).await;
    cluster.ended(&job).await;
    crate::cluster::kill(&mut cluster.workers[0]);
    // Its last report runs out.
    let says = async || cluster.patiently(|| cluster.request(Method::GET, "/ready")).await.1.to_string();
    while !says().await.contains("no worker") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_the_small_one_is_done_first() {
    small_before_large(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; `make soak`"]
async fn soak_two_tenants_the_small_one_is_done_first() {
    small_before_large(10_000).await;
}

async fn small_before_large(count: usize) {
    let cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
    // The same user's two jobs share a list; fairness is between users. With one key there is one user, so the
    // second is told by its priority.
    let large = cluster.submit("large", "large", &documents(count)).await;
    let body = {
        let mut body = crate::cluster::body("small", &documents(5));
        body["priority"] = "high".into();
        body
    };
    let request = || cluster.request(Method::POST, "/api/v1/embeddings/jobs").json(&body);
    let (status, small) = cluster.patiently(request).await;
    assert_eq!(status, 202, "{small}");
    cluster.ended(small["job_id"].as_str().unwrap()).await;
    assert!(!ended(&cluster.job(&large).await), "the large one is still at work");
    cluster.until(&large, Duration::from_secs(600), ended).await;
}

#[test]
fn a_worker_without_redis_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(command(dir.path(), &["worker"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("REDIS_URL"), "{stderr}");
    let (code, _, stderr) = run(command(dir.path(), &["worker", "--stages", "chunking,storing"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("'storing' is not a stage"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_another_directory_stops_and_names_the_fix() {
    let cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
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
async fn a_worker_waits_for_a_redis_that_is_not_there_yet_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut redis = Redis::durable().unwrap();
    redis.kill().unwrap();
    let mut command = command(dir.path(), &["worker"]);
    command.env("REDIS_URL", redis.url()).stdout(Stdio::null());
    let log = dir.path().join("log");
    let mut worker = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let says = |what: &str| std::fs::read_to_string(&log).unwrap().contains(what);
    let waiting = async {
        while !says("waiting for it") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        redis.restart().unwrap();
        while !says("working on documents") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    crate::cluster::kill(&mut worker);
    assert!(waited.is_ok(), "{}", std::fs::read_to_string(&log).unwrap());
}
