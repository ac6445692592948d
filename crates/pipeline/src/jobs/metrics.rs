//! What Prometheus sees of jobs: how those ended that this process has ended.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::Status;

/// The family. Clones share their numbers.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics(Family<Of, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    status: &'static str,
}

impl JobMetrics {
    /// Shows them in a registry, each end from the start.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("embedding_jobs", "Jobs that this process has brought to an end", self.0.clone());
        for status in Status::ALL.into_iter().filter(|status| status.has_ended()) {
            drop(self.0.get_or_create(&Of { status: status.as_str() }));
        }
    }

    /// One more, if it has ended.
    pub(super) fn count(&self, ended: Option<Status>) {
        if let Some(status) = ended {
            self.0.get_or_create(&Of { status: status.as_str() }).inc();
        }
    }
}
