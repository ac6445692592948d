//! How many documents a second the job store takes through all stages, with nothing else to do.
//! `cargo run --release -p embeddery-pipeline --example jobs_bench [documents] [workers]`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark talks to a terminal and may panic"
)]

use std::{sync::Arc, time::Instant};

use embeddery_core::SpaceId;
use embeddery_pipeline::{
    ChunkSpan, Chunking, End, JobStore, NewDocument, NewJob, Opened, Plan, Priority, SqliteJobs,
    SqliteJobsConfig, TaskId, Vectors,
};

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse().unwrap());
    let (documents, workers): (u32, u32) = (numbers.next().unwrap_or(10_000), numbers.next().unwrap_or(16));
    let dir = tempfile::tempdir().unwrap();
    let config = SqliteJobsConfig { path: dir.path().join("jobs.db"), min_free_bytes: 0 };
    let store: Arc<dyn JobStore> = Arc::new(SqliteJobs::open(config).unwrap());
    let chunking = Chunking { method: "recursive".into(), size: 256, overlap: 32, unit: "tokens".into() };
    let plan = Plan {
        collection: "bench".into(),
        provider: "huggingface".into(),
        model: "m".into(),
        dimensions: None,
        chunking,
    };
    let new = NewJob {
        tenant: "1".into(),
        idempotency_key: None,
        plan,
        priority: Priority::Normal,
        traceparent: None,
        most_unfinished: None,
    };
    let Opened::New(job) = store.open(new).await.unwrap() else { return };
    let began = Instant::now();
    let text = "Numbers and words of a text that is about as long as texts are. ".repeat(40);
    for first in (0..documents).step_by(256) {
        let some = (first..documents.min(first + 256)).map(|item| NewDocument {
            id: format!("document-{item}"),
            text: format!("{item} {text}"),
            metadata: serde_json::Map::new(),
            content_type: None,
        });
        store.append(job, some.collect()).await.unwrap();
    }
    store.start(job, [0; 32]).await.unwrap();
    let rate = |began: Instant| f64::from(documents) / began.elapsed().as_secs_f64();
    println!("submitted: {:.0} documents/s", rate(began));

    let began = Instant::now();
    let work = (0..workers).map(|worker| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for item in (worker..documents).step_by(workers as usize) {
                let task = TaskId { job, item };
                store.load(task).await.unwrap();
                let span = |at: u64| ChunkSpan {
                    bytes: at..at + 900,
                    characters: at..at + 900,
                    headings: Vec::new(),
                };
                store.put_chunks(task, (0..3).map(|at| span(900 * at)).collect()).await.unwrap();
                store.load(task).await.unwrap();
                let vectors = Vectors {
                    space: SpaceId::new("s"),
                    dim: 384,
                    rows: vec![Some(0), Some(1), Some(2)],
                    data: vec![0.5; 3 * 384],
                    failed: Vec::new(),
                };
                store.put_vectors(task, vectors).await.unwrap();
                store.load(task).await.unwrap();
                store.finish(task, End::Stored { chunks: 3, added: 3 }).await.unwrap();
            }
        })
    });
    for worker in work.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    println!("through all stages: {:.0} documents/s, {workers} at a time", rate(began));
    let found = store.job("1", job).await.unwrap().unwrap();
    assert!(found.ended_at_ms.is_some());
}
