//! The state of the whole pipeline in responses.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::stages::StageFlags;

/// What the running workers have done in a stage.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct StageCounts {
    pub(crate) processed: u64,
    pub(crate) failed: u64,
}

/// How much waits and how much is dead.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeadLetterStatsResponse {
    pub(crate) queues: BTreeMap<String, u64>,
    pub(crate) dlq: BTreeMap<String, u64>,
    pub(crate) total_dlq: u64,
    /// Of the running workers, since each started; one that serves several stages is counted at each.
    pub(crate) stages: BTreeMap<&'static str, StageCounts>,
}

/// The state of the pipeline at one moment.
#[derive(Serialize, ToSchema)]
pub(crate) struct SummaryResponse {
    /// What cannot be reached, `queue` or `jobs`, and why; empty when all is well. When the queue cannot be reached its
    /// maps are empty.
    pub(crate) unreachable: BTreeMap<&'static str, String>,
    /// Documents that wait.
    pub(crate) queues: BTreeMap<String, u64>,
    /// Those of them that a newer version enqueued: only its workers lease them.
    pub(crate) newer: BTreeMap<String, u64>,
    pub(crate) dlq: BTreeMap<String, u64>,
    /// Seconds that the longest waiting document has waited.
    pub(crate) ages: BTreeMap<String, f64>,
    pub(crate) stages: BTreeMap<&'static str, StageCounts>,
    pub(crate) flags: BTreeMap<&'static str, StageFlags>,
    /// Always empty. The replaced service had a queue for each priority.
    #[schema(value_type = Object)]
    pub(crate) priority: BTreeMap<&'static str, u64>,
    /// Running workers, by stage.
    pub(crate) workers: BTreeMap<&'static str, usize>,
    /// Seconds since 1970.
    pub(crate) ts: f64,
}
