//! How tasks enter, move through the stages, and leave.

use std::time::Duration;

use embeddery_pipeline::{BacklogSize, Depth, Outcome, Priority, SettleResult, Stage, Task};

use crate::harness::{Bench, LONG, SHORT, Worker, job, next, reason, task, tasks};

pub async fn a_task_goes_through_all_stages_and_leaves_the_queue(bench: &dyn Bench) {
    let queue = bench.queue();
    let sent = Task {
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        priority: Priority::High,
        ..task(job(), 3, "ann/\u{fc} {x}")
    };
    assert_eq!(queue.enqueue(std::slice::from_ref(&sent)).await.unwrap(), [true]);
    let worker = Worker::new(&queue, "w");
    for (stage, bytes) in [(Stage::Chunking, 100), (Stage::Embedding, 50), (Stage::Storage, 50)] {
        let lease = worker.next(stage).await;
        assert_eq!(lease.task, Task { stage, bytes, ..sent.clone() });
        assert!(!lease.exclusive);
        assert!(worker.take(stage, 5).await.is_empty(), "no worker gets it twice");
        assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
        assert_eq!(worker.settle(&lease, next()).await, SettleResult::Lost, "a lease ends once");
    }
    assert_eq!(queue.contains(&[sent.id]).await.unwrap(), [false]);
    assert!(queue.depth().await.unwrap().values().all(|depth| *depth == Depth::default()));
    assert_eq!(queue.backlog("ann/\u{fc} {x}").await.unwrap().all, BacklogSize::default());
}

pub async fn enqueueing_twice_is_enqueueing_once(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    assert_eq!(queue.enqueue(&tasks(job, "ann", 2)).await.unwrap(), [true, true]);
    assert_eq!(bench.queue().enqueue(&tasks(job, "ann", 3)).await.unwrap(), [false, false, true]);
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    worker.settle(&lease, next()).await;
    assert_eq!(queue.enqueue(&[lease.task]).await.unwrap(), [false], "it is at the next stage");
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 3);
    assert_eq!(queue.enqueue(&[]).await.unwrap(), [] as [bool; 0]);
}

pub async fn a_delayed_task_is_charged_only_for_its_own_failure(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 2)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let first = worker.next(Stage::Chunking).await;
    worker.settle(&first, Outcome::RetryAfter { after: LONG, charged: true }).await;
    let second = worker.next(Stage::Chunking).await;
    assert_eq!(second.task.id.item, 1);
    let depth = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!((depth.delayed, depth.leased, depth.waiting), (1, 1, 0));
    worker.settle(&second, Outcome::RetryAfter { after: Duration::from_millis(30), charged: true }).await;
    let again = worker.next(Stage::Chunking).await;
    assert_eq!((again.task.id.item, again.task.attempts), (1, 1));
    worker.settle(&again, Outcome::RetryAfter { after: SHORT, charged: false }).await;
    let again = worker.next(Stage::Chunking).await;
    assert_eq!((again.task.attempts, again.task.deaths), (1, 0));
    worker.settle(&again, next()).await;
    assert_eq!(worker.next(Stage::Embedding).await.task.attempts, 0, "a new stage starts over");
}

pub async fn a_released_task_is_first_again(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 5)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for lease in worker.take(Stage::Chunking, 2).await {
        assert_eq!(worker.settle(&lease, Outcome::Release).await, SettleResult::Done);
    }
    let again = worker.take(Stage::Chunking, 3).await;
    let seen: Vec<_> = again.iter().map(|l| (l.task.id.item, l.task.deaths, l.task.attempts)).collect();
    assert_eq!(seen, [(0, 0, 0), (1, 0, 0), (2, 0, 0)]);
}

pub async fn a_cancelled_job_leaves_the_queue_from_every_state(bench: &dyn Bench) {
    let queue = bench.queue();
    let (gone, stays) = (job(), job());
    queue.enqueue(&tasks(gone, "ann", 2500)).await.unwrap();
    queue.enqueue(&tasks(stays, "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 4).await;
    worker.settle(&leases[0], next()).await;
    worker.settle(&leases[1], Outcome::RetryAfter { after: SHORT, charged: true }).await;
    assert_eq!(queue.cancel(gone).await.unwrap(), 2498);
    assert_eq!(queue.cancel(gone).await.unwrap(), 0);
    assert_eq!(
        queue.renew(&leases[2..], LONG).await.unwrap(),
        [false, false],
        "a cancelled lease is not held"
    );
    assert_eq!(worker.settle(&leases[2], next()).await, SettleResult::Cancelled);
    assert_eq!(worker.settle(&leases[3], Outcome::DeadLetter(reason())).await, SettleResult::Cancelled);
    assert_eq!(worker.settle(&leases[3], next()).await, SettleResult::Lost);
    assert!(worker.take(Stage::Embedding, 5).await.is_empty());
    assert_eq!(worker.next(Stage::Chunking).await.task.id.job, stays);
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 1);
    assert_eq!(queue.depth().await.unwrap()[&Stage::Chunking].dead, 0);
}

pub async fn a_cancelled_task_is_removed_when_its_worker_crashes(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    queue.enqueue(&tasks(job, "ann", 1)).await.unwrap();
    let lease = Worker::new(&queue, "w").holding(Duration::from_millis(20)).next(Stage::Chunking).await;
    queue.cancel(job).await.unwrap();
    while queue.contains(&[lease.task.id]).await.unwrap()[0] {
        assert!(Worker::new(&queue, "x").take(Stage::Chunking, 1).await.is_empty());
    }
    assert_eq!(queue.backlog("ann").await.unwrap().all.items, 0);
}

pub async fn a_waiting_worker_is_woken_by_another_process(bench: &dyn Bench) {
    let (here, there) = (bench.queue(), bench.queue());
    let worker = Worker::new(&here, "w");
    assert!(worker.take(Stage::Chunking, 1).await.is_empty());
    let waiting = tokio::spawn(async move {
        while worker.take(Stage::Chunking, 1).await.is_empty() {
            worker.queue.wait(Stage::Chunking, Duration::from_secs(60)).await;
        }
    });
    there.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the worker was not woken").unwrap();
}

pub async fn many_workers_do_each_task_once(bench: &dyn Bench) {
    let (a, b) = (bench.queue(), bench.queue());
    let sent: Vec<Task> = (0..4).flat_map(|tenant| tasks(job(), &format!("tenant-{tenant}"), 150)).collect();
    let workers: Vec<_> = (0..8)
        .map(|number| {
            let worker = Worker::new(if number % 2 == 0 { &a } else { &b }, &format!("w{number}")).busy();
            tokio::spawn(async move {
                let mut done = Vec::new();
                let mut empty = 0;
                while empty < 30 {
                    empty += 1;
                    for stage in Stage::ALL {
                        for lease in worker.take(stage, 1 + number % 5).await {
                            empty = 0;
                            assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
                            done.push((lease.task.id, stage));
                        }
                    }
                    if empty > 0 {
                        worker.queue.wait(Stage::Storage, Duration::from_millis(20)).await;
                    }
                }
                done
            })
        })
        .collect();
    for part in sent.chunks(97) {
        a.enqueue(part).await.unwrap();
    }
    let mut done = Vec::new();
    for worker in workers {
        done.extend(worker.await.unwrap());
    }
    let mut due: Vec<_> = sent.iter().flat_map(|task| Stage::ALL.map(|stage| (task.id, stage))).collect();
    done.sort_unstable();
    due.sort_unstable();
    assert_eq!(done, due);
    assert!(b.depth().await.unwrap().values().all(|depth| *depth == Depth::default()));
}
