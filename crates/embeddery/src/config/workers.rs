//! How documents are worked on, in `serve` alone and in `embeddery worker`.

use std::{collections::BTreeMap, time::Duration};

use embeddery_pipeline::{ReconcileConfig, Stage};
use serde::Deserialize;

use super::units::{Positive, Seconds};

/// The section `workers`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkersSection {
    concurrency: Positive,
    slots: SlotsSection,
    deadline_seconds: Seconds,
    backoff_seconds: Seconds,
    reconcile_seconds: Seconds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotsSection {
    chunking: Positive,
    embedding: Positive,
    storage: Positive,
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

impl From<WorkersSection> for WorkersConfig {
    fn from(section: WorkersSection) -> Self {
        let slots = [
            (Stage::Chunking, section.slots.chunking.get()),
            (Stage::Embedding, section.slots.embedding.get()),
            (Stage::Storage, section.slots.storage.get()),
        ];
        let every = section.reconcile_seconds.0;
        Self {
            concurrency: section.concurrency.get(),
            slots: slots.into(),
            deadline: section.deadline_seconds.0,
            backoff: section.backoff_seconds.0,
            reconcile: ReconcileConfig { interval: every, untouched: every },
        }
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
