//! What the queue reports about stages, tenants and workers.

use std::time::Duration;

use super::Consumer;
use crate::Stage;

/// Whether a stage accepts tasks and hands them out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StageMode {
    /// The stage leases tasks.
    #[default]
    Run,
    /// The stage leases no tasks; leased ones end normally.
    Pause,
    /// The stage finishes the tasks that it has; new ones are held before it.
    Drain,
}

/// The number of tasks of one stage in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Tasks that wait, those that must run alone included.
    pub waiting: u64,
    /// Tasks that are held because the stage drains.
    pub held: u64,
    /// Tasks that are delayed.
    pub delayed: u64,
    /// Tasks that workers have.
    pub leased: u64,
    /// Dead letters.
    pub dead: u64,
    /// Bytes of the tasks that wait.
    pub bytes: u64,
    /// The longest time that a task has waited, among the tasks that are next in their tenants' queues.
    pub oldest: Duration,
    /// Tasks that a newer version of the program wrote; they are left to workers of that version.
    pub newer: u64,
}

/// The size of a backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogSize {
    /// Documents in the queue, leased ones included, dead letters not.
    pub items: u64,
    /// Bytes of their texts.
    pub bytes: u64,
    /// Age of the oldest document.
    pub oldest: Duration,
}

/// How much work is in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The work of one tenant.
    pub tenant: BacklogSize,
    /// The work of all tenants.
    pub all: BacklogSize,
}

/// What a worker reports in its heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// The worker.
    pub consumer: Consumer,
    /// The stages that it serves.
    pub stages: Vec<Stage>,
    /// Maximum number of tasks that it runs at a time.
    pub slots: u32,
    /// Tasks that it runs now.
    pub busy: u32,
    /// Tasks that it has finished since its start.
    pub done: u64,
    /// Tasks that have failed in it since its start.
    pub failed: u64,
    /// When it started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// The version of its program.
    pub version: String,
}
