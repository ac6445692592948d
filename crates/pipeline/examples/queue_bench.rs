//! Measures the cost of a queue: microseconds per task through all three stages, for SQLite and for a Redis with AOF,
//! which the benchmark starts. `cargo run --release -p embeddery-pipeline --example queue_bench [TASKS]`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark for people")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use embeddery_database::redis::RedisAddress;
use embeddery_pipeline::{
    Consumer, JobId, LeaseRequest, Outcome, Priority, Queue, QueueOptions, RedisConfig, RedisQueue,
    SqliteQueue, Stage, Task, TaskId,
};
use embeddery_test_support::redis::Redis;
use uuid::Uuid;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let tasks = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(6000);
    println!("queue   workers  slots  enqueue us/task  stages us/task  tasks/s");
    for (workers, slots) in [(1, 1), (1, 16), (4, 16), (4, 64)] {
        let dir = tempfile::tempdir().unwrap();
        let file = SqliteQueue::open(&dir.path().join("queue.db"), QueueOptions::default()).unwrap();
        run("sqlite", Arc::new(file), (workers, slots, tasks)).await;

        let server = Redis::start().unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let aof = ["appendonly", "yes", "appendfsync", "everysec"];
        let _: () = redis::cmd("CONFIG").arg("SET").arg(&aof).query_async(&mut connection).await.unwrap();
        let config = RedisConfig {
            address: RedisAddress::new(server.url()),
            require_durable: false,
            dead_letter_key: None,
            options: QueueOptions::default(),
        };
        run("redis", Arc::new(RedisQueue::connect(config).unwrap()), (workers, slots, tasks)).await;
    }
}

async fn run(name: &str, queue: Arc<dyn Queue>, (workers, slots, count): (usize, usize, u32)) {
    let job = JobId(Uuid::now_v7());
    let sent: Vec<Task> = (0..count)
        .map(|item| Task {
            id: TaskId { job, item },
            tenant: format!("tenant-{}", item % 5).into(),
            stage: Stage::Chunking,
            priority: Priority::Normal,
            bytes: 2000,
            attempts: 0,
            deaths: 0,
            enqueued_at_ms: 1_764_000_000_000,
            traceparent: None,
        })
        .collect();
    let began = Instant::now();
    queue.enqueue(&sent).await.unwrap();
    let enqueued = began.elapsed();
    let left = Arc::new(AtomicUsize::new(sent.len() * Stage::ALL.len()));
    let began = Instant::now();
    let running: Vec<_> = (0..workers)
        .map(|number| {
            let (queue, left) = (Arc::clone(&queue), Arc::clone(&left));
            tokio::spawn(async move {
                let consumer = Consumer(format!("worker-{number}"));
                while left.load(Ordering::Relaxed) > 0 {
                    for stage in Stage::ALL {
                        let request = LeaseRequest {
                            stage,
                            consumer: &consumer,
                            max_tasks: slots,
                            duration: Duration::from_secs(60),
                            idle: false,
                        };
                        let leases = queue.lease(request).await.unwrap().leases;
                        let outcomes: Vec<_> =
                            leases.into_iter().map(|lease| (lease, Outcome::Next { bytes: 2000 })).collect();
                        if !outcomes.is_empty() {
                            queue.settle(&outcomes).await.unwrap();
                            left.fetch_sub(outcomes.len(), Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    for worker in running {
        worker.await.unwrap();
    }
    let took = began.elapsed();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
    println!(
        "{name:7} {workers:7} {slots:6} {:16.1} {:15.1} {:8.0}",
        each(enqueued),
        each(took),
        f64::from(count) / took.as_secs_f64()
    );
}
