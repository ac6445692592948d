//! Prometheus metrics of the stages.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::{
    Stage,
    stages::{StageFailure, StageResult},
};

/// The metric families. Clones share their values.
#[derive(Clone)]
pub struct WorkerMetrics {
    processed: Family<StageLabels, Counter>,
    failed: Family<StageLabels, Counter>,
    waited: Family<StageLabels, Counter>,
    latency: Family<StageLabels, Histogram, fn() -> Histogram>,
    batch_size: Family<StageLabels, Histogram, fn() -> Histogram>,
    payload_bytes: Family<StageLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

impl WorkerMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || {
            Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0])
        };
        let documents: fn() -> Histogram = || Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]);
        let bytes: fn() -> Histogram = || {
            let sizes = [128, 512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
            Histogram::new(sizes.map(f64::from))
        };
        let metrics = Self {
            processed: Family::default(),
            failed: Family::default(),
            waited: Family::default(),
            latency: Family::new_with_constructor(seconds),
            batch_size: Family::new_with_constructor(documents),
            payload_bytes: Family::new_with_constructor(bytes),
        };
        registry.register(
            "embedding_stage_jobs_processed",
            "Documents that a stage has completed",
            metrics.processed.clone(),
        );
        registry.register(
            "embedding_stage_jobs_failed",
            "Failures of documents at a stage, including those that are retried",
            metrics.failed.clone(),
        );
        registry.register(
            "embedding_stage_jobs_waited",
            "Documents deferred without a charged attempt, because a provider is down, a quota is exceeded or a disk is full",
            metrics.waited.clone(),
        );
        registry.register(
            "embedding_stage_processing_latency_seconds",
            "Duration of a stage for one batch, in seconds",
            metrics.latency.clone(),
        );
        registry.register(
            "embedding_stage_batch_size",
            "Documents in one batch of a stage",
            metrics.batch_size.clone(),
        );
        registry.register(
            "embedding_stage_payload_bytes",
            "Text of a document at a stage, in bytes",
            metrics.payload_bytes.clone(),
        );
        // A family is exported once it has a member. All stages are exported from the start.
        for stage in Stage::ALL.map(labels) {
            for family in [&metrics.processed, &metrics.failed, &metrics.waited] {
                drop(family.get_or_create(&stage));
            }
            for family in [&metrics.latency, &metrics.batch_size, &metrics.payload_bytes] {
                drop(family.get_or_create(&stage));
            }
        }
        metrics
    }

    pub(super) fn record_document(&self, stage: Stage, result: &StageResult, bytes: u64) {
        let counter = match result {
            StageResult::Next { .. } | StageResult::Done => &self.processed,
            StageResult::Failure(StageFailure::Defer { .. }) => &self.waited,
            StageResult::Failure(_) => &self.failed,
        };
        counter.get_or_create(&labels(stage)).inc();
        self.payload_bytes.get_or_create(&labels(stage)).observe(bytes as f64);
    }

    pub(super) fn record_batch(&self, stage: Stage, documents: usize, duration: Duration) {
        self.latency.get_or_create(&labels(stage)).observe(duration.as_secs_f64());
        self.batch_size.get_or_create(&labels(stage)).observe(documents as f64);
    }
}

const fn labels(stage: Stage) -> StageLabels {
    StageLabels { stage: stage.as_str() }
}
