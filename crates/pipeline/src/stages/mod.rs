//! What is done to documents. A stage is a function from documents to steps: it loads nothing and settles nothing,
//! writes its result to the job store or the collection, and may run twice on the same document. Documents that
//! came together are worked on together, and fail one by one.

mod chunk;
mod embed;
mod lanes;
mod metered;
mod rooms;
mod store;
mod trouble;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use embeddery_accounts::{Ledger, UserId};
use embeddery_core::{DimensionPolicy, ProviderKind};
use embeddery_gateway::{Router, Selector};
use embeddery_store::VectorStore;

pub use chunk::{cut, parts, rule};
pub use lanes::Lanes;
pub use rooms::{Rooms, count_vectors};
pub use trouble::Trouble;

use crate::{DocumentState, JobError, JobStore, Loaded, Plan, Put, Reason, Stage, TaskId, Work};

/// What stages work with.
pub struct Tools {
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
    pub lanes: Lanes,
    /// The longest that cutting one document, or one call of the gateway or the store, may take.
    pub patience: Duration,
    /// Who has taken room for vectors and has not used it yet.
    pub rooms: Rooms,
}

/// What comes after a document at a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The result is written; the next stage reads so many bytes.
    Next {
        /// Of text.
        bytes: u64,
    },
    /// There is nothing to do: the document has ended, its job is gone, or the truth is behind the queue. What is
    /// unfinished then, the reconciler brings to the stage where it stands.
    Over,
    /// It did not work.
    Trouble(Trouble),
}

/// A document at a stage.
#[derive(Clone)]
pub struct Item {
    /// Which.
    pub task: TaskId,
    /// All there is of it.
    pub work: Arc<Work>,
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
pub async fn run(tools: &Tools, stage: Stage, tasks: &[(TaskId, Arc<AtomicBool>)]) -> Vec<Step> {
    let loaded = tools.jobs.load(tasks.iter().map(|(task, _)| *task).collect()).await;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![Step::Trouble(Trouble::of_jobs(&error)); tasks.len()],
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
    found.into_iter().map(|found| found.err().or_else(|| done.next()).unwrap_or(Step::Over)).collect()
}

/// A task's document when it is at this stage, or else what comes after.
fn item(stage: Stage, (task, dropped): &(TaskId, Arc<AtomicBool>), loaded: Loaded) -> Result<Item, Step> {
    let work = match loaded {
        Ok(Some(work)) => work,
        Ok(None) => return Err(Step::Over),
        Err(error) => return Err(Step::Trouble(Trouble::of_jobs(&error))),
    };
    if work.state == DocumentState::At(stage) {
        return Ok(Item { task: *task, work: Arc::new(work), dropped: Arc::clone(dropped) });
    }
    Err(behind(stage, work.state, work.document.text.len() as u64))
}

/// Offers results to the job store, all that there are in one step, and says what comes after each document.
async fn keep<T>(
    stage: Stage,
    items: &[Item],
    results: Vec<Result<T, Step>>,
    put: impl AsyncFnOnce(Vec<(TaskId, T)>) -> Result<Vec<Put>, JobError>,
) -> Vec<Step> {
    let mut steps = Vec::with_capacity(items.len());
    let (mut places, mut written) = (Vec::new(), Vec::new());
    for (place, (item, result)) in items.iter().zip(results).enumerate() {
        match result {
            Ok(result) => {
                places.push(place);
                written.push((item.task, result));
                steps.push(Step::Over);
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
                    Put::Written => Step::Next { bytes },
                    Put::Already(state) => behind(stage, state, bytes),
                    Put::Gone => Step::Over,
                };
            }
        }
        Err(error) => {
            for place in places {
                steps[place] = Step::Trouble(Trouble::of_jobs(&error));
            }
        }
    }
    steps
}

/// What a stage does with a document that is not, or no more, at it.
fn behind(stage: Stage, state: DocumentState, bytes: u64) -> Step {
    match state {
        DocumentState::At(at) if at > stage => Step::Next { bytes },
        _ => Step::Over,
    }
}

/// How the gateway is asked for a plan's model: by its provider, so that no fallback's vectors come.
fn selector(plan: &Plan) -> Selector<'_> {
    Selector { model: Some(&plan.model), provider: plan.provider.parse::<ProviderKind>().ok() }
}

/// The tenant as the store names them: safe as a directory's name.
fn place_of(tenant: &str) -> String {
    UserId::new(tenant).directory_name()
}

fn reason(code: &str, message: impl Into<String>) -> Reason {
    Reason { code: code.into(), message: message.into() }
}
