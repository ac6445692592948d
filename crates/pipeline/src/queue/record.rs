//! The stored form of a task and of a worker's status. Two versions of the program must be able to read it. Code that
//! only moves a message keeps the fields that this version does not know.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Consumer, WorkerStatus};
use crate::{MESSAGE_VERSION, Priority, Stage, Task, TaskId};

/// A task, without its id. The names are short because a million records may be in Redis's memory.
#[derive(Serialize, Deserialize)]
pub(super) struct Record<'a> {
    v: u32,
    #[serde(rename = "t", borrow)]
    tenant: Cow<'a, str>,
    #[serde(rename = "s", borrow)]
    stage: Cow<'a, str>,
    #[serde(rename = "p")]
    rank: u8,
    #[serde(rename = "b")]
    bytes: u64,
    #[serde(rename = "a", default)]
    attempts: u32,
    #[serde(rename = "d", default)]
    deaths: u32,
    #[serde(rename = "e")]
    enqueued_at_ms: u64,
    #[serde(rename = "tp", default, borrow, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
}

/// Serializes a task.
pub(super) fn write_task(task: &Task) -> String {
    let record = Record {
        v: MESSAGE_VERSION,
        tenant: Cow::Borrowed(&task.tenant),
        stage: Cow::Borrowed(task.stage.as_str()),
        rank: rank(task.priority),
        bytes: task.bytes,
        attempts: task.attempts,
        deaths: task.deaths,
        enqueued_at_ms: task.enqueued_at_ms,
        traceparent: task.traceparent.as_deref().map(Cow::Borrowed),
    };
    serde_json::to_string(&record).unwrap_or_default()
}

/// Parses a task.
///
/// # Errors
/// With what is wrong with the message.
pub(super) fn read_task(id: TaskId, message: &str) -> Result<Task, String> {
    let record: Record<'_> = serde_json::from_str(message).map_err(|error| error.to_string())?;
    let stage = stage(&record.stage).ok_or_else(|| format!("unknown stage '{}'", record.stage))?;
    Ok(Task {
        id,
        tenant: Arc::from(&*record.tenant),
        stage,
        priority: priority(record.rank).ok_or_else(|| format!("unknown priority {}", record.rank))?,
        bytes: record.bytes,
        attempts: record.attempts,
        deaths: record.deaths,
        enqueued_at_ms: record.enqueued_at_ms,
        traceparent: record.traceparent.map(|trace| Arc::from(&*trace)),
    })
}

/// The priority as a number; 0 goes first.
pub(super) const fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// The priority of a number.
pub(super) const fn priority(rank: u8) -> Option<Priority> {
    match rank {
        0 => Some(Priority::High),
        1 => Some(Priority::Normal),
        2 => Some(Priority::Low),
        _ => None,
    }
}

/// The stage of a name.
pub(super) fn stage(name: &str) -> Option<Stage> {
    Stage::ALL.into_iter().find(|stage| stage.as_str() == name)
}

/// A worker's status.
#[derive(Serialize, Deserialize)]
struct Report {
    consumer: String,
    stages: Vec<String>,
    slots: u32,
    busy: u32,
    done: u64,
    failed: u64,
    started_at_ms: u64,
    version: String,
}

/// Serializes a worker's status.
pub(super) fn write_report(status: &WorkerStatus) -> String {
    let report = Report {
        consumer: status.consumer.0.clone(),
        stages: status.stages.iter().map(|stage| stage.as_str().to_owned()).collect(),
        slots: status.slots,
        busy: status.busy,
        done: status.done,
        failed: status.failed,
        started_at_ms: status.started_at_ms,
        version: status.version.clone(),
    };
    serde_json::to_string(&report).unwrap_or_default()
}

/// Parses a worker's status; `None` when another version wrote it in a form that this one cannot read.
pub(super) fn read_report(message: &str) -> Option<WorkerStatus> {
    let report: Report = serde_json::from_str(message).ok()?;
    Some(WorkerStatus {
        consumer: Consumer(report.consumer),
        stages: report.stages.iter().filter_map(|name| stage(name)).collect(),
        slots: report.slots,
        busy: report.busy,
        done: report.done,
        failed: report.failed,
        started_at_ms: report.started_at_ms,
        version: report.version,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::JobId;

    proptest! {
        #[test]
        fn a_task_round_trips(
            (tenant, trace) in (".{0,30}", proptest::option::of("[ -~]{0,60}")),
            (stage, rank) in (0..3_usize, 0..3_u8),
            (bytes, attempts, deaths, at) in (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>()),
        ) {
            let id = TaskId { job: JobId(Uuid::nil()), item: 7 };
            let task = Task {
                id, tenant: tenant.into(), stage: Stage::ALL[stage], priority: priority(rank).unwrap(), bytes,
                attempts, deaths, enqueued_at_ms: at, traceparent: trace.map(Into::into),
            };
            prop_assert_eq!(read_task(id, &write_task(&task)), Ok(task));
        }

        #[test]
        fn parsing_arbitrary_text_never_panics(text in ".*") {
            let _ = read_task(TaskId { job: JobId(Uuid::nil()), item: 0 }, &text);
            let _ = read_report(&text);
        }
    }
}
