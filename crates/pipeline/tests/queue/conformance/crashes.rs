//! Tasks that crash their workers.

use embeddery_pipeline::{
    Lease, MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, Outcome, SettleResult, Stage, Task,
};

use crate::harness::{Bench, LONG, SHORT, Worker, job, next, status, task, tasks};

pub async fn a_task_that_crashes_workers_runs_alone_and_becomes_a_dead_letter(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    queue.enqueue(&tasks(job, "ann", 1)).await.unwrap();
    let dying = Worker::new(&queue, "dying").holding(SHORT);
    for death in 0..MAX_SHARED_CRASHES {
        let lease = dying.next(Stage::Chunking).await;
        assert_eq!((lease.task.deaths, lease.exclusive), (death, false));
    }
    queue.enqueue(&[task(job, 1, "ann"), task(job, 2, "ann")]).await.unwrap();
    for death in 0..MAX_ISOLATED_CRASHES {
        // It is alone in its batch, although the worker asks for more.
        let mut leases = Vec::new();
        while leases.is_empty() || !leases.iter().any(|lease: &Lease| lease.exclusive) {
            leases = dying.take(Stage::Chunking, 10).await;
            if leases.iter().any(|lease| !lease.exclusive) {
                for lease in &leases {
                    Worker::new(&queue, "dying").settle(lease, Outcome::Release).await;
                }
            }
        }
        assert_eq!((leases.len(), leases[0].task.deaths), (1, MAX_SHARED_CRASHES + death));
    }
    let worker = Worker::new(&queue, "w");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let lease = worker.next(Stage::Chunking).await;
        assert_ne!(lease.task.id.item, 0);
        seen.push(lease.task.id.item);
        worker.settle(&lease, Outcome::Finished).await;
    }
    let mut letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    while letters.is_empty() {
        worker.take(Stage::Chunking, 1).await;
        letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    }
    assert_eq!(&*letters[0].reason.code, "worker_died");
    let dead = letters[0].task.clone().unwrap();
    assert_eq!((dead.id.item, dead.deaths), (0, MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES));
}

pub async fn a_worker_becomes_idle_for_a_task_that_must_run_alone(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    let suspect = Task { deaths: MAX_SHARED_CRASHES, ..task(job, 0, "ann") };
    queue.enqueue(&[suspect]).await.unwrap();
    queue.enqueue(&[task(job, 1, "ann"), task(job, 2, "ann"), task(job, 3, "ann")]).await.unwrap();
    let depth = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!((depth.waiting, depth.bytes), (4, 400));
    let (one, other) = (Worker::new(&queue, "one").busy(), Worker::new(&queue, "other").busy());
    let first = one.request(Stage::Chunking, 5).await;
    assert!(
        first.drain_for_exclusive && first.leases.is_empty(),
        "the first worker that sends a request is to become idle"
    );
    let second = other.request(Stage::Chunking, 1).await;
    assert!(!second.drain_for_exclusive && second.leases.len() == 1, "the others get tasks");
    // The work of the first worker takes long.
    bench.expire_drain(Stage::Chunking).await;
    queue.heartbeat(&status("one"), LONG).await.unwrap();
    queue.heartbeat(&status("other"), LONG).await.unwrap();
    assert!(
        !other.request(Stage::Chunking, 0).await.drain_for_exclusive,
        "the first worker sends heartbeats, so it is still chosen"
    );
    assert!(
        one.request(Stage::Chunking, 1).await.drain_for_exclusive,
        "another request gets the same response"
    );
    bench.expire_drain(Stage::Chunking).await;
    queue.deregister(&one.consumer).await.unwrap();
    assert!(
        other.request(Stage::Chunking, 1).await.drain_for_exclusive,
        "it is gone, so another worker is chosen"
    );
    let one = Worker::new(&queue, "one");
    let leases = one.take(Stage::Chunking, 5).await;
    assert_eq!((leases.len(), leases[0].exclusive, leases[0].task.id.item), (1, true, 0));
    one.settle(&leases[0], next()).await;
    assert!(!one.next(Stage::Embedding).await.exclusive, "it has done no harm: a new stage starts over");
    assert_eq!(one.busy().take(Stage::Chunking, 5).await.len(), 2);
}

pub async fn a_panic_counts_as_a_crash(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for death in 0..MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES {
        let lease = worker.next(Stage::Chunking).await;
        assert_eq!((lease.task.deaths, lease.exclusive), (death, death >= MAX_SHARED_CRASHES));
        assert_eq!(worker.settle(&lease, Outcome::Crashed { after: SHORT }).await, SettleResult::Done);
    }
    let letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!(&*letters[0].reason.code, "worker_died");
    assert!(letters[0].reason.message.contains("defect of the program"), "{}", letters[0].reason.message);
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let lease = worker.next(Stage::Chunking).await;
    worker.settle(&lease, Outcome::Crashed { after: LONG }).await;
    assert!(worker.take(Stage::Chunking, 1).await.is_empty());
    assert_eq!(queue.depth().await.unwrap()[&Stage::Chunking].delayed, 1, "the delay is kept");
}
