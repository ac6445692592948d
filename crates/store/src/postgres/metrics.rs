//! Metrics of the distributed store, under the names of the replaced service. Its label `collection` is left out,
//! because the number of collections, which users create, is unbounded.

use std::time::Instant;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use crate::StoreError;

/// The metrics. Clones share their values.
#[derive(Clone, Debug)]
pub struct PostgresMetrics {
    pub(super) upsert: Histogram,
    pub(super) query: Histogram,
    pub(super) delete: Histogram,
    pub(super) upserted: Counter,
    pub(super) deleted: Counter,
}

impl PostgresMetrics {
    /// Creates the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let latency = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
            ])
        };
        let metrics = Self {
            upsert: latency(),
            query: latency(),
            delete: latency(),
            upserted: Counter::default(),
            deleted: Counter::default(),
        };
        for (name, help, histogram) in [
            (
                "pgvector_upsert_latency_seconds",
                "Duration of a request to store documents, in seconds",
                &metrics.upsert,
            ),
            ("pgvector_query_latency_seconds", "Duration of a search, in seconds", &metrics.query),
            (
                "pgvector_delete_latency_seconds",
                "Duration of a request to delete documents, in seconds",
                &metrics.delete,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        registry.register("pgvector_rows_upserted", "Vectors stored", metrics.upserted.clone());
        registry.register("pgvector_rows_deleted", "Documents deleted", metrics.deleted.clone());
        metrics
    }
}

/// Observes the duration of an operation, including a failed one.
pub(super) async fn timed<T>(
    histogram: &Histogram,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let start = Instant::now();
    let result = operation.await;
    histogram.observe(start.elapsed().as_secs_f64());
    result
}
