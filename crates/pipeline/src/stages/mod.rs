//! What a worker does with documents. A stage is a function from documents to results: it loads nothing and settles
//! nothing, writes its result to the job store or the collection, and may run twice on the same document. Documents
//! of one batch are processed together, and fail one by one.

mod chunk;
mod embed;
mod embed_call;
mod failure;
mod provider_backoff;
mod store;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use embeddery_accounts::UserId;
use embeddery_core::DimensionPolicy;
use embeddery_gateway::ModelSelector;
use embeddery_ingest::{Ingest, model_selector};

pub use failure::StageFailure;
pub use provider_backoff::PausedProviders;

use crate::{
    DocumentState, JobError, JobSpec, JobStore, Loaded, LoadedDocument, Reason, Stage, TaskId, WriteResult,
};

/// The dependencies of the stages.
pub struct StageContext {
    /// The jobs and the results of their stages.
    pub jobs: Arc<dyn JobStore>,
    /// Models, collections, quotas and usage.
    pub ingest: Ingest,
    /// The rule for `dimensions` that a model cannot produce.
    pub dimension_policy: DimensionPolicy,
    /// Providers that are not called for a while.
    pub paused_providers: PausedProviders,
    /// Maximum duration of chunking one document, and of one call of the gateway or the store.
    pub timeout: Duration,
}

/// The result of a document at a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum StageResult {
    /// The result is written; the next stage follows.
    Next {
        /// Bytes of text that the next stage reads.
        bytes: u64,
    },
    /// There is nothing to do: the document has ended, its job was deleted, or the job store is behind the queue. In
    /// the last case the reconciler enqueues the document again, at the stage that the job store names.
    Done,
    /// The stage failed.
    Failure(StageFailure),
}

impl From<StageFailure> for StageResult {
    fn from(failure: StageFailure) -> Self {
        Self::Failure(failure)
    }
}

/// A document at a stage.
#[derive(Clone)]
pub struct Item {
    /// The task that the document belongs to.
    pub task: TaskId,
    /// The document and the results of earlier stages.
    pub work: Arc<LoadedDocument>,
    /// Set when the lease is lost or the job is cancelled: the result is not needed.
    pub abandoned: Arc<AtomicBool>,
}

impl Item {
    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Relaxed)
    }

    fn text_bytes(&self) -> u64 {
        self.work.document.text.len() as u64
    }

    fn spec(&self) -> &JobSpec {
        &self.work.plan
    }

    fn user(&self) -> UserId {
        UserId::new(Arc::clone(&self.work.tenant))
    }
}

/// Runs a stage on the documents of these tasks. Returns one result per task, in order.
pub async fn run(
    context: &StageContext,
    stage: Stage,
    tasks: &[(TaskId, Arc<AtomicBool>)],
) -> Vec<StageResult> {
    let loaded = context.jobs.load(tasks.iter().map(|(task, _)| *task).collect()).await;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![StageResult::Failure(StageFailure::from_job_error(&error)); tasks.len()],
    };
    let loaded: Vec<_> =
        tasks.iter().zip(loaded).map(|(task, loaded)| item_at_stage(stage, task, loaded)).collect();
    let items: Vec<Item> = loaded.iter().filter_map(|item| item.as_ref().ok().cloned()).collect();
    let results = match stage {
        Stage::Chunking => chunk::run(context, &items).await,
        Stage::Embedding => embed::run(context, &items).await,
        Stage::Storage => store::run(context, &items).await,
    };
    // Each stage returns one result per item.
    let mut results = results.into_iter();
    loaded
        .into_iter()
        .map(|item| item.err().or_else(|| results.next()).unwrap_or(StageResult::Done))
        .collect()
}

/// The document of a task when it is at this stage, or else the result of the task.
fn item_at_stage(
    stage: Stage,
    (task, abandoned): &(TaskId, Arc<AtomicBool>),
    loaded: Loaded,
) -> Result<Item, StageResult> {
    let work = match loaded {
        Ok(Some(work)) => work,
        Ok(None) => return Err(StageResult::Done),
        Err(error) => return Err(StageResult::Failure(StageFailure::from_job_error(&error))),
    };
    if work.state == DocumentState::At(stage) {
        return Ok(Item { task: *task, work: Arc::new(work), abandoned: Arc::clone(abandoned) });
    }
    Err(result_for_state(stage, work.state, work.document.text.len() as u64))
}

/// Writes the results of a stage to the job store in one operation, and returns the result of each document. A
/// document without a result to write keeps its [`StageResult`].
async fn persist_results<T>(
    stage: Stage,
    items: &[Item],
    results: Vec<Result<T, StageResult>>,
    put: impl AsyncFnOnce(Vec<(TaskId, T)>) -> Result<Vec<WriteResult>, JobError>,
) -> Vec<StageResult> {
    let mut stage_results = Vec::with_capacity(items.len());
    let (mut indices, mut writes) = (Vec::new(), Vec::new());
    for (index, (item, result)) in items.iter().zip(results).enumerate() {
        match result {
            Ok(result) => {
                indices.push(index);
                writes.push((item.task, result));
                stage_results.push(StageResult::Done);
            }
            Err(result) => stage_results.push(result),
        }
    }
    if writes.is_empty() {
        return stage_results;
    }
    match put(writes).await {
        Ok(written) => {
            for (index, written) in indices.into_iter().zip(written) {
                let bytes = items[index].text_bytes();
                stage_results[index] = match written {
                    WriteResult::Written => StageResult::Next { bytes },
                    WriteResult::Already(state) => result_for_state(stage, state, bytes),
                    WriteResult::JobDeleted => StageResult::Done,
                };
            }
        }
        Err(error) => {
            for index in indices {
                stage_results[index] = StageResult::Failure(StageFailure::from_job_error(&error));
            }
        }
    }
    stage_results
}

/// The result of a stage for a document that is not at it.
fn result_for_state(stage: Stage, state: DocumentState, bytes: u64) -> StageResult {
    match state {
        DocumentState::At(at) if at > stage => StageResult::Next { bytes },
        _ => StageResult::Done,
    }
}

fn selector(spec: &JobSpec) -> ModelSelector<'_> {
    model_selector(&spec.provider, &spec.model)
}

fn reason(code: &str, message: impl Into<String>) -> Reason {
    Reason { code: code.into(), message: message.into() }
}
