//! Prometheus metrics of an orchestrator. Every orchestrator exports the same values of the queue, and the values of its
//! own workers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Instant,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{Depth, Stage};

type FloatGauge = Gauge<f64, AtomicU64>;

/// The metric families. Clones share their values.
#[derive(Clone)]
pub struct OrchestratorMetrics {
    workers: Family<WorkerLabels, Gauge>,
    active: Family<WorkerLabels, Gauge>,
    stalled: Family<WorkerLabels, Gauge>,
    replaced: Family<WorkerLabels, Counter>,
    depth: Family<QueueLabels, Gauge>,
    dead: Family<QueueLabels, Gauge>,
    ingest: Family<QueueLabels, FloatGauge>,
    age: Family<QueueLabels, FloatGauge>,
    ages: Family<QueueLabels, Histogram, fn() -> Histogram>,
    /// The number of dead letters at the last update, and its time.
    last_dead: Arc<Mutex<BTreeMap<Stage, (u64, Instant)>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    worker_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue_name: String,
}

impl OrchestratorMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram =
            || Histogram::new([0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0]);
        let metrics = Self {
            workers: Family::default(),
            active: Family::default(),
            stalled: Family::default(),
            replaced: Family::default(),
            depth: Family::default(),
            dead: Family::default(),
            ingest: Family::default(),
            age: Family::default(),
            ages: Family::new_with_constructor(seconds),
            last_dead: Arc::default(),
        };
        registry.register("embedding_workers", "Workers of this process", metrics.workers.clone());
        registry.register(
            "embedding_workers_active",
            "Workers of this process that make progress",
            metrics.active.clone(),
        );
        registry.register(
            "embedding_workers_stalled",
            "Workers of this process that were replaced because they made no progress, and have not ended",
            metrics.stalled.clone(),
        );
        registry.register(
            "embedding_workers_replaced",
            "Workers that were replaced, stalled or ended",
            metrics.replaced.clone(),
        );
        registry.register("embedding_queue_depth", "Documents that wait in the queue", metrics.depth.clone());
        registry.register("embedding_dlq_queue_depth", "Dead letters", metrics.dead.clone());
        registry.register(
            "embedding_dlq_ingest_rate",
            "New dead letters per second since the last update",
            metrics.ingest.clone(),
        );
        registry.register(
            "embedding_queue_age_current_seconds",
            "Age of the oldest waiting document, in seconds",
            metrics.age.clone(),
        );
        registry.register(
            "embedding_queue_age_seconds",
            "Age of the oldest waiting document at each update, in seconds",
            metrics.ages.clone(),
        );
        metrics.set_pools(Stage::ALL.into_iter().map(|stage| (stage, 0, 0)));
        metrics.set_depths(&Stage::ALL.into_iter().map(|stage| (stage, Depth::default())).collect());
        for stage in Stage::ALL {
            drop(metrics.replaced.get_or_create(&worker_labels(stage)));
        }
        metrics
    }

    /// Records the size of each pool, and how many of its replaced workers have not ended.
    pub(super) fn set_pools(&self, pools: impl Iterator<Item = (Stage, usize, usize)>) {
        let mut stages: BTreeMap<Stage, (usize, usize)> = BTreeMap::new();
        for (stage, size, stalled) in pools {
            let sums = stages.entry(stage).or_default();
            *sums = (sums.0 + size, sums.1 + stalled);
        }
        let to_i64 = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (stage, (size, stalled)) in stages {
            self.workers.get_or_create(&worker_labels(stage)).set(to_i64(size + stalled));
            self.active.get_or_create(&worker_labels(stage)).set(to_i64(size));
            self.stalled.get_or_create(&worker_labels(stage)).set(to_i64(stalled));
        }
    }

    /// Counts a replaced worker.
    pub(super) fn count_replaced(&self, stage: Stage) {
        self.replaced.get_or_create(&worker_labels(stage)).inc();
    }

    /// Records the depth of each queue.
    pub(super) fn set_depths(&self, depths: &BTreeMap<Stage, Depth>) {
        let mut last_dead = self.last_dead.lock().unwrap_or_else(PoisonError::into_inner);
        for (&stage, depth) in depths {
            let (queue, now) = (queue_labels(stage), Instant::now());
            let to_i64 = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.depth
                .get_or_create(&queue)
                .set(to_i64(depth.waiting + depth.held + depth.delayed + depth.newer));
            self.dead.get_or_create(&queue).set(to_i64(depth.dead));
            self.age.get_or_create(&queue).set(depth.oldest.as_secs_f64());
            self.ages.get_or_create(&queue).observe(depth.oldest.as_secs_f64());
            let rate = match last_dead.insert(stage, (depth.dead, now)) {
                Some((dead, then)) => {
                    let seconds = now.duration_since(then).as_secs_f64().max(1e-3);
                    depth.dead.saturating_sub(dead) as f64 / seconds
                }
                None => 0.0,
            };
            self.ingest.get_or_create(&queue).set(rate);
        }
    }
}

fn worker_labels(stage: Stage) -> WorkerLabels {
    WorkerLabels { worker_type: stage.as_str() }
}

fn queue_labels(stage: Stage) -> QueueLabels {
    QueueLabels { queue_name: format!("embeddings:{}", stage.as_str()) }
}
