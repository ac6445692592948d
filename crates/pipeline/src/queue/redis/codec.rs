//! The arguments and results of the scripts.

use embeddery_core::to_ms;
use redis::Value;
use uuid::Uuid;

use super::super::record;
use crate::{Consumer, DeadLetter, DeadLetterId, JobId, Lease, Outcome, Reason, TaskId};

/// A task's id in Redis: `<job>:<item>`.
pub(super) fn write_id(task: TaskId) -> String {
    format!("{}:{}", task.job, task.item)
}

pub(super) fn read_id(text: &str) -> Option<TaskId> {
    let (job, item) = text.rsplit_once(':')?;
    Some(TaskId { job: JobId(Uuid::parse_str(job).ok()?), item: item.parse().ok()? })
}

/// An outcome: its name and its two values.
pub(super) fn write_outcome(outcome: &Outcome) -> (&'static str, String, String) {
    match outcome {
        Outcome::Next { bytes } => ("next", bytes.to_string(), String::new()),
        Outcome::Finished => ("finished", String::new(), String::new()),
        Outcome::RetryAfter { after, charged } => {
            ("later", to_ms(*after).to_string(), u8::from(*charged).to_string())
        }
        Outcome::Release => ("back", String::new(), String::new()),
        Outcome::Crashed { after } => ("died", super::super::panic_message(), to_ms(*after).to_string()),
        Outcome::DeadLetter(reason) => ("dead", reason.code.to_string(), reason.message.clone()),
    }
}

/// A task that was leased.
pub(super) enum LeasedTask {
    Readable(Lease),
    Unreadable(UnreadableTask),
}

/// A task whose record cannot be read.
pub(super) struct UnreadableTask {
    pub(super) token: String,
    pub(super) id: String,
    /// What was found.
    pub(super) raw: Vec<u8>,
    /// What is wrong with it.
    pub(super) problem: String,
}

/// Reads one task of the result of a lease: token, id, record and kind.
pub(super) fn read_leased(parts: &[Value], consumer: &Consumer) -> Option<LeasedTask> {
    let [token, id, record, kind] = parts else { return None };
    let (token, id) = (text(token)?, text(id)?);
    let raw = bytes(record)?;
    let Value::Int(kind) = *kind else { return None };
    let task = match (kind, read_id(&id)) {
        (2, _) => Err("the message is no record of a task".into()),
        (_, None) => Err("the message's name is none of a task".into()),
        (_, Some(task)) => record::read_task(task, &String::from_utf8_lossy(&raw)),
    };
    Some(match task {
        Ok(task) => {
            LeasedTask::Readable(Lease { task, consumer: consumer.clone(), token, exclusive: kind == 1 })
        }
        Err(problem) => LeasedTask::Unreadable(UnreadableTask { token, id, raw, problem }),
    })
}

/// An entry of a stream: id and fields.
pub(super) type Entry = (String, Vec<(String, Vec<u8>)>);

/// Reads a dead letter.
pub(super) fn read_dead_letter((entry, fields): Entry, decrypt: impl Fn(Vec<u8>) -> Vec<u8>) -> DeadLetter {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
    let text_of = |name: &str| String::from_utf8_lossy(&field(name).unwrap_or_default()).into_owned();
    let task = read_id(&text_of("id")).and_then(|id| record::read_task(id, &text_of("task")).ok());
    DeadLetter {
        at_ms: entry.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0),
        raw: if task.is_some() {
            None
        } else {
            Some(field("raw").map(decrypt).unwrap_or_else(|| field("task").unwrap_or_default()))
        },
        task,
        reason: Reason { code: text_of("code").into(), message: text_of("message") },
        id: DeadLetterId(entry),
    }
}

fn text(value: &Value) -> Option<String> {
    bytes(value).and_then(|bytes| String::from_utf8(bytes).ok())
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        Value::SimpleString(text) => Some(text.clone().into_bytes()),
        _ => None,
    }
}
