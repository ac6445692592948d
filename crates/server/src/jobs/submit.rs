//! A job comes in: checked, stored, started, queued. It is there from the moment it starts; what breaks after that,
//! the reconciler mends, and what breaks before leaves nothing.

use std::sync::Arc;

use embeddery_accounts::ledger::{Counter, QuotaExceeded};
use embeddery_chunk::ChunkConfig;
use embeddery_pipeline::{
    Chunking, Job, JobId, JobSpec, NewDocument, NewJob, OpenResult, Priority, Stage, Task, TaskId, Unfinished,
};
use embeddery_store::{ModelBinding, StoreErrorKind, check_name};

use super::Jobs;
use crate::{
    App,
    collections::{CollectionService, Model},
    error::{ApiError, OfferedModel},
};

/// A job as it is asked for.
pub(crate) struct JobParams {
    /// Where its documents go.
    pub(crate) collection: String,
    pub(crate) model: Model,
    pub(crate) chunking: ChunkConfig,
    pub(crate) priority: Priority,
}

/// What a request says besides its body.
#[derive(Clone, Default)]
pub(crate) struct JobHeaders {
    pub(crate) idempotency_key: Option<String>,
    pub(crate) traceparent: Option<Arc<str>>,
}

/// Documents that are written together.
const BATCH: usize = 256;
/// Bytes of text that are.
const BATCH_BYTES: usize = 4 << 20;
/// Tasks that are enqueued together.
const TASKS: usize = 1000;

impl CollectionService {
    /// Opens a job for documents to come.
    pub(crate) async fn open_job(&self, order: JobParams, sender: JobHeaders) -> Result<JobUpload, ApiError> {
        let priority = order.priority;
        let plan = self.plan(order).await?;
        let user = self.user().shared();
        let app = self.app();
        let max_unfinished = app.accounts.ledger.quotas().concurrent_jobs;
        let opened = app.jobs.store.open(NewJob {
            tenant: Arc::clone(&user),
            idempotency_key: sender.idempotency_key,
            plan,
            priority,
            traceparent: sender.traceparent.clone(),
            max_unfinished,
        });
        let (id, fresh) = match opened.await? {
            OpenResult::New(id) => (id, true),
            OpenResult::Same(id) | OpenResult::Conflict(id) => (id, false),
            OpenResult::TooMany(running) => return Err(too_many(app, running)),
        };
        let sent = Unfinished {
            task: TaskId { job: id, item: 0 },
            tenant: Arc::clone(&user),
            stage: Stage::Chunking,
            priority,
            bytes: 0,
            since_ms: 0,
            traceparent: sender.traceparent,
        };
        let upload = JobUpload {
            open: DiscardOnDrop { app: Arc::clone(app), id, live: fresh },
            fresh,
            task_template: sent,
            sizes: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        };
        if fresh {
            // Before the documents come: nobody sends for minutes to be refused at the end.
            if let Some(most) = max_unfinished {
                let running = app.jobs.store.unfinished_jobs(&user).await?;
                if running >= most {
                    return Err(too_many(app, running));
                }
            }
            app.jobs.admit(&user).await?;
        }
        Ok(upload)
    }

    /// What is to be done with each document. The model is looked up, not called.
    async fn plan(&self, order: JobParams) -> Result<JobSpec, ApiError> {
        check_name(&order.collection).map_err(|error| ApiError::from(error).with_param("collection"))?;
        let bound = match self.store().get(self.collection_ref(&order.collection)).await {
            Ok(collection) => Some(collection.binding),
            Err(error) if error.kind == StoreErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let Model { name, provider, dimensions } = &order.model;
        let dimensions = dimensions.map(|dimensions| dimensions.get());
        let (provider, model, dimensions) = match bound {
            // A collection knows its model.
            Some(bound) if name.is_none() && provider.is_none() && dimensions.is_none() => {
                let ModelBinding { provider, model, custom_dimensions: cut, dim, .. } = bound;
                (provider, model, cut.then_some(dim))
            }
            bound => {
                let resolved = self.permitted(&order.model)?;
                let (provider, model) = (resolved.provider.to_string(), resolved.model.name.to_string());
                if let Some(bound) = bound {
                    let other_length = dimensions.is_some_and(|length| length != bound.dim);
                    if (&provider, &model) != (&bound.provider, &bound.model) || other_length {
                        return Err(ApiError::other_model(
                            &order.collection,
                            &bound,
                            &OfferedModel { provider: &provider, model: &model, dimensions },
                        ));
                    }
                }
                (provider, model, dimensions)
            }
        };
        let rule = order.chunking;
        let chunking = Chunking {
            method: rule.method().as_str().into(),
            size: rule.size(),
            overlap: rule.overlap(),
            unit: rule.unit().as_str().into(),
        };
        Ok(JobSpec { collection: order.collection, provider, model, dimensions, chunking })
    }
}

fn too_many(app: &App, used: u64) -> ApiError {
    let limit = app.accounts.ledger.quotas().concurrent_jobs.unwrap_or(used);
    QuotaExceeded::Counter { counter: Counter::Jobs, limit, used }.into()
}

/// A job whose documents come.
pub(crate) struct JobUpload {
    open: DiscardOnDrop,
    /// False when the same request seems to have been sent before: then nothing is stored.
    fresh: bool,
    /// What all its tasks have in common.
    task_template: Unfinished,
    /// Bytes of each document's text, by place.
    sizes: Vec<u32>,
    waiting: Vec<NewDocument>,
    waiting_bytes: usize,
}

impl JobUpload {
    /// How many documents have come.
    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Takes a document; stores it with others.
    pub(crate) async fn add(&mut self, document: NewDocument) -> Result<(), ApiError> {
        self.sizes.push(u32::try_from(document.text.len()).unwrap_or(u32::MAX));
        if !self.fresh {
            return Ok(());
        }
        self.waiting_bytes += document.text.len();
        self.waiting.push(document);
        if self.waiting.len() >= BATCH || self.waiting_bytes >= BATCH_BYTES {
            self.store().await?;
            // Others have come meanwhile, and so has more of this one: who sends on and on is stopped like who begins.
            let bytes = self.sizes.iter().map(|bytes| u64::from(*bytes)).sum();
            self.jobs().admit_more(&self.task_template.tenant, bytes).await?;
        }
        Ok(())
    }

    async fn store(&mut self) -> Result<(), ApiError> {
        self.waiting_bytes = 0;
        let documents = std::mem::take(&mut self.waiting);
        Ok(self.jobs().store.append(self.open.id, documents).await?)
    }

    /// Starts the job, or finds that it runs. `body_hash` is that of the whole request.
    pub(crate) async fn finish(mut self, body_hash: [u8; 32]) -> Result<Job, ApiError> {
        if !self.waiting.is_empty() {
            self.store().await?;
        }
        let id = match self.jobs().store.start(self.open.id, body_hash).await? {
            OpenResult::New(id) => {
                self.open.live = false;
                self.enqueue().await;
                id
            }
            OpenResult::Same(id) => id,
            OpenResult::Conflict(id) => return Err(ApiError::idempotency_conflict(&id)),
            OpenResult::TooMany(running) => return Err(too_many(&self.open.app, running)),
        };
        let found = self.jobs().store.job(&self.task_template.tenant, id).await?;
        found.ok_or_else(|| ApiError::unknown_job(&id.to_string()))
    }

    /// From here on the job is safe: what does not get into the queue now is brought there later.
    async fn enqueue(&self) {
        let documents = (0..).zip(&self.sizes).map(|(item, bytes)| Unfinished {
            task: TaskId { item, ..self.task_template.task },
            bytes: u64::from(*bytes),
            ..self.task_template.clone()
        });
        let tasks: Vec<_> = documents.map(|document| Task::for_document(&document)).collect();
        for some in tasks.chunks(TASKS) {
            if let Err(error) = self.jobs().queue.enqueue(some).await {
                tracing::warn!(%error, job = %self.open.id, "a job is stored, but not yet in the queue");
                return;
            }
        }
    }

    fn jobs(&self) -> &Jobs {
        &self.open.app.jobs
    }
}

/// A job that is open goes when its request does.
struct DiscardOnDrop {
    app: Arc<App>,
    id: JobId,
    live: bool,
}

impl Drop for DiscardOnDrop {
    fn drop(&mut self) {
        if self.live {
            let (app, id) = (Arc::clone(&self.app), self.id);
            tokio::spawn(async move {
                if let Err(error) = app.jobs.store.discard(id).await {
                    tracing::debug!(%error, job = %id, "an upload that ended early is left to the sweep");
                }
            });
        }
    }
}
