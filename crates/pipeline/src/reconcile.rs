//! Brings queue and truth together, once a period however many processes there are. None leads: whoever wakes first
//! claims the period in the job store, and what it does is the same however often it is done.
//!
//! What the truth calls unfinished and the queue does not hold is enqueued again: a Redis that lost its data, a crash
//! between the two. What the queue has given up (a worker died over it too often) ends as failed in the truth.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    DeadLetterStore, DocumentOutcome, DocumentState, JobMaintenance, JobProgress, JobStore, Queue, Stage,
    Task, TaskId, TaskProducer, WriteResult,
};

/// How often, and what is looked at.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileConfig {
    /// A period: of all processes, one compares in each.
    pub every: Duration,
    /// Documents that something has touched since are left alone: they are under way.
    pub untouched: Duration,
}

/// Documents that are compared at a time.
const PAGE: usize = 500;

/// Brings queue and truth together until `stop`.
pub async fn reconcile(
    jobs: Arc<dyn JobStore>,
    queue: Arc<dyn Queue>,
    config: ReconcileConfig,
    stop: CancellationToken,
) {
    loop {
        // Whoever wakes first after a period has the next one.
        let pause = config.every.mul_f64(1.0 + 0.25 * fastrand::f64());
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
        match run_period(&*jobs, &*queue, config).await {
            Ok(None | Some(0)) => {}
            Ok(Some(missing)) => {
                tracing::info!(missing, "documents that the queue had lost were enqueued again");
            }
            Err(error) => tracing::debug!(%error, "queue and job store could not be compared"),
        }
    }
}

/// One period's work, unless another process has it: how many documents the queue had lost.
pub async fn run_period(
    jobs: &dyn JobStore,
    queue: &dyn Queue,
    config: ReconcileConfig,
) -> Result<Option<usize>, Failure> {
    if !jobs.claim_period("reconcile", config.every).await? {
        return Ok(None);
    }
    fail_dead_lettered(jobs, queue).await?;
    reenqueue_missing(jobs, queue, config.untouched).await.map(Some)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Enqueues what is unfinished and not held; how many.
pub async fn reenqueue_missing(
    jobs: &dyn JobMaintenance,
    queue: &dyn TaskProducer,
    untouched: Duration,
) -> Result<usize, Failure> {
    let (mut after, mut missing): (Option<TaskId>, usize) = (None, 0);
    loop {
        let page = jobs.unfinished(untouched, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(missing) };
        after = Some(last.task);
        let ids: Vec<TaskId> = page.iter().map(|document| document.task).collect();
        let held = queue.contains(&ids).await?;
        let lost: Vec<Task> = page
            .iter()
            .zip(held)
            .filter(|(_, held)| !held)
            .map(|(document, _)| Task::for_document(document))
            .collect();
        if !lost.is_empty() {
            missing += queue.enqueue(&lost).await?.into_iter().filter(|new| *new).count();
        }
        if page.len() < PAGE {
            return Ok(missing);
        }
    }
}

/// Ends documents whose tasks are dead letters; a document that has ended stays as it is. A letter of a try before
/// the present one stands in the way of the document, which was set back, and goes.
pub async fn fail_dead_lettered(jobs: &dyn JobProgress, queue: &dyn DeadLetterStore) -> Result<(), Failure> {
    for stage in Stage::ALL {
        let mut after = None;
        loop {
            let letters = queue.dead_letters(stage, after.take(), PAGE).await?;
            let full = letters.len() == PAGE;
            after = letters.last().map(|letter| letter.id.clone());
            let (mut ids, mut ends) = (Vec::new(), Vec::new());
            for letter in letters {
                if let Some(Task { id, enqueued_at_ms, .. }) = letter.task {
                    ids.push(letter.id);
                    ends.push((id, DocumentOutcome::Failed { stage, reason: letter.reason, enqueued_at_ms }));
                }
            }
            for (letter, put) in ids.iter().zip(jobs.finish(ends).await?) {
                if matches!(put, WriteResult::Already(DocumentState::At(_))) {
                    queue.delete_dead_letter(stage, letter).await?;
                }
            }
            if !full {
                break;
            }
        }
    }
    Ok(())
}
