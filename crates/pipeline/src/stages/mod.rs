//! What is done to documents. A stage is a function from documents to steps: it loads nothing and settles nothing,
//! writes its result to the job store or the collection, and may run twice on the same document. Documents that
//! came together are worked on together, and fail one by one.

mod billed_embed;
mod chunk;
mod embed;
mod failure;
mod provider_backoff;
mod store;
mod vector_quota;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use embeddery_accounts::{Ledger, UserId};
use embeddery_core::{DimensionPolicy, ProviderKind};
use embeddery_gateway::{ModelSelector, Router};
use embeddery_store::VectorStore;

pub use chunk::{cut, parts, rule};
pub use failure::StageFailure;
pub use provider_backoff::PausedProviders;
pub use vector_quota::{VectorQuota, count_vectors};

use crate::{
    DocumentState, JobError, JobSpec, JobStore, Loaded, LoadedDocument, Reason, Stage, TaskId, WriteResult,
};

/// What stages work with.
pub struct StageContext {
    /// The truth about jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Where documents end.
    pub store: Arc<dyn VectorStore>,
    /// Who makes vectors.
    pub router: Arc<Router>,
    /// On whose account.
    pub ledger: Arc<Ledger>,
    /// What `dimensions` does when a model cannot give them.
    pub dimension_policy: DimensionPolicy,
    /// Providers that nobody asks for a while.
    pub lanes: PausedProviders,
    /// The longest that cutting one document, or one call of the gateway or the store, may take.
    pub patience: Duration,
    /// Who has taken room for vectors and has not used it yet.
    pub rooms: VectorQuota,
}

/// What comes after a document at a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum StageResult {
    /// The result is written; the next stage reads so many bytes.
    Next {
        /// Of text.
        bytes: u64,
    },
    /// There is nothing to do: the document has ended, its job is gone, or the truth is behind the queue. What is
    /// unfinished then, the reconciler brings to the stage where it stands.
    Done,
    /// It did not work.
    Trouble(StageFailure),
}

/// A document at a stage.
#[derive(Clone)]
pub struct Item {
    /// Which.
    pub task: TaskId,
    /// All there is of it.
    pub work: Arc<LoadedDocument>,
    /// Set when the lease is lost or the job is cancelled: nobody wants the result any more.
    pub dropped: Arc<AtomicBool>,
}

impl Item {
    fn is_dropped(&self) -> bool {
        self.dropped.load(Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.work.document.text.len() as u64
    }
}

/// Brings documents through a stage: one step for each task, in order.
pub async fn run(
    tools: &StageContext,
    stage: Stage,
    tasks: &[(TaskId, Arc<AtomicBool>)],
) -> Vec<StageResult> {
    let loaded = tools.jobs.load(tasks.iter().map(|(task, _)| *task).collect()).await;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![StageResult::Trouble(StageFailure::of_jobs(&error)); tasks.len()],
    };
    let found: Vec<_> = tasks.iter().zip(loaded).map(|(task, loaded)| item(stage, task, loaded)).collect();
    let items: Vec<Item> = found.iter().filter_map(|found| found.as_ref().ok().cloned()).collect();
    let done = match stage {
        Stage::Chunking => chunk::run(tools, &items).await,
        Stage::Embedding => embed::run(tools, &items).await,
        Stage::Storage => store::run(tools, &items).await,
    };
    let mut done = done.into_iter();
    // Each stage answers once for each item.
    found.into_iter().map(|found| found.err().or_else(|| done.next()).unwrap_or(StageResult::Done)).collect()
}

/// A task's document when it is at this stage, or else what comes after.
fn item(
    stage: Stage,
    (task, dropped): &(TaskId, Arc<AtomicBool>),
    loaded: Loaded,
) -> Result<Item, StageResult> {
    let work = match loaded {
        Ok(Some(work)) => work,
        Ok(None) => return Err(StageResult::Done),
        Err(error) => return Err(StageResult::Trouble(StageFailure::of_jobs(&error))),
    };
    if work.state == DocumentState::At(stage) {
        return Ok(Item { task: *task, work: Arc::new(work), dropped: Arc::clone(dropped) });
    }
    Err(result_for_state(stage, work.state, work.document.text.len() as u64))
}

/// Offers results to the job store, all that there are in one step, and says what comes after each document.
async fn persist_results<T>(
    stage: Stage,
    items: &[Item],
    results: Vec<Result<T, StageResult>>,
    put: impl AsyncFnOnce(Vec<(TaskId, T)>) -> Result<Vec<WriteResult>, JobError>,
) -> Vec<StageResult> {
    let mut steps = Vec::with_capacity(items.len());
    let (mut places, mut written) = (Vec::new(), Vec::new());
    for (place, (item, result)) in items.iter().zip(results).enumerate() {
        match result {
            Ok(result) => {
                places.push(place);
                written.push((item.task, result));
                steps.push(StageResult::Done);
            }
            Err(step) => steps.push(step),
        }
    }
    if written.is_empty() {
        return steps;
    }
    match put(written).await {
        Ok(puts) => {
            for (place, put) in places.into_iter().zip(puts) {
                let bytes = items[place].bytes();
                steps[place] = match put {
                    WriteResult::Written => StageResult::Next { bytes },
                    WriteResult::Already(state) => result_for_state(stage, state, bytes),
                    WriteResult::JobDeleted => StageResult::Done,
                };
            }
        }
        Err(error) => {
            for place in places {
                steps[place] = StageResult::Trouble(StageFailure::of_jobs(&error));
            }
        }
    }
    steps
}

/// What a stage does with a document that is not, or no more, at it.
fn result_for_state(stage: Stage, state: DocumentState, bytes: u64) -> StageResult {
    match state {
        DocumentState::At(at) if at > stage => StageResult::Next { bytes },
        _ => StageResult::Done,
    }
}

/// How the gateway is asked for a plan's model: by its provider, so that no fallback's vectors come.
fn selector(plan: &JobSpec) -> ModelSelector<'_> {
    ModelSelector { model: Some(&plan.model), provider: plan.provider.parse::<ProviderKind>().ok() }
}

/// The tenant as the store names them: safe as a directory's name.
fn tenant_dir(tenant: &str) -> String {
    UserId::new(tenant).directory_name()
}

fn reason(code: &str, message: impl Into<String>) -> Reason {
    Reason { code: code.into(), message: message.into() }
}
