//! A pipeline in this process: a real queue, job store, vector store and ledger in a directory of its own, with a fake
//! provider.

mod fake;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use embeddery_accounts::{
    Ledger,
    ledger::{LedgerConfig, Quotas},
};
use embeddery_core::{DimensionPolicy, Embedder, ProviderKind};
use embeddery_gateway::{
    FallbackModels, Metrics, Policy, Router, RouterConfig, Stack, TokenDecoder, TokenEncoding,
};
use embeddery_ingest::Ingest;
use embeddery_pipeline::{
    Chunking, Consumer, DocumentRow, DocumentState, ExclusiveGate, Job, JobId, JobSpec, JobStore,
    NewDocument, NewJob, OpenResult, Priority, Queue, QueueOptions, SqliteJobs, SqliteJobsConfig,
    SqliteQueue, Stage, Task, TaskId, Worker, WorkerConfig, WorkerMetrics,
    stages::{PausedProviders, StageContext},
};
use embeddery_store::{CollectionRef, PageRequest, SqliteConfig, SqliteStore, StoredDocument, VectorStore};
use prometheus_client::registry::Registry;
use serde_json::Map;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use fake::{DIM, Fake, unavailable, vector};

/// A tenant whose id differs from the name of its directory.
pub const TENANT: &str = "Ann";
pub const COLLECTION: CollectionRef<'static> = CollectionRef { tenant: "=41nn", collection: "notes" };

pub struct Harness {
    pub jobs: Arc<dyn JobStore>,
    pub queue: Arc<dyn Queue>,
    pub store: Arc<dyn VectorStore>,
    pub ledger: Arc<Ledger>,
    pub fake: Arc<Fake>,
    pub context: Arc<StageContext>,
    pub config: WorkerConfig,
    running: Vec<(CancellationToken, JoinHandle<()>)>,
    _dir: TempDir,
}

/// Models without wrappers.
struct NoWrappers;

impl Stack for NoWrappers {
    fn wrap_model(&self, adapter: Arc<dyn Embedder>, _: &str) -> Arc<dyn Embedder> {
        adapter
    }

    fn wrap_request(
        &self,
        model: Arc<dyn Embedder>,
        _: Option<FallbackModels>,
        _: &str,
    ) -> Arc<dyn Embedder> {
        model
    }
}

impl Harness {
    pub fn new() -> Self {
        Self::with(Quotas::default())
    }

    pub fn with(quotas: Quotas) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let jobs: Arc<dyn JobStore> = Arc::new(
            SqliteJobs::open(SqliteJobsConfig { path: dir.path().join("jobs.db"), min_free_bytes: 0 })
                .unwrap(),
        );
        let queue: Arc<dyn Queue> =
            Arc::new(SqliteQueue::open(&dir.path().join("queue.db"), QueueOptions::default()).unwrap());
        let store: Arc<dyn VectorStore> = Arc::new(SqliteStore::new(SqliteConfig {
            base_dir: dir.path().join("users"),
            open_users: 4,
            matrix_bytes: 16 << 20,
            search_threads: 1,
            min_free_bytes: 0,
        }));
        let ledger = Ledger::open(LedgerConfig {
            path: dir.path().join("usage.db"),
            quotas,
            retention_days: 30,
            prices: Arc::new(|_: ProviderKind, _: &str| None),
        });
        let ledger = Arc::new(ledger.unwrap());
        let fake = Fake::new();
        let router = Router::new(RouterConfig {
            providers: vec![Arc::new(fake::FakeProvider(Arc::clone(&fake)))],
            models: Vec::new(),
            default_model: "openai:fake".into(),
            vendor_models: Vec::new(),
            stack: Arc::new(NoWrappers),
            policy: Policy::default(),
            decoder: Arc::new(TokenDecoder::new(TokenEncoding::Cl100k)),
            metrics: Metrics::new(&mut Registry::default()),
        });
        let context = Arc::new(StageContext {
            jobs: Arc::clone(&jobs),
            ingest: Ingest {
                router: Arc::new(router),
                store: Arc::clone(&store),
                ledger: Arc::clone(&ledger),
                quota: Arc::default(),
            },
            dimension_policy: DimensionPolicy::Strict,
            paused_providers: PausedProviders::default(),
            timeout: Duration::from_secs(60),
        });
        let config = WorkerConfig {
            stages: Stage::ALL.to_vec(),
            concurrency: 2,
            slots: BTreeMap::from([(Stage::Chunking, 8), (Stage::Embedding, 16), (Stage::Storage, 16)]),
            lease: Duration::from_secs(2),
            deadline: Duration::from_secs(120),
            max_attempts: 3,
            backoff: Duration::from_millis(10),
            grace: Duration::from_secs(5),
            host: "test".into(),
        };
        Self { jobs, queue, store, ledger, fake, context, config, running: Vec::new(), _dir: dir }
    }

    /// Starts a worker.
    pub fn start_worker(&mut self) {
        self.start_worker_sharing(&ExclusiveGate::default());
    }

    /// Starts a worker that shares a gate with others. Returns its name.
    pub fn start_worker_sharing(&mut self, gate: &ExclusiveGate) -> Consumer {
        let metrics = WorkerMetrics::new(&mut Registry::default());
        let worker = Worker::new(Arc::clone(&self.context), self.queue.clone(), self.config.clone(), metrics)
            .unwrap()
            .sharing_gate(gate);
        let stop = CancellationToken::new();
        let consumer = worker.consumer().clone();
        self.running.push((stop.clone(), tokio::spawn(worker.run(stop))));
        consumer
    }

    /// Stops all workers and waits for them.
    pub async fn stop(&mut self) {
        for (stop, running) in self.running.drain(..) {
            stop.cancel();
            running.await.unwrap();
        }
    }

    /// Submits documents, which are split into sentences of at most six words, and enqueues them.
    pub async fn submit(&self, documents: &[(&str, &str)]) -> JobId {
        let job = self.submit_only(TENANT, documents).await;
        self.enqueue().await;
        job
    }

    /// Enqueues all unfinished documents.
    pub async fn enqueue(&self) {
        let unfinished = self.jobs.unfinished(Duration::ZERO, None, 10_000).await.unwrap();
        let tasks: Vec<_> = unfinished.iter().map(Task::for_document).collect();
        self.queue.enqueue(&tasks).await.unwrap();
    }

    /// Submits documents, which are split into sentences of at most six words, without enqueueing them.
    pub async fn submit_only(&self, tenant: &str, documents: &[(&str, &str)]) -> JobId {
        let chunking = Chunking { method: "sentences".into(), size: 6, overlap: 0, unit: "words".into() };
        self.submit_chunked(tenant, documents, chunking).await
    }

    /// Submits documents without enqueueing them.
    pub async fn submit_chunked(
        &self,
        tenant: &str,
        documents: &[(&str, &str)],
        chunking: Chunking,
    ) -> JobId {
        let plan = JobSpec {
            collection: "notes".into(),
            provider: "openai".into(),
            model: "fake".into(),
            dimensions: None,
            chunking,
        };
        self.submit_planned(tenant, documents, plan).await
    }

    /// Submits documents of any plan without enqueueing them.
    pub async fn submit_planned(&self, tenant: &str, documents: &[(&str, &str)], plan: JobSpec) -> JobId {
        let new = NewJob {
            tenant: tenant.into(),
            idempotency_key: None,
            max_unfinished: None,
            plan,
            priority: Priority::Normal,
            traceparent: None,
        };
        let OpenResult::New(job) = self.jobs.open(new).await.unwrap() else { panic!("a new job") };
        let document = |(id, text): &(&str, &str)| NewDocument {
            id: (*id).to_owned(),
            text: (*text).to_owned(),
            metadata: Map::new(),
            content_type: None,
        };
        self.jobs.append(job, documents.iter().map(document).collect()).await.unwrap();
        self.jobs.start(job, [0; 32]).await.unwrap();
        job
    }

    pub async fn job(&self, job: JobId) -> Job {
        self.jobs.job(TENANT, job).await.unwrap().unwrap()
    }

    /// Waits until a job has ended.
    pub async fn ended(&self, job: JobId) -> Job {
        self.until(job, |job| job.ended_at_ms.is_some()).await
    }

    /// Waits until a job satisfies a condition.
    pub async fn until(&self, id: JobId, condition: impl Fn(&Job) -> bool) -> Job {
        let waiting = async {
            loop {
                let job = self.job(id).await;
                if condition(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), waiting).await {
            Ok(job) => job,
            Err(_) => panic!("{:?}, {:?}", self.job(id).await, self.queue.depth().await),
        }
    }

    pub async fn rows(&self, job: JobId) -> Vec<DocumentRow> {
        let page = embeddery_pipeline::Page { state: None, after: None, limit: 10_000 };
        self.jobs.documents(job, page).await.unwrap()
    }

    /// All stored documents. Asserts that each chunk has the vector of its text.
    pub async fn stored(&self) -> Vec<StoredDocument> {
        let stored = self.store.export(COLLECTION, PageRequest { after: None, limit: 10_000 }).await.unwrap();
        for chunk in stored.iter().flat_map(|document| &document.chunks) {
            let expected = vector(&chunk.text);
            let cosine: f32 = expected.iter().zip(&chunk.vector).map(|(a, b)| a * b).sum();
            assert!(cosine > 0.9999, "{} has another text's vector", chunk.text);
        }
        stored
    }
}

pub fn count(job: &Job, state: DocumentState) -> u64 {
    job.documents.get(&state).copied().unwrap_or(0)
}

/// The task of a document.
pub fn item(job: JobId, item: u32) -> TaskId {
    TaskId { job, item }
}
