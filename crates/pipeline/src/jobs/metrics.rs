//! Prometheus metrics of jobs.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::Status;

/// The jobs that this process has ended, by status. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    status: &'static str,
}

impl JobMetrics {
    /// Registers the metric. Every status is present from the start.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("embedding_jobs", "Jobs that this process has ended, by status", self.0.clone());
        for status in Status::ALL.into_iter().filter(|status| status.has_ended()) {
            drop(self.0.get_or_create(&Labels { status: status.as_str() }));
        }
    }

    /// Counts a job that has ended; `None` is not counted.
    pub(super) fn count(&self, ended: Option<Status>) {
        if let Some(status) = ended {
            self.0.get_or_create(&Labels { status: status.as_str() }).inc();
        }
    }
}
