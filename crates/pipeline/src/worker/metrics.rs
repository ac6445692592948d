//! What Prometheus sees of the stages.

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

/// The families. Clones share their numbers.
#[derive(Clone)]
pub struct WorkerMetrics {
    processed: Family<Of, Counter>,
    failed: Family<Of, Counter>,
    waited: Family<Of, Counter>,
    latency: Family<Of, Histogram, fn() -> Histogram>,
    batch_size: Family<Of, Histogram, fn() -> Histogram>,
    payload_bytes: Family<Of, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
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
            "Documents that a stage has brought to the next, or to their end",
            metrics.processed.clone(),
        );
        registry.register(
            "embedding_stage_jobs_failed",
            "Documents that failed at a stage, those tried again included",
            metrics.failed.clone(),
        );
        registry.register(
            "embedding_stage_jobs_waited",
            "Documents put off for no fault of theirs: a provider was down, a quota used up, a disk full",
            metrics.waited.clone(),
        );
        registry.register(
            "embedding_stage_processing_latency_seconds",
            "Time that documents taken together spend in a stage",
            metrics.latency.clone(),
        );
        registry.register(
            "embedding_stage_batch_size",
            "Documents that a stage takes together",
            metrics.batch_size.clone(),
        );
        registry.register(
            "embedding_stage_payload_bytes",
            "Bytes of text of a document in a stage",
            metrics.payload_bytes.clone(),
        );
        // A family shows once it has a member: all stages from the start.
        for stage in Stage::ALL.map(of) {
            for family in [&metrics.processed, &metrics.failed, &metrics.waited] {
                drop(family.get_or_create(&stage));
            }
            for family in [&metrics.latency, &metrics.batch_size, &metrics.payload_bytes] {
                drop(family.get_or_create(&stage));
            }
        }
        metrics
    }

    pub(super) fn ended(&self, stage: Stage, step: &StageResult, bytes: u64) {
        let counter = match step {
            StageResult::Next { .. } | StageResult::Done => &self.processed,
            StageResult::Trouble(StageFailure::Defer { .. }) => &self.waited,
            StageResult::Trouble(_) => &self.failed,
        };
        counter.get_or_create(&of(stage)).inc();
        self.payload_bytes.get_or_create(&of(stage)).observe(bytes as f64);
    }

    pub(super) fn worked(&self, stage: Stage, documents: usize, took: Duration) {
        self.latency.get_or_create(&of(stage)).observe(took.as_secs_f64());
        self.batch_size.get_or_create(&of(stage)).observe(documents as f64);
    }
}

const fn of(stage: Stage) -> Of {
    Of { stage: stage.as_str() }
}
