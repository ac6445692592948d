//! What Prometheus sees of an orchestrator. Of the queue every orchestrator tells the same; of workers each tells its
//! own.

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

type Number = Gauge<f64, AtomicU64>;

/// The families. Clones share their numbers.
#[derive(Clone)]
pub struct OrchestratorMetrics {
    workers: Family<OfWorkers, Gauge>,
    active: Family<OfWorkers, Gauge>,
    stalled: Family<OfWorkers, Gauge>,
    replaced: Family<OfWorkers, Counter>,
    depth: Family<OfQueue, Gauge>,
    dead: Family<OfQueue, Gauge>,
    ingest: Family<OfQueue, Number>,
    age: Family<OfQueue, Number>,
    ages: Family<OfQueue, Histogram, fn() -> Histogram>,
    /// Dead letters at the last look, and when that was.
    before: Arc<Mutex<BTreeMap<Stage, (u64, Instant)>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWorkers {
    worker_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQueue {
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
            before: Arc::default(),
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
        registry.register("embedding_queue_depth", "Documents that wait", metrics.depth.clone());
        registry.register("embedding_dlq_queue_depth", "Dead letters", metrics.dead.clone());
        registry.register(
            "embedding_dlq_ingest_rate",
            "New dead letters a second, since the last look",
            metrics.ingest.clone(),
        );
        registry.register(
            "embedding_queue_age_current_seconds",
            "How long the longest waiting document has waited",
            metrics.age.clone(),
        );
        registry.register("embedding_queue_age_seconds", "The same, at every look", metrics.ages.clone());
        metrics.pools(Stage::ALL.into_iter().map(|stage| (stage, 0, 0)));
        metrics.seen(&Stage::ALL.into_iter().map(|stage| (stage, Depth::default())).collect());
        for stage in Stage::ALL {
            drop(metrics.replaced.get_or_create(&of_workers(stage)));
        }
        metrics
    }

    /// Workers of each pool, and how many that were replaced have not ended.
    pub(super) fn pools(&self, pools: impl Iterator<Item = (Stage, usize, usize)>) {
        let mut stages: BTreeMap<Stage, (usize, usize)> = BTreeMap::new();
        for (stage, size, stalled) in pools {
            let sums = stages.entry(stage).or_default();
            *sums = (sums.0 + size, sums.1 + stalled);
        }
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (stage, (size, stalled)) in stages {
            self.workers.get_or_create(&of_workers(stage)).set(whole(size + stalled));
            self.active.get_or_create(&of_workers(stage)).set(whole(size));
            self.stalled.get_or_create(&of_workers(stage)).set(whole(stalled));
        }
    }

    pub(super) fn replaced(&self, stage: Stage) {
        self.replaced.get_or_create(&of_workers(stage)).inc();
    }

    pub(super) fn seen(&self, depths: &BTreeMap<Stage, Depth>) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        for (&stage, depth) in depths {
            let (queue, now) = (of_queue(stage), Instant::now());
            let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.depth
                .get_or_create(&queue)
                .set(whole(depth.waiting + depth.held + depth.delayed + depth.newer));
            self.dead.get_or_create(&queue).set(whole(depth.dead));
            self.age.get_or_create(&queue).set(depth.oldest.as_secs_f64());
            self.ages.get_or_create(&queue).observe(depth.oldest.as_secs_f64());
            let rate = match before.insert(stage, (depth.dead, now)) {
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

fn of_workers(stage: Stage) -> OfWorkers {
    OfWorkers { worker_type: stage.as_str() }
}

fn of_queue(stage: Stage) -> OfQueue {
    OfQueue { queue_name: format!("embeddings:{}", stage.as_str()) }
}
