//! Jobs through the API. There are no workers: the tests do what workers would do.

mod bad_input;
mod dead_letters;
mod events;
mod idempotency;
mod lifecycle;
mod limits;
mod lines;
mod operator;

use embeddery_core::SpaceId;
use embeddery_pipeline::{ChunkSpan, DocumentOutcome, JobId, Reason, Stage, TaskId, Vectors, WriteResult};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

pub const JOBS: &str = "/api/v1/embeddings/jobs";

pub fn request(count: usize) -> Value {
    let documents: Vec<Value> =
        (0..count).map(|at| json!({"id": format!("d{at}"), "text": format!("text {at}")})).collect();
    json!({"collection": "notes", "documents": documents})
}

pub fn id_of(answer: &Answer) -> JobId {
    let id = answer.json["job_id"].as_str().unwrap_or_else(|| panic!("no job: {}", answer.text));
    JobId(id.parse().unwrap())
}

impl Server {
    pub async fn submit(&self, body: &Value) -> Answer {
        self.post(JOBS, body).await
    }

    /// Submits a job of `count` documents.
    pub async fn submitted(&self, count: usize) -> JobId {
        let answer = self.submit(&request(count)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        id_of(&answer)
    }

    pub async fn submit_lines(&self, query: &str, lines: impl Into<String>) -> Answer {
        let request = self.request(Method::POST, &format!("{JOBS}?{query}"));
        Answer::of(request.header("content-type", "application/x-ndjson").body(lines.into())).await
    }

    pub async fn job(&self, id: JobId) -> Value {
        let answer = self.get(&format!("{JOBS}/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    }

    /// Brings a document through all stages, as workers would.
    pub async fn work(&self, id: JobId, item: u32) {
        let task = TaskId { job: id, item };
        let chunk = ChunkSpan { bytes: 0..6, characters: 0..6, headings: Vec::new() };
        let vectors = Vectors { space: SpaceId::new("s"), dim: 1, rows: vec![Some(0)], data: vec![1.0] };
        assert_eq!(self.jobs.put_chunks(vec![(task, vec![chunk])]).await.unwrap(), [WriteResult::Written]);
        assert_eq!(self.jobs.put_vectors(vec![(task, vectors)]).await.unwrap(), [WriteResult::Written]);
        let stored = DocumentOutcome::Stored { chunks: 1 };
        assert_eq!(self.jobs.finish(vec![(task, stored)]).await.unwrap(), [WriteResult::Written]);
    }

    /// Records a permanent failure of a document, as a worker would.
    pub async fn fail(&self, id: JobId, item: u32, stage: Stage) {
        let reason = Reason { code: "input_too_long".into(), message: "the text is too long".into() };
        // A time in microseconds is later than all previous ones, which are in milliseconds.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let failed = DocumentOutcome::Failed { stage, reason, enqueued_at_ms: now.as_micros() as u64 };
        assert_eq!(
            self.jobs.finish(vec![(TaskId { job: id, item }, failed)]).await.unwrap(),
            [WriteResult::Written]
        );
    }

    /// Number of documents of a user in the queue.
    pub async fn queued(&self, user: &str) -> u64 {
        self.queue.backlog(user).await.unwrap().tenant.items
    }
}
