//! What may have killed a worker, what has not, and what runs alone.

use std::{sync::Arc, time::Duration};

use embeddery_pipeline::{
    Consumer, DocumentState, ExclusiveGate, JobId, LeaseBatch, LeaseRequest, MAX_ISOLATED_CRASHES,
    MAX_SHARED_CRASHES, ReconcileConfig, Stage, Status, Task, reconcile,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Plant, count};

const TEXT: &str = "One two three. Four five six. Seven eight nine.";

/// Compares queue and job store, often, until it is told to stop.
fn reconciling(plant: &Plant) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let config = ReconcileConfig { every: Duration::from_millis(10), untouched: Duration::from_secs(60) };
    let (jobs, queue) = (Arc::clone(&plant.jobs), Arc::clone(&plant.queue));
    (stop.clone(), tokio::spawn(reconcile(jobs, queue, config, stop)))
}

async fn lease(plant: &Plant, consumer: &Consumer, idle: bool) -> LeaseBatch {
    let length = Duration::from_millis(1);
    let request = LeaseRequest { stage: Stage::Chunking, consumer, max_tasks: 2, duration: length, idle };
    plant.queue.lease(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_workers_die_runs_alone_and_is_put_aside() {
    let mut plant = Plant::new();
    let job = plant.submit(&[("a", TEXT), ("b", "Harmless words.")]).await;
    // A worker that dies over it: leased, never settled, never renewed.
    let die = async |idle| {
        let consumer = Consumer(format!("dying-{}", uuid::Uuid::now_v7()));
        lease(&plant, &consumer, idle).await.leases
    };
    for _ in 0..MAX_SHARED_CRASHES {
        assert!(!die(false).await.is_empty());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..8 {
        let alone = die(true).await;
        assert!(alone.len() <= 1 && alone.iter().all(|lease| lease.exclusive), "{alone:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let letters = plant.queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!(letters.len(), 2, "both were there each time");
    let (stop, reconciling) = reconciling(&plant);
    plant.work();
    let ended = plant.ended(job).await;
    assert_eq!(ended.status, Status::Failed);
    assert!(plant.rows(job).await[0].reason.is_some());
    stop.cancel();
    reconciling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_that_a_living_worker_never_heard_of_are_charged_to_nobody() {
    let mut plant = Plant::new();
    let job = plant.submit(&[("a", TEXT)]).await;
    let all = std::mem::replace(&mut plant.config.stages, vec![Stage::Storage]);
    let worker = plant.work_beside(&ExclusiveGate::default());
    while plant.queue.workers().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It asks, and the answer is lost.
    for _ in 0..=MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES {
        let mut leases = Vec::new();
        while leases.is_empty() {
            leases = lease(&plant, &worker, false).await.leases;
        }
        assert_eq!((leases[0].task.deaths, leases[0].task.attempts, leases[0].exclusive), (0, 0, false));
    }
    plant.config.stages = all;
    plant.work();
    assert_eq!(plant.ended(job).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_run_alone_has_its_turn_while_others_never_stop() {
    let mut plant = Plant::new();
    plant.fake.state().overlapping = Some(Duration::from_millis(300));
    plant.config.slots.insert(Stage::Embedding, 1);
    let texts: Vec<(String, String)> =
        (0..1500).map(|i| (format!("d{i}"), format!("Document {i}."))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let load = plant.submit(&texts).await;
    let floor = ExclusiveGate::default();
    for _ in 0..2 {
        plant.work_beside(&floor);
    }
    plant.fake.begun.subscribe().wait_for(|begun| *begun > 5).await.unwrap();
    let suspect = plant.submit_only("Ann", &[("s", "A suspect.")]).await;
    let unfinished = plant.jobs.unfinished(Duration::ZERO, None, 10_000).await.unwrap();
    let of_suspect = |job: JobId| unfinished.iter().find(|document| document.task.job == job).unwrap();
    let tasks = [Task { deaths: MAX_SHARED_CRASHES, ..Task::for_document(of_suspect(suspect)) }];
    assert_eq!(plant.queue.enqueue(&tasks).await.unwrap(), [true]);
    let chunked = |job: &embeddery_pipeline::Job| count(job, DocumentState::At(Stage::Chunking)) == 0;
    plant.until(suspect, chunked).await;
    assert!(plant.job(load).await.ended_at_ms.is_none(), "it did not wait for the others to be done");
    plant.fake.state().overlapping = None;
    assert_eq!(plant.ended(suspect).await.status, Status::Completed);
    assert_eq!(plant.ended(load).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_meets_a_defect_ends_alone_and_its_neighbours_are_stored() {
    let mut plant = Plant::new();
    plant.fake.state().panicking = Some("defect");
    let texts: Vec<(String, String)> = (0..10)
        .map(|i| (format!("d{i}"), if i == 3 { "A defect.".to_owned() } else { format!("Number {i}.") }))
        .collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let job = plant.submit(&texts).await;
    let (stop, reconciling) = reconciling(&plant);
    plant.work();
    let ended = plant.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Partial, 9));
    let reason = plant.rows(job).await.remove(3).reason.unwrap();
    assert_eq!(&*reason.code, "worker_died");
    assert!(reason.message.contains("defect of the program"), "{}", reason.message);
    stop.cancel();
    reconciling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_the_whole_process_stops_when_it_is_told() {
    let mut plant = Plant::new();
    plant.config.grace = Duration::from_secs(600);
    let job = plant.submit_only("Ann", &[("s", "A suspect.")]).await;
    let unfinished = plant.jobs.unfinished(Duration::ZERO, None, 10).await.unwrap();
    let tasks = [Task { deaths: MAX_SHARED_CRASHES, ..Task::for_document(&unfinished[0]) }];
    assert_eq!(plant.queue.enqueue(&tasks).await.unwrap(), [true]);
    let floor = ExclusiveGate::default();
    // Somebody else in the process works for long.
    let working = Arc::clone(&floor).read_owned().await;
    plant.work_beside(&floor);
    while floor.try_read().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::timeout(Duration::from_secs(60), plant.stop()).await.unwrap();
    drop(working);
    assert_eq!(plant.queue.depth().await.unwrap()[&Stage::Chunking].waiting, 1, "it was not begun");
    assert!(plant.job(job).await.ended_at_ms.is_none());
}
