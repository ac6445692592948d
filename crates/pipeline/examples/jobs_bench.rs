//! Measures how many documents a second the job store takes through all stages, without any stage's work.
//! `cargo run --release -p embeddery-pipeline --example jobs_bench [documents] [workers] [batch] [postgres://…]`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark talks to a terminal and may panic"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use embeddery_core::SpaceId;
use embeddery_pipeline::{
    ChunkSpan, Chunking, DocumentOutcome, JobSpec, JobStore, NewDocument, NewJob, OpenResult, PostgresJobs,
    Priority, SqliteJobs, SqliteJobsConfig, TaskId, Vectors,
};
use embeddery_store::PostgresConfig;

#[tokio::main]
async fn main() {
    let (urls, numbers): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.contains("://"));
    let number =
        |index: usize, default: u32| numbers.get(index).map_or(default, |word| word.parse().unwrap());
    let (documents, workers, batch) = (number(0, 10_000), number(1, 16), number(2, 1));
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn JobStore> = match urls.into_iter().next() {
        Some(url) => {
            let config = PostgresConfig { url, connections: 16, timeout: Duration::from_secs(30) };
            Arc::new(PostgresJobs::new(&config).unwrap())
        }
        None => {
            let config = SqliteJobsConfig { path: dir.path().join("jobs.db"), min_free_bytes: 0 };
            Arc::new(SqliteJobs::open(config).unwrap())
        }
    };
    let chunking = Chunking { method: "recursive".into(), size: 256, overlap: 32, unit: "tokens".into() };
    let plan = JobSpec {
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
        max_unfinished: None,
    };
    let OpenResult::New(job) = store.open(new).await.unwrap() else { return };
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
            for first in (worker * batch..documents).step_by((workers * batch) as usize) {
                let tasks: Vec<_> =
                    (first..documents.min(first + batch)).map(|item| TaskId { job, item }).collect();
                store.load(tasks.clone()).await.unwrap();
                let span = |at: u64| ChunkSpan {
                    bytes: at..at + 900,
                    characters: at..at + 900,
                    headings: Vec::new(),
                };
                let chunks: Vec<_> = (0..3).map(|at| span(900 * at)).collect();
                let chunks = tasks.iter().map(|task| (*task, chunks.clone())).collect();
                store.put_chunks(chunks).await.unwrap();
                store.load(tasks.clone()).await.unwrap();
                let vectors = Vectors {
                    space: SpaceId::new("s"),
                    dim: 384,
                    rows: vec![Some(0), Some(1), Some(2)],
                    data: vec![0.5; 3 * 384],
                };
                let vectors = tasks.iter().map(|task| (*task, vectors.clone())).collect();
                store.put_vectors(vectors).await.unwrap();
                store.load(tasks.clone()).await.unwrap();
                let ends = tasks.iter().map(|task| (*task, DocumentOutcome::Stored { chunks: 3 })).collect();
                store.finish(ends).await.unwrap();
            }
        })
    });
    for worker in work.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    println!("through all stages: {:.0} documents/s, {workers} times {batch} at a time", rate(began));
    let found = store.job("1", job).await.unwrap().unwrap();
    assert!(found.ended_at_ms.is_some());
}
