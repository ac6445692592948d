//! A tenant for each test, and helpers that submit jobs and write results.

use std::{sync::Arc, time::Duration};

use embeddery_core::SpaceId;
use embeddery_pipeline::{
    ChunkSpan, Chunking, DocumentOutcome, DocumentRow, DocumentState, Job, JobError, JobId, JobSpec,
    JobStore, Loaded, NewDocument, NewJob, OpenResult, Page, Priority, Reason, RetryNote, Stage, TaskId,
    Unfinished, Vectors, WriteResult,
};
use serde_json::{Value, json};

/// Operations on one document.
pub trait SingleDocument {
    async fn load_one(&self, task: TaskId) -> Loaded;
    async fn put_chunks_one(&self, task: TaskId, chunks: Vec<ChunkSpan>) -> Result<WriteResult, JobError>;
    async fn put_vectors_one(&self, task: TaskId, vectors: Vectors) -> Result<WriteResult, JobError>;
    async fn finish_one(&self, task: TaskId, end: DocumentOutcome) -> Result<WriteResult, JobError>;
    async fn note_attempt(&self, task: TaskId, why: &str) -> Result<(), JobError>;
}

impl SingleDocument for dyn JobStore {
    async fn load_one(&self, task: TaskId) -> Loaded {
        self.load(vec![task]).await?.remove(0)
    }

    async fn put_chunks_one(&self, task: TaskId, chunks: Vec<ChunkSpan>) -> Result<WriteResult, JobError> {
        Ok(self.put_chunks(vec![(task, chunks)]).await?.remove(0))
    }

    async fn put_vectors_one(&self, task: TaskId, vectors: Vectors) -> Result<WriteResult, JobError> {
        Ok(self.put_vectors(vec![(task, vectors)]).await?.remove(0))
    }

    async fn finish_one(&self, task: TaskId, end: DocumentOutcome) -> Result<WriteResult, JobError> {
        Ok(self.finish(vec![(task, end)]).await?.remove(0))
    }

    async fn note_attempt(&self, task: TaskId, why: &str) -> Result<(), JobError> {
        self.record_retry(vec![RetryNote { task, reason: reason(why), charged: true, retry_at_ms: 7 }]).await
    }
}

pub struct Tenant {
    pub store: Arc<dyn JobStore>,
    pub name: Arc<str>,
}

pub const HASH: [u8; 32] = [7; 32];
pub const CHUNKING: DocumentState = DocumentState::At(Stage::Chunking);
pub const EMBEDDING: DocumentState = DocumentState::At(Stage::Embedding);
pub const STORAGE: DocumentState = DocumentState::At(Stage::Storage);

pub fn plan() -> JobSpec {
    JobSpec {
        collection: "notes".into(),
        provider: "huggingface".into(),
        model: "model-a".into(),
        dimensions: Some(256),
        chunking: Chunking { method: "recursive".into(), size: 256, overlap: 32, unit: "tokens".into() },
    }
}

pub fn document(id: &str) -> NewDocument {
    // Numbers that a rounding serialization would change.
    let numbers = json!([u64::MAX, i64::MIN, 0.1 + 0.2, 1e16, f64::MAX, 5e-324]);
    let metadata = json!({"from": id, "tags": ["a", "b"], "numbers": numbers});
    let Value::Object(metadata) = metadata else { panic!("an object") };
    NewDocument {
        id: id.into(),
        text: format!("The text of {id}: ünïcödé, \"quoted\". ").repeat(40),
        metadata,
        content_type: Some("text/markdown".into()),
    }
}

pub fn documents(count: u32) -> Vec<NewDocument> {
    (0..count).map(|item| document(&format!("d{item}"))).collect()
}

pub fn spans(count: u64) -> Vec<ChunkSpan> {
    let span = |at| ChunkSpan { bytes: at..at + 9, characters: at..at + 8, headings: vec!["Über".into()] };
    (0..count).map(span).collect()
}

pub fn vectors(count: u32) -> Vectors {
    Vectors {
        space: SpaceId::new("model-a@1"),
        dim: 3,
        rows: (0..count).map(Some).chain([None]).collect(),
        data: (0..3 * count).map(|at| at as f32 / 7.0 - 1.0).collect(),
    }
}

pub fn reason(code: &str) -> Reason {
    Reason { code: code.into(), message: format!("it is {code}") }
}

impl Tenant {
    pub fn new(store: Arc<dyn JobStore>) -> Self {
        Self { store, name: format!("t{}", uuid::Uuid::now_v7().simple()).into() }
    }

    /// Another tenant of the same store.
    pub fn other(&self) -> Self {
        Self::new(Arc::clone(&self.store))
    }

    pub fn new_job(&self, key: Option<&str>) -> NewJob {
        NewJob {
            tenant: Arc::clone(&self.name),
            idempotency_key: key.map(|key| format!("{key} of {}", self.name)),
            plan: plan(),
            priority: Priority::Normal,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            max_unfinished: None,
        }
    }

    /// Opens a job and adds documents.
    pub async fn opened(&self, key: Option<&str>, count: u32) -> JobId {
        let OpenResult::New(job) = self.store.open(self.new_job(key)).await.unwrap() else {
            panic!("it is new")
        };
        self.store.append(job, documents(count)).await.unwrap();
        job
    }

    /// Submits a job and starts it.
    pub async fn submitted(&self, count: u32) -> JobId {
        let job = self.opened(None, count).await;
        assert_eq!(self.store.start(job, HASH).await.unwrap(), OpenResult::New(job));
        job
    }

    pub async fn find(&self, job: JobId) -> Option<Job> {
        self.store.job(&self.name, job).await.unwrap()
    }

    pub async fn job(&self, job: JobId) -> Job {
        self.find(job).await.unwrap()
    }

    pub async fn all(&self) -> Vec<Job> {
        self.store.jobs(&self.name, Page { state: None, after: None, limit: 100 }).await.unwrap()
    }

    pub async fn rows(&self, job: JobId) -> Vec<DocumentRow> {
        self.store.documents(job, Page { state: None, after: None, limit: 1000 }).await.unwrap()
    }

    pub async fn row(&self, task: TaskId) -> DocumentRow {
        self.rows(task.job).await.swap_remove(task.item as usize)
    }

    /// All unfinished documents of this tenant, read in pages.
    pub async fn unfinished(&self, untouched: Duration) -> Vec<Unfinished> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.unfinished(untouched, after, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.task);
            all.extend(page);
        }
        all.retain(|found| found.tenant == self.name);
        all
    }

    /// Writes the results that bring a document to the storage stage.
    pub async fn embed(&self, task: TaskId) {
        assert_eq!(self.store.put_chunks_one(task, spans(2)).await.unwrap(), WriteResult::Written);
        assert_eq!(self.store.put_vectors_one(task, vectors(2)).await.unwrap(), WriteResult::Written);
    }

    pub async fn end(&self, task: TaskId, end: DocumentOutcome) -> WriteResult {
        self.store.finish_one(task, end).await.unwrap()
    }

    pub async fn store_document(&self, task: TaskId) {
        self.embed(task).await;
        assert_eq!(self.end(task, stored()).await, WriteResult::Written);
    }
}

pub const fn stored() -> DocumentOutcome {
    DocumentOutcome::Stored { chunks: 2 }
}

pub fn failed(stage: Stage) -> DocumentOutcome {
    // In microseconds: later than all tries so far, whose times are in milliseconds.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    failed_of(stage, now.as_micros() as u64)
}

/// The failure of a task that entered the queue at `enqueued_at_ms`.
pub fn failed_of(stage: Stage, enqueued_at_ms: u64) -> DocumentOutcome {
    DocumentOutcome::Failed { stage, reason: reason("upstream_refused"), enqueued_at_ms }
}

pub const fn task(job: JobId, item: u32) -> TaskId {
    TaskId { job, item }
}
