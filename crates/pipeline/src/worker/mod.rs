//! Workers: loops that lease documents, run a stage on them, and settle.
//!
//! A loop leases as many documents as it has slots and processes them together. Others gather meanwhile, so that calls
//! grow with the load and no document waits for a call to fill. A thread of its own ([`Heartbeat`]) renews the leases,
//! so that computation cannot delay it. A document that may have crashed its worker runs alone in its process.

mod heartbeat;
mod metrics;
mod retry_policy;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use embeddery_core::TraceContext;
use embeddery_gateway::trace::{Span, SpanAttributes};
use futures_util::{FutureExt as _, future::join_all};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use heartbeat::Heartbeat;
pub use metrics::WorkerMetrics;
use retry_policy::{RetryPolicy, jittered_backoff};

use crate::{
    Consumer, Lease, LeaseRequest, Outcome, QueueError, SettleResult, Stage, WorkerQueue,
    stages::{self, StageContext, StageFailure, StageResult},
};

/// The settings of a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The stages that it serves.
    pub stages: Vec<Stage>,
    /// Loops per stage.
    pub concurrency: usize,
    /// Maximum documents that a loop of a stage leases at a time.
    pub slots: BTreeMap<Stage, usize>,
    /// Duration of a lease without renewal.
    pub lease: Duration,
    /// Maximum duration of a stage for one batch. Leases are not renewed after it.
    pub deadline: Duration,
    /// Charged failures after which a document fails.
    pub max_attempts: u32,
    /// Maximum delay before the second attempt. It doubles with each attempt.
    pub backoff: Duration,
    /// Time to finish the documents under way after a stop is requested. The rest is released.
    pub grace: Duration,
    /// The host, for the worker's name.
    pub host: String,
}

/// A worker.
pub struct Worker {
    context: Arc<StageContext>,
    queue: Arc<dyn WorkerQueue>,
    config: WorkerConfig,
    consumer: Consumer,
    metrics: WorkerMetrics,
    heartbeat: Heartbeat,
    /// Locked for reading while a loop works, for writing while one must work alone.
    gate: ExclusiveGate,
}

/// The lock that the workers of a process share, so that a document can run alone in the process.
pub type ExclusiveGate = Arc<RwLock<()>>;

/// The guard that a loop holds while it works.
enum WorkPermit {
    Shared(#[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
    Exclusive(#[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>),
}

/// Maximum time that a loop without work waits for a notification of the queue.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum bytes of text in a batch. Leases beyond it are released at once, so that large documents do not wait here
/// while other loops and workers are idle.
const MAX_BATCH_BYTES: u64 = 2 << 20;

/// Delay before the second attempt to lease. It doubles with each attempt.
const LEASE_INITIAL_BACKOFF: Duration = Duration::from_millis(500);
/// Maximum delay between two attempts to lease.
const LEASE_MAX_BACKOFF: Duration = Duration::from_secs(15);
/// Delay before the second attempt to settle. It doubles with each attempt.
const SETTLE_INITIAL_BACKOFF: Duration = Duration::from_millis(200);
/// Maximum delay between two attempts to settle.
const SETTLE_MAX_BACKOFF: Duration = Duration::from_secs(5);

impl Worker {
    /// A worker with a unique name.
    ///
    /// # Errors
    /// When the heartbeat thread cannot be started.
    pub fn new(
        context: Arc<StageContext>,
        queue: Arc<dyn WorkerQueue>,
        config: WorkerConfig,
        metrics: WorkerMetrics,
    ) -> std::io::Result<Self> {
        let consumer =
            Consumer(format!("{}-{}-{}", config.host, std::process::id(), Uuid::now_v7().simple()));
        let heartbeat = Heartbeat::start(Arc::clone(&queue), &config, consumer.clone())?;
        Ok(Self { context, queue, config, consumer, metrics, heartbeat, gate: Arc::default() })
    }

    /// Shares the gate of other workers of the process.
    #[must_use]
    pub fn sharing_gate(self, gate: &ExclusiveGate) -> Self {
        Self { gate: Arc::clone(gate), ..self }
    }

    /// The worker's name in the queue.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Works until `stop`. Then finishes the documents under way, or releases them when the grace has passed.
    pub async fn run(self, stop: CancellationToken) {
        let worker = Arc::new(self);
        let loops = TaskTracker::new();
        let aborted = CancellationToken::new();
        for &stage in &worker.config.stages {
            for _ in 0..worker.config.concurrency {
                let (worker, stop, aborted) = (Arc::clone(&worker), stop.clone(), aborted.clone());
                loops.spawn(async move {
                    let work = worker.run_loop(stage, &stop);
                    tokio::select! { () = work => {}, () = aborted.cancelled() => {} }
                });
            }
        }
        loops.close();
        stop.cancelled().await;
        if tokio::time::timeout(worker.config.grace, loops.wait()).await.is_err() {
            tracing::warn!("the grace of the shutdown has passed; unfinished documents are released");
            aborted.cancel();
            loops.wait().await;
        }
        worker.heartbeat.stop();
        if let Err(error) = worker.queue.deregister(&worker.consumer).await {
            tracing::warn!(%error, "the worker could not be deregistered; its leases expire");
        }
    }

    /// Runs a loop until `stop`. A panic costs the documents of its batch an attempt; the loop starts again.
    async fn run_loop(&self, stage: Stage, stop: &CancellationToken) {
        while AssertUnwindSafe(self.work(stage, stop)).catch_unwind().await.is_err() {
            tracing::error!(stage = stage.as_str(), "a worker loop panicked; it starts again");
        }
    }

    async fn work(&self, stage: Stage, stop: &CancellationToken) {
        let slots = self.config.slots.get(&stage).copied().unwrap_or(1);
        let (mut max_leases, mut failures) = (slots, 0);
        while !stop.is_cancelled() {
            let (permit, mut leases) = match self.lease_work(stage, max_leases, stop).await {
                Ok(Some(leased)) => leased,
                Ok(None) => return,
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, stage = stage.as_str(), "the queue cannot be reached; retrying");
                    }
                    failures += 1;
                    let delay = jittered_backoff(LEASE_INITIAL_BACKOFF, failures, LEASE_MAX_BACKOFF);
                    tokio::select! { () = tokio::time::sleep(delay) => {}, () = stop.cancelled() => {} }
                    continue;
                }
            };
            if failures > 0 {
                tracing::info!(stage = stage.as_str(), "the queue can be reached again");
                failures = 0;
            }
            if leases.is_empty() {
                drop(permit);
                let notified = self.queue.wait(stage, IDLE_POLL_INTERVAL);
                tokio::select! { () = notified => {}, () = stop.cancelled() => {} }
                continue;
            }
            let rest = leases.split_off(batch_len(&leases));
            max_leases = if rest.is_empty() { (2 * max_leases).min(slots) } else { leases.len() };
            if !rest.is_empty() {
                let released: Vec<_> = rest.into_iter().map(|lease| (lease, Outcome::Release)).collect();
                self.settle(&released).await;
            }
            self.process(stage, leases).await;
        }
    }

    /// Leases documents with the permit to process them; `None` when the worker stops before it has the permit.
    async fn lease_work(
        &self,
        stage: Stage,
        max_leases: usize,
        stop: &CancellationToken,
    ) -> Result<Option<(WorkPermit, Vec<Lease>)>, QueueError> {
        let request = |idle| LeaseRequest {
            stage,
            consumer: &self.consumer,
            max_tasks: max_leases,
            duration: self.config.lease,
            idle,
        };
        let gate = || Arc::clone(&self.gate);
        // When no loop works, a document that must run alone can be leased.
        let exclusive = if let Ok(exclusive) = gate().try_write_owned() {
            exclusive
        } else {
            let Some(shared) = stop.run_until_cancelled(gate().read_owned()).await else { return Ok(None) };
            let batch = self.queue.lease(request(false)).await?;
            if !batch.drain_for_exclusive || stop.is_cancelled() {
                return Ok(Some((WorkPermit::Shared(shared), batch.leases)));
            }
            // A document must run alone: wait for the other loops. None of them starts before this one.
            drop(shared);
            let Some(exclusive) = stop.run_until_cancelled(gate().write_owned()).await else {
                return Ok(None);
            };
            exclusive
        };
        if stop.is_cancelled() {
            return Ok(None);
        }
        let leases = self.queue.lease(request(true)).await?.leases;
        let permit = if leases.iter().any(|lease| lease.exclusive) {
            WorkPermit::Exclusive(exclusive)
        } else {
            WorkPermit::Shared(exclusive.downgrade())
        };
        Ok(Some((permit, leases)))
    }

    /// Runs a stage on leased documents and settles them.
    async fn process(&self, stage: Stage, leases: Vec<Lease>) {
        let tracked = self.heartbeat.track(&leases);
        let abandoned: Vec<_> = tracked.abandoned().collect();
        let outcomes = AssertUnwindSafe(self.outcomes(stage, &leases, &abandoned)).catch_unwind().await;
        let outcomes = outcomes.unwrap_or_else(|_| {
            // One of the documents met a defect. They run alone from now on, which tells which one.
            tracing::error!(stage = stage.as_str(), documents = leases.len(), "a stage panicked");
            let delay = |lease: &Lease| {
                jittered_backoff(self.config.backoff, lease.task.deaths + 1, retry_policy::MAX_BACKOFF)
            };
            leases.iter().map(|lease| Outcome::Crashed { after: delay(lease) }).collect()
        });
        self.settle(&leases.into_iter().zip(outcomes).collect::<Vec<_>>()).await;
    }

    /// The outcome of each lease.
    async fn outcomes(&self, stage: Stage, leases: &[Lease], abandoned: &[Arc<AtomicBool>]) -> Vec<Outcome> {
        let started = Instant::now();
        let mut spans: Vec<_> = leases.iter().map(|lease| document_span(stage, lease)).collect();
        let tasks: Vec<_> = leases
            .iter()
            .zip(abandoned)
            .map(|(lease, abandoned)| (lease.task.id, Arc::clone(abandoned)))
            .collect();
        let work = stages::run(&self.context, stage, &tasks);
        let results = tokio::time::timeout(self.config.deadline, work).await.unwrap_or_else(|_| {
            tracing::error!(
                stage = stage.as_str(),
                documents = leases.len(),
                "a stage did not end before its deadline; its documents are retried"
            );
            // This counts as an attempt, not as a crash: the worker is alive and its leases are valid.
            vec![StageResult::Failure(StageFailure::timed_out(self.config.deadline)); leases.len()]
        });
        for (span, result) in spans.iter_mut().zip(&results) {
            if let Some(span) = span {
                span.attributes.failed = matches!(result, StageResult::Failure(_));
            }
        }
        let policy = RetryPolicy { jobs: &*self.context.jobs, config: &self.config, stage };
        let outcomes = leases.iter().zip(results).zip(abandoned).map(|((lease, result), abandoned)| {
            let result = if abandoned.load(Relaxed) { StageResult::Done } else { result };
            self.metrics.record_document(stage, &result, lease.task.bytes);
            async {
                let outcome = policy.outcome(&lease.task, result).await;
                self.heartbeat.count(!matches!(outcome, Outcome::DeadLetter(_)));
                outcome
            }
        });
        let outcomes = join_all(outcomes).await;
        self.metrics.record_batch(stage, outcomes.len(), started.elapsed());
        outcomes
    }

    /// Settles leases. A queue that is unavailable for a moment must not make other workers repeat the work, so this is
    /// retried until the deadline.
    async fn settle(&self, outcomes: &[(Lease, Outcome)]) {
        let until = Instant::now() + self.config.deadline;
        let mut failures = 0;
        loop {
            match self.queue.settle(outcomes).await {
                Ok(settled) => {
                    let lost = settled.iter().filter(|settled| **settled == SettleResult::Lost).count();
                    if lost > 0 {
                        tracing::info!(lost, "leases had expired; other workers have the documents");
                    }
                    return;
                }
                Err(error) if Instant::now() < until => {
                    failures += 1;
                    tracing::debug!(%error, failures, "settling failed; retrying");
                    let delay = jittered_backoff(SETTLE_INITIAL_BACKOFF, failures, SETTLE_MAX_BACKOFF);
                    tokio::time::sleep(delay).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "settling failed; the documents are processed again");
                    return;
                }
            }
        }
    }
}

/// A span of a document at a stage, a child of the request that submitted it.
fn document_span(stage: Stage, lease: &Lease) -> Option<Span> {
    let parent = lease.task.traceparent.as_deref().and_then(TraceContext::parse)?;
    let attributes = SpanAttributes {
        kind: 5,
        request_id: Some(lease.task.id.job.to_string()),
        failed: true,
        ..SpanAttributes::default()
    };
    Span::begin(stage.as_str(), Some(parent), attributes)
}

/// How many of these leases, from the first, fit in a batch.
fn batch_len(leases: &[Lease]) -> usize {
    let mut bytes = 0;
    let fitting = leases.iter().take_while(|lease| {
        bytes += lease.task.bytes;
        bytes <= MAX_BATCH_BYTES
    });
    fitting.count().max(1).min(leases.len())
}
