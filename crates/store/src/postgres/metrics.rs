//! How long PostgreSQL takes, under the names of the replaced service. Without its label `collection`: users make
//! collections, and labels must not follow.

use std::time::Instant;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use crate::StoreError;

/// The families. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct PostgresMetrics {
    pub(super) upsert: Histogram,
    pub(super) query: Histogram,
    pub(super) delete: Histogram,
    pub(super) upserted: Counter,
    pub(super) deleted: Counter,
}

impl PostgresMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
            ])
        };
        let metrics = Self {
            upsert: seconds(),
            query: seconds(),
            delete: seconds(),
            upserted: Counter::default(),
            deleted: Counter::default(),
        };
        for (name, help, family) in [
            ("pgvector_upsert_latency_seconds", "Time to store documents", &metrics.upsert),
            ("pgvector_query_latency_seconds", "Time of a search", &metrics.query),
            ("pgvector_delete_latency_seconds", "Time to delete documents", &metrics.delete),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register("pgvector_rows_upserted", "Vectors stored", metrics.upserted.clone());
        registry.register("pgvector_rows_deleted", "Documents deleted", metrics.deleted.clone());
        metrics
    }
}

/// Times an operation, a failed one too.
pub(super) async fn timed<T>(
    histogram: &Histogram,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let began = Instant::now();
    let done = operation.await;
    histogram.observe(began.elapsed().as_secs_f64());
    done
}
