//! Fences, renewals and the registration of workers.

use std::time::Duration;

use embeddery_pipeline::{
    Consumer, Lease, MAX_SHARED_CRASHES, Outcome, QueueOptions, SettleResult, Stage, Task, WorkerStatus,
};

use crate::harness::{Bench, LONG, SHORT, Worker, job, next, reason, status, tasks};

pub async fn a_lost_lease_can_be_neither_settled_nor_renewed(bench: &dyn Bench) {
    let (one, other) = (bench.queue(), bench.queue());
    one.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let (slow, quick) = (Worker::new(&one, "slow").holding(SHORT), Worker::new(&other, "quick"));
    let stale = slow.next(Stage::Chunking).await;
    let fresh = quick.next(Stage::Chunking).await;
    assert_eq!((fresh.task.id, fresh.task.deaths), (stale.task.id, 1));
    assert_ne!(fresh.token, stale.token);
    for outcome in [
        next(),
        Outcome::Finished,
        Outcome::Release,
        Outcome::RetryAfter { after: SHORT, charged: true },
        Outcome::DeadLetter(reason()),
    ] {
        assert_eq!(slow.settle(&stale, outcome).await, SettleResult::Lost);
    }
    assert_eq!(one.renew(&[stale.clone(), fresh.clone()], LONG).await.unwrap(), [false, true]);
    // Another worker cannot use the token.
    let stolen = Lease { consumer: Consumer("other".into()), ..fresh.clone() };
    assert_eq!(slow.settle(&stolen, next()).await, SettleResult::Lost);
    assert_eq!(quick.settle(&fresh, next()).await, SettleResult::Done);
}

pub async fn a_worker_cannot_settle_with_its_own_expired_lease(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w").holding(SHORT);
    let old = worker.next(Stage::Chunking).await;
    let new = Worker::new(&queue, "w").next(Stage::Chunking).await;
    assert_eq!(worker.settle(&old, next()).await, SettleResult::Lost);
    assert_eq!(worker.settle(&new, next()).await, SettleResult::Done);
}

pub async fn a_renewed_lease_does_not_expire(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w").holding(Duration::from_millis(200));
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!(queue.renew(std::slice::from_ref(&lease), LONG).await.unwrap(), [true]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(Worker::new(&queue, "x").take(Stage::Chunking, 1).await.is_empty());
    assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
    assert_eq!(Worker::new(&queue, "x").next(Stage::Embedding).await.task.deaths, 0);
}

/// A worker that sends heartbeats is alive: it never received a lease that expires.
pub async fn a_lost_lease_response_is_not_a_crash(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let (alive, silent) = (Worker::new(&queue, "w").holding(SHORT), Worker::new(&queue, "x").holding(SHORT));
    queue.heartbeat(&status("w"), LONG).await.unwrap();
    for _ in 0..=MAX_SHARED_CRASHES {
        let lease = alive.next(Stage::Chunking).await;
        assert_eq!((lease.task.deaths, lease.task.attempts, lease.exclusive), (0, 0, false));
    }
    assert_eq!(silent.next(Stage::Chunking).await.task.deaths, 0);
    assert_eq!(alive.next(Stage::Chunking).await.task.deaths, 1, "a worker without heartbeats has crashed");
}

/// No worker could renew its leases while the queue was unavailable.
pub async fn an_outage_does_not_expire_leases(bench: &dyn Bench) {
    let options = QueueOptions { outage_threshold: Duration::from_millis(100), ..QueueOptions::default() };
    let queue = bench.open(options);
    queue.enqueue(&tasks(job(), "ann", 2)).await.unwrap();
    let worker = Worker::new(&queue, "w").holding(Duration::from_millis(400));
    let (one, two) = (worker.next(Stage::Chunking).await, worker.next(Stage::Chunking).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let other = Worker::new(&queue, "x");
    assert!(other.take(Stage::Chunking, 1).await.is_empty(), "the leases still hold");
    assert_eq!(worker.settle(&one, next()).await, SettleResult::Done);
    // From here on another worker is active, and this one is not.
    let again = loop {
        queue.heartbeat(&status("x"), LONG).await.unwrap();
        if let Some(lease) = other.take(Stage::Chunking, 1).await.pop() {
            break lease;
        }
    };
    assert_eq!(again.task, Task { deaths: 1, ..two.task });
}

pub async fn workers_are_registered_while_they_send_heartbeats(bench: &dyn Bench) {
    let queue = bench.queue();
    assert!(queue.workers().await.unwrap().is_empty());
    queue.heartbeat(&status("a"), LONG).await.unwrap();
    queue.heartbeat(&status("b"), Duration::from_millis(20)).await.unwrap();
    let busier = WorkerStatus { busy: 3, ..status("a") };
    queue.heartbeat(&busier, LONG).await.unwrap();
    while bench.queue().workers().await.unwrap().len() > 1 {}
    assert_eq!(queue.workers().await.unwrap(), [busier]);
    queue.deregister(&Consumer("a".into())).await.unwrap();
    assert!(queue.workers().await.unwrap().is_empty());
}

pub async fn deregister_releases_all_leases(bench: &dyn Bench) {
    let queue = bench.queue();
    let (stays, gone) = (job(), job());
    queue.enqueue(&tasks(stays, "ann", 3)).await.unwrap();
    queue.enqueue(&tasks(gone, "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 4).await;
    worker.settle(&leases[0], next()).await;
    worker.take(Stage::Embedding, 1).await;
    queue.cancel(gone).await.unwrap();
    queue.deregister(&worker.consumer).await.unwrap();
    queue.deregister(&worker.consumer).await.unwrap();
    let other = Worker::new(&queue, "x");
    let again = other.take(Stage::Chunking, 5).await;
    assert_eq!(again.iter().map(|l| (l.task.id.item, l.task.deaths)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    assert_eq!(other.take(Stage::Embedding, 5).await.len(), 1);
    assert_eq!(worker.settle(&leases[1], next()).await, SettleResult::Lost);
}
