//! Names and answers as the scripts write them.

use redis::Value;
use uuid::Uuid;

use super::super::record;
use crate::{Consumer, DeadLetter, DeadLetterId, JobId, Lease, Outcome, Reason, TaskId};

/// A task's name: `<job>:<item>`.
pub(super) fn id(task: TaskId) -> String {
    format!("{}:{}", task.job, task.item)
}

pub(super) fn read_id(text: &str) -> Option<TaskId> {
    let (job, item) = text.rsplit_once(':')?;
    Some(TaskId { job: JobId(Uuid::parse_str(job).ok()?), item: item.parse().ok()? })
}

/// An outcome: its word and its two values.
pub(super) fn outcome(outcome: &Outcome) -> (&'static str, String, String) {
    match outcome {
        Outcome::Next { bytes } => ("next", bytes.to_string(), String::new()),
        Outcome::Finished => ("finished", String::new(), String::new()),
        Outcome::RetryAfter { after, charged } => {
            ("later", after.as_millis().min(1 << 52).to_string(), u8::from(*charged).to_string())
        }
        Outcome::Release => ("back", String::new(), String::new()),
        Outcome::Crashed { after } => {
            ("died", super::super::panic_message(), after.as_millis().min(1 << 52).to_string())
        }
        Outcome::DeadLetter(reason) => ("dead", reason.code.to_string(), reason.message.clone()),
    }
}

/// One of a lease's answer.
pub(super) enum Got {
    Lease(Lease),
    /// Cannot be read: token, id, what was found and what is wrong with it.
    Bad(Condemned),
}

pub(super) struct Condemned {
    pub(super) token: String,
    pub(super) id: String,
    pub(super) raw: Vec<u8>,
    pub(super) problem: String,
}

pub(super) fn got(parts: &[Value], consumer: &Consumer) -> Option<Got> {
    let [token, id, record, kind] = parts else { return None };
    let (token, id) = (text(token)?, text(id)?);
    let raw = bytes(record)?;
    let kind = if let Value::Int(kind) = kind { *kind } else { return None };
    let task = match (kind, read_id(&id)) {
        (2, _) => Err("the message is no record of a task".into()),
        (_, None) => Err("the message's name is none of a task".into()),
        (_, Some(task)) => record::read_task(task, &String::from_utf8_lossy(&raw)),
    };
    Some(match task {
        Ok(task) => Got::Lease(Lease { task, consumer: consumer.clone(), token, exclusive: kind == 1 }),
        Err(problem) => Got::Bad(Condemned { token, id, raw, problem }),
    })
}

/// An entry of a stream: its id and its fields.
pub(super) type Entry = (String, Vec<(String, Vec<u8>)>);

/// A dead letter out of its entry; `open` decrypts.
pub(super) fn letter((entry, fields): Entry, open: impl Fn(Vec<u8>) -> Vec<u8>) -> DeadLetter {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
    let words = |name: &str| String::from_utf8_lossy(&field(name).unwrap_or_default()).into_owned();
    let task = read_id(&words("id")).and_then(|id| record::read_task(id, &words("task")).ok());
    DeadLetter {
        at_ms: entry.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0),
        raw: if task.is_some() {
            None
        } else {
            Some(field("raw").map(open).unwrap_or_else(|| field("task").unwrap_or_default()))
        },
        task,
        reason: Reason { code: words("code").into(), message: words("message") },
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
