//! Compares the queue with the job store, once per period for all processes. None of them leads: the first process that
//! wakes claims the period in the job store. The comparison may be repeated without harm.
//!
//! An unfinished document that the queue does not hold is enqueued again: Redis lost its data, or a process crashed
//! between the two writes. A document whose task is a dead letter, because its workers crashed, fails in the job store.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    DeadLetter, DeadLetterStore, DocumentOutcome, DocumentState, JobMaintenance, JobProgress, JobStore,
    Queue, Stage, Task, TaskId, TaskProducer, WriteResult,
};

/// The settings of the reconciler.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileConfig {
    /// The period. One of all processes compares in each.
    pub interval: Duration,
    /// Documents that changed less than this time ago are not compared: they are under way.
    pub untouched: Duration,
}

/// Documents per query.
const PAGE_SIZE: usize = 500;

/// Compares the queue with the job store in each period, until `stop`.
pub async fn reconcile(
    jobs: Arc<dyn JobStore>,
    queue: Arc<dyn Queue>,
    config: ReconcileConfig,
    stop: CancellationToken,
) {
    loop {
        // The first process that wakes after a period claims the next one. Jitter varies which one.
        let delay = config.interval.mul_f64(1.0 + 0.25 * fastrand::f64());
        tokio::select! { () = tokio::time::sleep(delay) => {}, () = stop.cancelled() => return }
        match run_period(&*jobs, &*queue, config).await {
            Ok(None | Some(0)) => {}
            Ok(Some(missing)) => {
                tracing::info!(missing, "documents that the queue had lost were enqueued again");
            }
            Err(error) => tracing::debug!(%error, "the queue could not be compared with the job store"),
        }
    }
}

/// Compares the queue with the job store once, and returns how many documents the queue had lost; `None` when another
/// process has claimed the period.
pub async fn run_period(
    jobs: &dyn JobStore,
    queue: &dyn Queue,
    config: ReconcileConfig,
) -> Result<Option<usize>, Failure> {
    if !jobs.claim_period("reconcile", config.interval).await? {
        return Ok(None);
    }
    fail_dead_lettered(jobs, queue).await?;
    reenqueue_missing(jobs, queue, config.untouched).await.map(Some)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Enqueues the unfinished documents that the queue does not hold. Returns their number.
pub async fn reenqueue_missing(
    jobs: &dyn JobMaintenance,
    queue: &dyn TaskProducer,
    untouched: Duration,
) -> Result<usize, Failure> {
    let (mut after, mut missing): (Option<TaskId>, usize) = (None, 0);
    loop {
        let page = jobs.unfinished(untouched, after, PAGE_SIZE).await?;
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
        if page.len() < PAGE_SIZE {
            return Ok(missing);
        }
    }
}

/// Ends documents whose tasks are dead letters as failed. A document that has ended is not changed. When a document was
/// set back after its dead letter was written, the dead letter would block it and is deleted.
pub async fn fail_dead_lettered(jobs: &dyn JobProgress, queue: &dyn DeadLetterStore) -> Result<(), Failure> {
    for stage in Stage::ALL {
        let mut after = None;
        loop {
            let dead_letters = queue.dead_letters(stage, after.take(), PAGE_SIZE).await?;
            let is_full_page = dead_letters.len() == PAGE_SIZE;
            after = dead_letters.last().map(|dead_letter| dead_letter.id.clone());
            let (mut ids, mut ends) = (Vec::new(), Vec::new());
            for DeadLetter { id: dead_letter, task, reason, .. } in dead_letters {
                if let Some(Task { id, enqueued_at_ms, .. }) = task {
                    ids.push(dead_letter);
                    ends.push((id, DocumentOutcome::Failed { stage, reason, enqueued_at_ms }));
                }
            }
            for (dead_letter, written) in ids.iter().zip(jobs.finish(ends).await?) {
                if matches!(written, WriteResult::Already(DocumentState::At(_))) {
                    queue.delete_dead_letter(stage, dead_letter).await?;
                }
            }
            if !is_full_page {
                break;
            }
        }
    }
    Ok(())
}
