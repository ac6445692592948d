//! How documents are worked on, in `serve` alone and in `embeddery worker`.

use std::{collections::BTreeMap, time::Duration};

use embeddery_pipeline::{ReconcileConfig, Stage};
use serde::Deserialize;

use super::resolve::Found;

/// The section `workers` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Workers {
    pub concurrency: Option<usize>,
    pub slots: Slots,
    pub deadline_seconds: Option<f64>,
    pub backoff_seconds: Option<f64>,
    pub reconcile_seconds: Option<f64>,
}

/// Documents that are taken together, by stage.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Slots {
    pub chunking: Option<usize>,
    pub embedding: Option<usize>,
    pub storage: Option<usize>,
}

/// How documents are worked on.
#[derive(Clone, Debug)]
pub(crate) struct WorkersConfig {
    /// Loops for each stage.
    pub(crate) concurrency: usize,
    /// Documents that a loop takes together.
    pub(crate) slots: BTreeMap<Stage, usize>,
    /// After so long documents are given up.
    pub(crate) deadline: Duration,
    /// The first pause before another attempt, at most.
    pub(crate) backoff: Duration,
    /// How often queue and job store are compared.
    pub(crate) reconcile: ReconcileConfig,
}

/// Checks the section.
pub(super) fn resolve(found: &mut Found<'_>, written: &Workers, fallback: &Workers) -> WorkersConfig {
    let mut size =
        |key, written: Option<usize>, fallback: Option<usize>| found.size(key, written.or(fallback));
    let concurrency = size("workers.concurrency", written.concurrency, fallback.concurrency);
    let (of, or) = (&written.slots, &fallback.slots);
    let slots = BTreeMap::from([
        (Stage::Chunking, size("workers.slots.chunking", of.chunking, or.chunking)),
        (Stage::Embedding, size("workers.slots.embedding", of.embedding, or.embedding)),
        (Stage::Storage, size("workers.slots.storage", of.storage, or.storage)),
    ]);
    let mut seconds =
        |key, written: Option<f64>, fallback: Option<f64>| found.seconds(key, None, written.or(fallback));
    let every = seconds("workers.reconcile_seconds", written.reconcile_seconds, fallback.reconcile_seconds);
    WorkersConfig {
        concurrency,
        slots,
        deadline: seconds("workers.deadline_seconds", written.deadline_seconds, fallback.deadline_seconds),
        backoff: seconds("workers.backoff_seconds", written.backoff_seconds, fallback.backoff_seconds),
        reconcile: ReconcileConfig { interval: every, untouched: every },
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    #[test]
    fn the_usual_and_what_is_written() {
        let workers = resolved("", &[]).unwrap().workers;
        assert_eq!((workers.concurrency, workers.slots[&Stage::Embedding]), (2, 32));
        let workers = resolved("workers: {concurrency: 5, slots: {storage: 7}}", &[]).unwrap().workers;
        assert_eq!((workers.concurrency, workers.slots[&Stage::Storage]), (5, 7));
        let problems = resolved("workers: {concurrency: 0}", &[]).err().unwrap().0;
        assert!(problems[0].contains("workers.concurrency"), "{problems:?}");
    }
}
