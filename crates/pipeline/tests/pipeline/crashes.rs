//! Documents that may have crashed a worker, and documents that run alone.

use std::{sync::Arc, time::Duration};

use embeddery_pipeline::{
    Consumer, DocumentState, ExclusiveGate, JobId, LeaseBatch, LeaseRequest, MAX_ISOLATED_CRASHES,
    MAX_SHARED_CRASHES, ReconcileConfig, Stage, Status, Task, reconcile,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Harness, count};

const TEXT: &str = "One two three. Four five six. Seven eight nine.";

/// Runs the reconciler with a short period until it is stopped.
fn reconciling(harness: &Harness) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let config = ReconcileConfig { interval: Duration::from_millis(10), untouched: Duration::from_secs(60) };
    let (jobs, queue) = (Arc::clone(&harness.jobs), Arc::clone(&harness.queue));
    (stop.clone(), tokio::spawn(reconcile(jobs, queue, config, stop)))
}

async fn lease(harness: &Harness, consumer: &Consumer, idle: bool) -> LeaseBatch {
    let length = Duration::from_millis(1);
    let request = LeaseRequest { stage: Stage::Chunking, consumer, max_tasks: 2, duration: length, idle };
    harness.queue.lease(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_workers_crash_runs_alone_and_becomes_a_dead_letter() {
    let mut harness = Harness::new();
    let job = harness.submit(&[("a", TEXT), ("b", "Harmless words.")]).await;
    // A worker that crashes: it leases, and neither renews nor settles.
    let crash = async |idle| {
        let consumer = Consumer(format!("crashing-{}", uuid::Uuid::now_v7()));
        lease(&harness, &consumer, idle).await.leases
    };
    for _ in 0..MAX_SHARED_CRASHES {
        assert!(!crash(false).await.is_empty());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..8 {
        let alone = crash(true).await;
        assert!(alone.len() <= 1 && alone.iter().all(|lease| lease.exclusive), "{alone:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let dead_letters = harness.queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!(dead_letters.len(), 2, "both were leased each time");
    let (stop, reconciling) = reconciling(&harness);
    harness.start_worker();
    let ended = harness.ended(job).await;
    assert_eq!(ended.status, Status::Failed);
    assert!(harness.rows(job).await[0].reason.is_some());
    stop.cancel();
    reconciling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_whose_response_was_lost_are_not_counted_as_crashes() {
    let mut harness = Harness::new();
    let job = harness.submit(&[("a", TEXT)]).await;
    let all = std::mem::replace(&mut harness.config.stages, vec![Stage::Storage]);
    let worker = harness.start_worker_sharing(&ExclusiveGate::default());
    while harness.queue.workers().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The worker leases, and the response is lost.
    for _ in 0..=MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES {
        let mut leases = Vec::new();
        while leases.is_empty() {
            leases = lease(&harness, &worker, false).await.leases;
        }
        assert_eq!((leases[0].task.deaths, leases[0].task.attempts, leases[0].exclusive), (0, 0, false));
    }
    harness.config.stages = all;
    harness.start_worker();
    assert_eq!(harness.ended(job).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_must_run_alone_runs_while_other_documents_keep_arriving() {
    let mut harness = Harness::new();
    harness.fake.state().overlapping = Some(Duration::from_millis(300));
    harness.config.slots.insert(Stage::Embedding, 1);
    let texts: Vec<(String, String)> =
        (0..1500).map(|i| (format!("d{i}"), format!("Document {i}."))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let load = harness.submit(&texts).await;
    let gate = ExclusiveGate::default();
    for _ in 0..2 {
        harness.start_worker_sharing(&gate);
    }
    harness.fake.begun.subscribe().wait_for(|begun| *begun > 5).await.unwrap();
    let suspect = harness.submit_only("Ann", &[("s", "A suspect.")]).await;
    let unfinished = harness.jobs.unfinished(Duration::ZERO, None, 10_000).await.unwrap();
    let of_suspect = |job: JobId| unfinished.iter().find(|document| document.task.job == job).unwrap();
    let tasks = [Task { deaths: MAX_SHARED_CRASHES, ..Task::for_document(of_suspect(suspect)) }];
    assert_eq!(harness.queue.enqueue(&tasks).await.unwrap(), [true]);
    let chunked = |job: &embeddery_pipeline::Job| count(job, DocumentState::At(Stage::Chunking)) == 0;
    harness.until(suspect, chunked).await;
    assert!(harness.job(load).await.ended_at_ms.is_none(), "it did not wait for the other job to end");
    harness.fake.state().overlapping = None;
    assert_eq!(harness.ended(suspect).await.status, Status::Completed);
    assert_eq!(harness.ended(load).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_causes_a_panic_ends_and_the_other_documents_are_stored() {
    let mut harness = Harness::new();
    harness.fake.state().panicking = Some("defect");
    let texts: Vec<(String, String)> = (0..10)
        .map(|i| (format!("d{i}"), if i == 3 { "A defect.".to_owned() } else { format!("Number {i}.") }))
        .collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let job = harness.submit(&texts).await;
    let (stop, reconciling) = reconciling(&harness);
    harness.start_worker();
    let ended = harness.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Partial, 9));
    let reason = harness.rows(job).await.remove(3).reason.unwrap();
    assert_eq!(&*reason.code, "worker_died");
    assert!(reason.message.contains("defect of the program"), "{}", reason.message);
    stop.cancel();
    reconciling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_the_exclusive_gate_stops_on_request() {
    let mut harness = Harness::new();
    harness.config.grace = Duration::from_secs(600);
    let job = harness.submit_only("Ann", &[("s", "A suspect.")]).await;
    let unfinished = harness.jobs.unfinished(Duration::ZERO, None, 10).await.unwrap();
    let tasks = [Task { deaths: MAX_SHARED_CRASHES, ..Task::for_document(&unfinished[0]) }];
    assert_eq!(harness.queue.enqueue(&tasks).await.unwrap(), [true]);
    let gate = ExclusiveGate::default();
    // Another loop of the process works for a long time.
    let working = Arc::clone(&gate).read_owned().await;
    harness.start_worker_sharing(&gate);
    while gate.try_read().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::timeout(Duration::from_secs(60), harness.stop()).await.unwrap();
    drop(working);
    assert_eq!(harness.queue.depth().await.unwrap()[&Stage::Chunking].waiting, 1, "it was not leased");
    assert!(harness.job(job).await.ended_at_ms.is_none());
}
