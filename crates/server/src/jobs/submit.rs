//! Submission of a job: open it, append its documents, start it, enqueue its tasks. If an error occurs before the start,
//! nothing of the job is kept. After the start, the reconciler enqueues the tasks that could not be enqueued here.

use std::sync::Arc;

use embeddery_accounts::ledger::{Counter, QuotaExceeded};
use embeddery_chunk::ChunkConfig;
use embeddery_pipeline::{
    Chunking, DocumentOutcome, Job, JobId, JobSpec, NewDocument, NewJob, OpenResult, Priority, Reason, Stage,
    Task, TaskId, Unfinished,
};
use embeddery_store::{ModelBinding, StoreErrorKind, check_name};

use super::Jobs;
use crate::{
    App,
    collections::{CollectionService, EqualDocument, Model},
    error::{ApiError, OfferedModel},
};

/// The parameters of a new job.
pub(crate) struct JobParams {
    /// The collection that stores the vectors.
    pub(crate) collection: String,
    pub(crate) model: Model,
    pub(crate) chunking: ChunkConfig,
    pub(crate) priority: Priority,
}

/// The headers of a request that submits a job.
#[derive(Clone, Default)]
pub(crate) struct JobHeaders {
    pub(crate) idempotency_key: Option<String>,
    pub(crate) traceparent: Option<Arc<str>>,
}

/// Maximum documents in one write to the job store.
const MAX_BATCH_DOCUMENTS: usize = 256;
/// Maximum bytes of text in one write to the job store, apart from the last document.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Maximum tasks in one call of the queue.
const MAX_ENQUEUED_TASKS: usize = 1000;
/// The code of a document that is equal to an earlier one of its job.
const DUPLICATE_CODE: &str = "duplicate_document";

impl CollectionService {
    /// Opens a job, whose documents are added to the [`JobUpload`].
    pub(crate) async fn open_job(
        &self,
        params: JobParams,
        headers: JobHeaders,
    ) -> Result<JobUpload, ApiError> {
        let priority = params.priority;
        let spec = self.job_spec(params).await?;
        let user = self.user().shared();
        let app = self.app();
        let max_unfinished = app.accounts.ledger.quotas().concurrent_jobs;
        let opened = app.jobs.store.open(NewJob {
            tenant: Arc::clone(&user),
            idempotency_key: headers.idempotency_key,
            plan: spec,
            priority,
            traceparent: headers.traceparent.clone(),
            max_unfinished,
        });
        let (id, is_new) = match opened.await? {
            OpenResult::New(id) => (id, true),
            OpenResult::Same(id) | OpenResult::Conflict(id) => (id, false),
            OpenResult::TooMany(running) => return Err(too_many_jobs(app, running)),
        };
        let task_template = Unfinished {
            task: TaskId { job: id, item: 0 },
            tenant: Arc::clone(&user),
            stage: Stage::Chunking,
            priority,
            bytes: 0,
            since_ms: 0,
            traceparent: headers.traceparent,
        };
        let upload = JobUpload {
            job: DiscardOnDrop { app: Arc::clone(app), id, armed: is_new },
            is_new,
            task_template,
            sizes: Vec::new(),
            duplicates: Vec::new(),
            buffer: Vec::new(),
            buffer_bytes: 0,
        };
        if is_new {
            // Checked before the documents arrive, so that a client does not upload for minutes only to be rejected.
            if let Some(max) = max_unfinished {
                let running = app.jobs.store.unfinished_jobs(&user).await?;
                if running >= max {
                    return Err(too_many_jobs(app, running));
                }
            }
            app.jobs.admit(&user).await?;
        }
        Ok(upload)
    }

    /// Resolves the parameters: how each document is split, and which model embeds it. The model is not called.
    async fn job_spec(&self, params: JobParams) -> Result<JobSpec, ApiError> {
        check_name(&params.collection).map_err(|error| ApiError::from(error).with_param("collection"))?;
        let bound = match self.store().get(self.collection_ref(&params.collection)).await {
            Ok(collection) => Some(collection.binding),
            Err(error) if error.kind == StoreErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let Model { name, provider, dimensions } = &params.model;
        let dimensions = dimensions.map(|dimensions| dimensions.get());
        let (provider, model, dimensions) = match bound {
            // Without a model in the request, the collection's model is used.
            // What was sent with it must agree with that model.
            Some(bound) if name.is_none() => {
                let sent_provider = provider.map_or_else(|| bound.provider.clone(), |sent| sent.to_string());
                if sent_provider != bound.provider || dimensions.is_some_and(|sent| sent != bound.dim) {
                    return Err(ApiError::other_model(
                        &params.collection,
                        &bound,
                        &OfferedModel { provider: &sent_provider, model: &bound.model, dimensions },
                    ));
                }
                let ModelBinding { provider, model, custom_dimensions, dim, .. } = bound;
                (provider, model, custom_dimensions.then_some(dim))
            }
            bound => {
                let resolved = self.permitted(&params.model)?;
                let (provider, model) = (resolved.provider.to_string(), resolved.model.name.to_string());
                if let Some(bound) = bound {
                    let other_dimensions = dimensions.is_some_and(|dimensions| dimensions != bound.dim);
                    if (&provider, &model) != (&bound.provider, &bound.model) || other_dimensions {
                        return Err(ApiError::other_model(
                            &params.collection,
                            &bound,
                            &OfferedModel { provider: &provider, model: &model, dimensions },
                        ));
                    }
                }
                (provider, model, dimensions)
            }
        };
        let config = params.chunking;
        let chunking = Chunking {
            method: config.method().as_str().into(),
            size: config.size(),
            overlap: config.overlap(),
            unit: config.unit().as_str().into(),
        };
        Ok(JobSpec { collection: params.collection, provider, model, dimensions, chunking })
    }
}

fn too_many_jobs(app: &App, used: u64) -> ApiError {
    let limit = app.accounts.ledger.quotas().concurrent_jobs.unwrap_or(used);
    QuotaExceeded::Counter { counter: Counter::Jobs, limit, used }.into()
}

/// A job that is open for documents. If it is dropped before it starts, the job is discarded.
pub(crate) struct JobUpload {
    job: DiscardOnDrop,
    /// False if the idempotency key was used before. Then nothing is stored, and the hash decides whether the request is
    /// the same.
    is_new: bool,
    /// The fields that all tasks of the job share.
    task_template: Unfinished,
    /// Bytes of each document's text, in the order of the documents.
    sizes: Vec<u32>,
    /// The documents that are equal to an earlier one, and why they are not processed.
    duplicates: Vec<(u32, EqualDocument)>,
    /// Documents that are not stored yet.
    buffer: Vec<NewDocument>,
    buffer_bytes: usize,
}

impl JobUpload {
    /// Number of documents so far.
    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Adds a document. Documents are stored in batches. A document that is equal to an earlier one is listed, but not
    /// processed.
    pub(crate) async fn add(
        &mut self,
        document: NewDocument,
        equal: Option<EqualDocument>,
    ) -> Result<(), ApiError> {
        if let (Some(equal), Ok(item)) = (equal, u32::try_from(self.sizes.len())) {
            self.duplicates.push((item, equal));
        }
        self.sizes.push(u32::try_from(document.text.len()).unwrap_or(u32::MAX));
        if !self.is_new {
            return Ok(());
        }
        self.buffer_bytes += document.text.len();
        self.buffer.push(document);
        if self.buffer.len() >= MAX_BATCH_DOCUMENTS || self.buffer_bytes >= MAX_BATCH_BYTES {
            self.flush().await?;
            // The backlog grows during the upload, by this job and by others, so it is checked again.
            let bytes = self.sizes.iter().map(|bytes| u64::from(*bytes)).sum();
            self.jobs().admit_more(&self.task_template.tenant, bytes).await?;
        }
        Ok(())
    }

    /// Stores the buffered documents.
    async fn flush(&mut self) -> Result<(), ApiError> {
        self.buffer_bytes = 0;
        let documents = std::mem::take(&mut self.buffer);
        Ok(self.jobs().store.append(self.job.id, documents).await?)
    }

    /// Starts the job, or returns the job that an earlier request with the same idempotency key started. `body_hash` is the
    /// hash of the whole request.
    pub(crate) async fn finish(mut self, body_hash: [u8; 32]) -> Result<Job, ApiError> {
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        let id = match self.jobs().store.start(self.job.id, body_hash).await? {
            OpenResult::New(id) => {
                self.job.armed = false;
                self.end_duplicates().await;
                self.enqueue().await;
                id
            }
            OpenResult::Same(id) => id,
            OpenResult::Conflict(id) => return Err(ApiError::idempotency_conflict(&id)),
            OpenResult::TooMany(running) => return Err(too_many_jobs(&self.job.app, running)),
        };
        let job = self.jobs().store.job(&self.task_template.tenant, id).await?;
        job.ok_or_else(|| ApiError::unknown_job(&id.to_string()))
    }

    /// Ends the documents that are equal to an earlier one. If that fails, they are processed: storing an equal document
    /// again changes nothing.
    async fn end_duplicates(&mut self) {
        let job = self.job.id;
        let outcome = |(item, equal): &(u32, EqualDocument)| {
            let reason = Reason { code: DUPLICATE_CODE.into(), message: equal.message.clone() };
            (TaskId { job, item: *item }, DocumentOutcome::Superseded(reason))
        };
        let outcomes: Vec<_> = self.duplicates.iter().map(outcome).collect();
        for chunk in outcomes.chunks(MAX_ENQUEUED_TASKS) {
            if let Err(error) = self.jobs().store.finish(chunk.to_vec()).await {
                tracing::warn!(%error, %job, "ending equal documents of a job failed; they are processed");
                self.duplicates.clear();
                return;
            }
        }
    }

    /// Enqueues the tasks of the started job. If that fails, the reconciler enqueues them later.
    async fn enqueue(&self) {
        let is_duplicate = |item: u32| self.duplicates.binary_search_by_key(&item, |(item, _)| *item).is_ok();
        let documents = (0..).zip(&self.sizes).filter(|(item, _)| !is_duplicate(*item));
        let documents = documents.map(|(item, bytes)| Unfinished {
            task: TaskId { item, ..self.task_template.task },
            bytes: u64::from(*bytes),
            ..self.task_template.clone()
        });
        let tasks: Vec<_> = documents.map(|document| Task::for_document(&document)).collect();
        for chunk in tasks.chunks(MAX_ENQUEUED_TASKS) {
            if let Err(error) = self.jobs().queue.enqueue(chunk).await {
                tracing::warn!(%error, job = %self.job.id, "enqueueing a job failed; the reconciler enqueues it later");
                return;
            }
        }
    }

    fn jobs(&self) -> &Jobs {
        &self.job.app.jobs
    }
}

/// Discards an open job when it is dropped, for example because the client has disconnected.
struct DiscardOnDrop {
    app: Arc<App>,
    id: JobId,
    /// Whether to discard the job. False once it has started, or if the job is that of an earlier request.
    armed: bool,
}

impl Drop for DiscardOnDrop {
    fn drop(&mut self) {
        if self.armed {
            let (app, id) = (Arc::clone(&self.app), self.id);
            tokio::spawn(async move {
                if let Err(error) = app.jobs.store.discard(id).await {
                    tracing::debug!(%error, job = %id, "discarding an open job failed; it is deleted when it expires");
                }
            });
        }
    }
}
