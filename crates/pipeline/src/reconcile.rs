//! Brings queue and truth together. Every process that serves or works does this now and then, none leads: what it
//! does is the same however often it is done.
//!
//! What the truth calls unfinished and the queue does not hold is enqueued again: a Redis that lost its data, a crash
//! between the two. What the queue has given up (a worker died over it too often) ends as failed in the truth.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use crate::{DeadLetterId, End, JobStore, Queue, Stage, Task, TaskId, Unfinished};

/// How often, and what is looked at.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileConfig {
    /// The pause between two rounds, on average.
    pub every: Duration,
    /// Documents that something has touched since are left alone: they are under way.
    pub untouched: Duration,
}

/// Dead letters that are remembered.
const MOST_KNOWN: usize = 100_000;

/// Documents that are compared at a time.
const PAGE: usize = 500;

/// Brings queue and truth together until `stop`.
pub async fn reconcile(
    jobs: Arc<dyn JobStore>,
    queue: Arc<dyn Queue>,
    config: ReconcileConfig,
    stop: CancellationToken,
) {
    let mut buried = HashSet::new();
    loop {
        // Between a half and one and a half, so that processes that were started together do not stay together.
        let pause = config.every.mul_f64(0.5 + fastrand::f64());
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
        match round(&*jobs, &*queue, config.untouched).await {
            Ok(0) => {}
            Ok(missing) => tracing::info!(missing, "documents that the queue had lost were enqueued again"),
            Err(error) => tracing::debug!(%error, "queue and job store could not be compared"),
        }
        if let Err(error) = note_dead(&*jobs, &*queue, &mut buried).await {
            tracing::debug!(%error, "dead letters could not be looked at");
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Enqueues what is unfinished and not held; how many.
pub async fn round(jobs: &dyn JobStore, queue: &dyn Queue, untouched: Duration) -> Result<usize, Failure> {
    let (mut after, mut missing): (Option<TaskId>, usize) = (None, 0);
    loop {
        let page = jobs.unfinished(untouched, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(missing) };
        after = Some(last.task);
        let ids: Vec<TaskId> = page.iter().map(|document| document.task).collect();
        let held = queue.holds(&ids).await?;
        let lost: Vec<Task> =
            page.iter().zip(held).filter(|(_, held)| !held).map(|(document, _)| task(document)).collect();
        if !lost.is_empty() {
            missing += queue.enqueue(&lost).await?.into_iter().filter(|new| *new).count();
        }
        if page.len() < PAGE {
            return Ok(missing);
        }
    }
}

/// A document's task at the stage where it stands, with nothing charged.
pub fn task(document: &Unfinished) -> Task {
    Task {
        id: document.task,
        tenant: Arc::clone(&document.tenant),
        stage: document.stage,
        priority: document.priority,
        bytes: document.bytes,
        attempts: 0,
        deaths: 0,
        enqueued_at_ms: now_ms(),
        traceparent: document.traceparent.clone(),
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Ends documents whose tasks are dead letters; a document that has ended stays as it is. `known` are those looked
/// at before.
async fn note_dead(
    jobs: &dyn JobStore,
    queue: &dyn Queue,
    known: &mut HashSet<(Stage, DeadLetterId)>,
) -> Result<(), Failure> {
    for stage in Stage::ALL {
        let mut after = None;
        loop {
            // Newest first: where those begin that are known, all that follow are.
            let letters = queue.dead_letters(stage, after.take(), PAGE).await?;
            let full = letters.len() == PAGE;
            let mut all_known = true;
            for letter in letters {
                let id = (stage, letter.id);
                if !known.contains(&id) {
                    all_known = false;
                    if let Some(task) = letter.task {
                        jobs.finish(task.id, End::Failed { stage, reason: letter.reason }).await?;
                    }
                }
                after = Some(id.1.clone());
                known.insert(id);
            }
            if all_known || !full {
                break;
            }
        }
    }
    // More than there can be letters: those that are gone are forgotten, and the rest looked at once more.
    if known.len() > MOST_KNOWN {
        known.clear();
    }
    Ok(())
}
