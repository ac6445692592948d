//! Modes of the stages, and what the queue reports.

use std::time::Duration;

use embeddery_pipeline::{BacklogSize, Depth, Outcome, Stage, StageMode, Task};

use crate::harness::{Bench, Worker, job, next, now_ms, tasks};

pub async fn stages_pause_and_drain(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 3)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 2).await;
    queue.set_stage_mode(Stage::Chunking, StageMode::Pause).await.unwrap();
    assert_eq!(bench.queue().stage_modes().await.unwrap()[&Stage::Chunking], StageMode::Pause);
    assert!(worker.take(Stage::Chunking, 1).await.is_empty());
    worker.settle(&leases[0], next()).await;
    queue.set_stage_mode(Stage::Embedding, StageMode::Drain).await.unwrap();
    worker.settle(&leases[1], next()).await;
    let embedding = worker.take(Stage::Embedding, 5).await;
    assert_eq!(embedding.len(), 1, "tasks in the stage are leased, new ones are held");
    let depth = queue.depth().await.unwrap()[&Stage::Embedding];
    assert_eq!((depth.held, depth.leased, depth.waiting), (1, 1, 0));
    worker.settle(&embedding[0], next()).await;
    queue.set_stage_mode(Stage::Embedding, StageMode::Run).await.unwrap();
    queue.set_stage_mode(Stage::Chunking, StageMode::Run).await.unwrap();
    assert_eq!(worker.take(Stage::Embedding, 5).await.len(), 1);
    assert_eq!(worker.take(Stage::Chunking, 5).await.len(), 1);
    assert!(queue.stage_modes().await.unwrap().values().all(|mode| *mode == StageMode::Run));
    assert_eq!(queue.depth().await.unwrap()[&Stage::Embedding].held, 0);
}

pub async fn cancel_removes_tasks_that_a_draining_stage_holds(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.set_stage_mode(Stage::Chunking, StageMode::Drain).await.unwrap();
    let (one, other) = (job(), job());
    queue.enqueue(&tasks(one, "ann", 2)).await.unwrap();
    queue.enqueue(&tasks(other, "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    assert!(worker.take(Stage::Chunking, 5).await.is_empty());
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 3);
    assert_eq!(queue.cancel(one).await.unwrap(), 2);
    queue.set_stage_mode(Stage::Chunking, StageMode::Run).await.unwrap();
    assert_eq!(worker.next(Stage::Chunking).await.task.id.job, other);
    assert!(worker.take(Stage::Chunking, 5).await.is_empty());
}

pub async fn depth_and_backlog_count_tasks_and_bytes(bench: &dyn Bench) {
    let queue = bench.queue();
    let old: Vec<Task> = tasks(job(), "ann", 4)
        .into_iter()
        .map(|task| Task { enqueued_at_ms: now_ms() - 5000, ..task })
        .collect();
    queue.enqueue(&old).await.unwrap();
    queue.enqueue(&tasks(job(), "bob", 2)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.take(Stage::Chunking, 1).await.remove(0);
    worker.settle(&lease, next()).await;
    let leased = worker.take(Stage::Chunking, 1).await.remove(0);
    let depth = queue.depth().await.unwrap();
    let chunking = Depth { oldest: Duration::ZERO, ..depth[&Stage::Chunking] };
    assert_eq!(chunking, Depth { waiting: 4, leased: 1, bytes: 400, ..Depth::default() });
    assert_eq!((depth[&Stage::Embedding].waiting, depth[&Stage::Embedding].bytes), (1, 50));
    let (ann, bob) = (queue.backlog("ann").await.unwrap(), queue.backlog("bob").await.unwrap());
    assert_eq!((ann.tenant.items, bob.tenant.items, ann.all.items), (4, 2, 6));
    assert_eq!((ann.tenant.bytes, bob.tenant.bytes, bob.all.bytes), (350, 200, 550));
    assert!(ann.tenant.oldest >= Duration::from_secs(5) && ann.all.oldest >= Duration::from_secs(5));
    assert!(bob.tenant.oldest < Duration::from_secs(5));
    let unknown = queue.backlog("unknown").await.unwrap().tenant;
    assert_eq!(unknown, BacklogSize::default());
    worker.settle(&leased, Outcome::Finished).await;
    assert_eq!(queue.backlog("ann").await.unwrap().all.items, 5);
}
