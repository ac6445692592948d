//! Workers: loops that lease documents, bring them through a stage, and settle.
//!
//! A loop takes as many documents as it has slots and works on them together; while it does, others gather for its
//! next turn, so that calls grow with the load and nobody waits for a call to fill. Leases are renewed by a thread
//! of its own ([`Heartbeat`]), never by what computes. A document that may have killed its worker runs when the whole
//! process does nothing else.

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
use retry_policy::RetryPolicy;

use crate::{
    Consumer, Lease, LeaseRequest, Outcome, QueueError, SettleResult, Stage, WorkerQueue,
    stages::{self, StageContext, StageFailure, StageResult},
};

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The stages it serves.
    pub stages: Vec<Stage>,
    /// Loops for each stage.
    pub concurrency: usize,
    /// Documents that a loop of a stage takes at a time.
    pub slots: BTreeMap<Stage, usize>,
    /// How long a lease holds without being renewed.
    pub lease: Duration,
    /// After so long documents are given up: their leases are renewed no more.
    pub deadline: Duration,
    /// Charged failures after which a document fails.
    pub max_attempts: u32,
    /// The first pause before another attempt is drawn up to this; each later one up to twice the one before.
    pub backoff: Duration,
    /// What work under way gets after the stop was asked for; what is not done then is handed back.
    pub grace: Duration,
    /// The machine, for the worker's name.
    pub host: String,
}

/// A worker.
pub struct Worker {
    tools: Arc<StageContext>,
    queue: Arc<dyn WorkerQueue>,
    config: WorkerConfig,
    consumer: Consumer,
    metrics: WorkerMetrics,
    pulse: Heartbeat,
    /// Held for reading by whoever works, for writing by who must work alone.
    floor: ExclusiveGate,
}

/// What the workers of a process share, so that a document that must run alone has the whole process.
pub type ExclusiveGate = Arc<RwLock<()>>;

/// The right to work.
enum WorkPermit {
    Shared(#[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>),
}

/// How long a loop without work waits before it looks by itself.
const IDLE: Duration = Duration::from_secs(2);

/// Bytes of text that are worked on together. More is handed back at once, so that large documents do not wait
/// here while other loops and workers have nothing to do.
const MAX_BATCH_BYTES: u64 = 2 << 20;

/// The longest pause between two tries at a queue that does not answer.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

impl Worker {
    /// A worker with a name of its own, which is never used again.
    ///
    /// # Errors
    /// When the thread that renews leases cannot be started.
    pub fn new(
        tools: Arc<StageContext>,
        queue: Arc<dyn WorkerQueue>,
        config: WorkerConfig,
        metrics: WorkerMetrics,
    ) -> std::io::Result<Self> {
        let consumer =
            Consumer(format!("{}-{}-{}", config.host, std::process::id(), Uuid::now_v7().simple()));
        let pulse = Heartbeat::start(Arc::clone(&queue), &config, consumer.clone())?;
        Ok(Self { tools, queue, config, consumer, metrics, pulse, floor: Arc::default() })
    }

    /// The same beside others in one process.
    #[must_use]
    pub fn sharing_gate(self, floor: &ExclusiveGate) -> Self {
        Self { floor: Arc::clone(floor), ..self }
    }

    /// Its name.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Works until `stop`, then finishes what is under way, or hands it back when the grace is over.
    pub async fn run(self, stop: CancellationToken) {
        let worker = Arc::new(self);
        let loops = TaskTracker::new();
        let aborted = CancellationToken::new();
        for &stage in &worker.config.stages {
            for _ in 0..worker.config.concurrency {
                let (worker, stop, aborted) = (Arc::clone(&worker), stop.clone(), aborted.clone());
                loops.spawn(async move {
                    let works = worker.work_on(stage, &stop);
                    tokio::select! { () = works => {}, () = aborted.cancelled() => {} }
                });
            }
        }
        loops.close();
        stop.cancelled().await;
        if tokio::time::timeout(worker.config.grace, loops.wait()).await.is_err() {
            tracing::warn!("documents under way are handed back: the time to finish them is over");
            aborted.cancel();
            loops.wait().await;
        }
        worker.pulse.stop();
        if let Err(error) = worker.queue.deregister(&worker.consumer).await {
            tracing::warn!(%error, "the queue was not told that this worker has stopped; its leases run out");
        }
    }

    /// Works until `stop`, whatever happens: a defect costs the documents that met it an attempt, not the worker.
    async fn work_on(&self, stage: Stage, stop: &CancellationToken) {
        while AssertUnwindSafe(self.work(stage, stop)).catch_unwind().await.is_err() {
            tracing::error!(stage = stage.as_str(), "a loop panicked and begins anew");
        }
    }

    async fn work(&self, stage: Stage, stop: &CancellationToken) {
        let slots = self.config.slots.get(&stage).copied().unwrap_or(1);
        let (mut most, mut failures) = (slots, 0);
        while !stop.is_cancelled() {
            let (turn, mut leases) = match self.lease_work(stage, most, stop).await {
                Ok(Some(taken)) => taken,
                Ok(None) => return,
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, stage = stage.as_str(), "the queue does not answer; trying again");
                    }
                    failures += 1;
                    let pause =
                        retry_policy::jittered_backoff(Duration::from_millis(500), failures, MAX_BACKOFF);
                    tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => {} }
                    continue;
                }
            };
            if failures > 0 {
                tracing::info!(stage = stage.as_str(), "the queue answers again");
                failures = 0;
            }
            if leases.is_empty() {
                drop(turn);
                tokio::select! { () = self.queue.wait(stage, IDLE) => {}, () = stop.cancelled() => {} }
                continue;
            }
            let rest = leases.split_off(batch_len(&leases));
            most = if rest.is_empty() { (2 * most).min(slots) } else { leases.len() };
            if !rest.is_empty() {
                let back: Vec<_> = rest.into_iter().map(|lease| (lease, Outcome::Release)).collect();
                self.settle(&back).await;
            }
            self.process(stage, leases).await;
        }
    }

    /// Takes documents, and the right to work on them; `None` when the worker stops before it has that right.
    async fn lease_work(
        &self,
        stage: Stage,
        most: usize,
        stop: &CancellationToken,
    ) -> Result<Option<(WorkPermit, Vec<Lease>)>, QueueError> {
        let request = |idle| LeaseRequest {
            stage,
            consumer: &self.consumer,
            max_tasks: most,
            duration: self.config.lease,
            idle,
        };
        let floor = || Arc::clone(&self.floor);
        // Nobody works now: what must run alone may come.
        let whole = if let Ok(whole) = floor().try_write_owned() {
            whole
        } else {
            let Some(shared) = stop.run_until_cancelled(floor().read_owned()).await else { return Ok(None) };
            let got = self.queue.lease(request(false)).await?;
            if !got.drain_for_exclusive || stop.is_cancelled() {
                return Ok(Some((WorkPermit::Shared(shared), got.leases)));
            }
            // Something that must run alone waits for us: those who work end, and nobody begins before.
            drop(shared);
            let Some(whole) = stop.run_until_cancelled(floor().write_owned()).await else { return Ok(None) };
            whole
        };
        if stop.is_cancelled() {
            return Ok(None);
        }
        let leases = self.queue.lease(request(true)).await?.leases;
        let alone = leases.iter().any(|lease| lease.exclusive);
        Ok(Some((
            if alone { WorkPermit::Alone(whole) } else { WorkPermit::Shared(whole.downgrade()) },
            leases,
        )))
    }

    /// Brings leased documents through a stage and settles them.
    async fn process(&self, stage: Stage, leases: Vec<Lease>) {
        let held = self.pulse.track(&leases);
        let dropped: Vec<_> = held.dropped().collect();
        let outcomes = AssertUnwindSafe(self.outcomes(stage, &leases, &dropped)).catch_unwind().await;
        let outcomes = outcomes.unwrap_or_else(|_| {
            // A defect of ours that one of them met. Whose fault it was, those find out who run alone.
            tracing::error!(stage = stage.as_str(), documents = leases.len(), "a stage panicked");
            let pause = |lease: &Lease| {
                retry_policy::jittered_backoff(
                    self.config.backoff,
                    lease.task.deaths + 1,
                    retry_policy::MAX_BACKOFF,
                )
            };
            leases.iter().map(|lease| Outcome::Crashed { after: pause(lease) }).collect()
        });
        self.settle(&leases.into_iter().zip(outcomes).collect::<Vec<_>>()).await;
    }

    /// What comes after each lease.
    async fn outcomes(&self, stage: Stage, leases: &[Lease], dropped: &[Arc<AtomicBool>]) -> Vec<Outcome> {
        let began = Instant::now();
        let mut spans: Vec<_> = leases.iter().map(|lease| traced(stage, lease)).collect();
        let tasks: Vec<_> =
            leases.iter().zip(dropped).map(|(lease, dropped)| (lease.task.id, Arc::clone(dropped))).collect();
        let work = stages::run(&self.tools, stage, &tasks);
        let steps = tokio::time::timeout(self.config.deadline, work).await.unwrap_or_else(|_| {
            tracing::error!(
                stage = stage.as_str(),
                documents = leases.len(),
                "documents are given up: they hang"
            );
            // An attempt, not a death: this worker is alive, and its leases still hold.
            vec![StageResult::Trouble(StageFailure::timed_out(self.config.deadline)); leases.len()]
        });
        for (span, step) in spans.iter_mut().zip(&steps) {
            if let Some(span) = span {
                span.attributes.failed = matches!(step, StageResult::Trouble(_));
            }
        }
        let policy = RetryPolicy { tools: &self.tools, config: &self.config, stage };
        let outcomes = leases.iter().zip(steps).zip(dropped).map(|((lease, step), dropped)| {
            let unwanted = dropped.load(Relaxed);
            let step = if unwanted { StageResult::Done } else { step };
            self.metrics.ended(stage, &step, lease.task.bytes);
            async {
                let outcome = policy.outcome(&lease.task, step).await;
                self.pulse.counted(!matches!(outcome, Outcome::DeadLetter(_)));
                outcome
            }
        });
        let outcomes = join_all(outcomes).await;
        self.metrics.worked(stage, outcomes.len(), began.elapsed());
        outcomes
    }

    /// Settles, patiently: a queue that is away for a moment must not make others do the work again.
    async fn settle(&self, outcomes: &[(Lease, Outcome)]) {
        let until = Instant::now() + self.config.deadline;
        let mut failures = 0;
        loop {
            match self.queue.settle(outcomes).await {
                Ok(settled) => {
                    let lost = settled.iter().filter(|settled| **settled == SettleResult::Lost).count();
                    if lost > 0 {
                        tracing::info!(lost, "leases had run out; other workers have the documents");
                    }
                    return;
                }
                Err(error) if Instant::now() < until => {
                    failures += 1;
                    tracing::debug!(%error, failures, "settling failed; trying again");
                    let pause =
                        retry_policy::jittered_backoff(Duration::from_millis(200), failures, MAX_BACKOFF / 3);
                    tokio::time::sleep(pause).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "settling failed; the documents will be looked at again");
                    return;
                }
            }
        }
    }
}

/// A span for a document in a stage, below the request that brought it.
fn traced(stage: Stage, lease: &Lease) -> Option<Span> {
    let parent = lease.task.traceparent.as_deref().and_then(TraceContext::parse)?;
    let facts = SpanAttributes {
        kind: 5,
        request_id: Some(lease.task.id.job.to_string()),
        failed: true,
        ..SpanAttributes::default()
    };
    Span::begin(stage.as_str(), Some(parent), facts)
}

/// How many of these leases, from the first, are worked on together.
fn batch_len(leases: &[Lease]) -> usize {
    let mut bytes = 0;
    let few = leases.iter().take_while(|lease| {
        bytes += lease.task.bytes;
        bytes <= MAX_BATCH_BYTES
    });
    few.count().max(1).min(leases.len())
}
