//! The stored form of states, plans and results: numbers that never change their meaning, JSON for small values, bytes
//! for large ones.

use std::sync::Arc;

use embeddery_core::SpaceId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ChunkSpan, Chunking, DocumentOutcome, DocumentState, JobError, JobSpec, Status, Vectors};
use crate::{JobId, Priority, Reason, Stage};

/// All states, in the order of their numbers.
pub(super) const STATES: [DocumentState; 8] = [
    DocumentState::At(Stage::Chunking),
    DocumentState::At(Stage::Embedding),
    DocumentState::At(Stage::Storage),
    DocumentState::Stored,
    DocumentState::Failed,
    DocumentState::Skipped,
    DocumentState::Cancelled,
    DocumentState::Superseded,
];

/// Numbers from here on are states of documents that have ended.
pub(super) const FIRST_END: i64 = 3;

pub(super) fn state(number: i64) -> Result<DocumentState, JobError> {
    usize::try_from(number)
        .ok()
        .and_then(|index| STATES.get(index).copied())
        .ok_or_else(|| JobError::Internal(format!("a document's state is {number}, which is unknown")))
}

pub(super) const fn state_number(state: DocumentState) -> i64 {
    match state {
        DocumentState::At(stage) => stage_number(stage),
        DocumentState::Stored => 3,
        DocumentState::Failed => 4,
        DocumentState::Skipped => 5,
        DocumentState::Cancelled => 6,
        DocumentState::Superseded => 7,
    }
}

pub(super) const fn stage_number(stage: Stage) -> i64 {
    match stage {
        Stage::Chunking => 0,
        Stage::Embedding => 1,
        Stage::Storage => 2,
    }
}

pub(super) fn stage(number: i64) -> Result<Stage, JobError> {
    match state(number)? {
        DocumentState::At(stage) => Ok(stage),
        _ => Err(JobError::Internal(format!("a stage is {number}, which is unknown"))),
    }
}

/// A document's outcome, as the columns of its row.
pub(super) struct EndColumns<'a> {
    pub(super) state: DocumentState,
    pub(super) chunks: Option<u64>,
    pub(super) reason: Option<&'a Reason>,
    /// The stage at which it failed, and when the task that failed entered the queue.
    pub(super) failed: Option<(Stage, u64)>,
}

impl<'a> EndColumns<'a> {
    pub(super) fn from_outcome(outcome: &'a DocumentOutcome) -> Self {
        let (state, chunks, reason, failed) = match outcome {
            DocumentOutcome::Stored { chunks } => (DocumentState::Stored, Some(*chunks), None, None),
            DocumentOutcome::Superseded(reason) => (DocumentState::Superseded, None, Some(reason), None),
            DocumentOutcome::Failed { stage, reason, enqueued_at_ms } => {
                (DocumentState::Failed, None, Some(reason), Some((*stage, *enqueued_at_ms)))
            }
        };
        Self { state, chunks, reason, failed }
    }
}

/// Numbers from here on are statuses of jobs that have ended.
pub(super) const FIRST_ENDED: i64 = 2;

pub(super) fn status(number: i64) -> Result<Status, JobError> {
    usize::try_from(number)
        .ok()
        .and_then(|index| Status::ALL.get(index).copied())
        .ok_or_else(|| JobError::Internal(format!("a job's status is {number}, which is unknown")))
}

pub(super) const fn status_number(status: Status) -> i64 {
    match status {
        Status::Pending => 0,
        Status::Running => 1,
        Status::Completed => 2,
        Status::Partial => 3,
        Status::Failed => 4,
        Status::Cancelled => 5,
    }
}

pub(super) const fn priority_number(priority: Priority) -> i64 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

pub(super) const fn priority(number: i64) -> Priority {
    match number {
        i64::MIN..=0 => Priority::Low,
        1 => Priority::Normal,
        2..=i64::MAX => Priority::High,
    }
}

/// Serializes a plan as JSON.
pub(super) fn plan(plan: &JobSpec) -> String {
    let JobSpec { collection, provider, model, dimensions, chunking } = plan;
    let Chunking { method, size, overlap, unit } = chunking;
    json!({
        "collection": collection, "provider": provider, "model": model, "dimensions": dimensions,
        "chunking": {"method": method, "size": size, "overlap": overlap, "unit": unit},
    })
    .to_string()
}

/// Parses a plan.
pub(super) fn read_plan(json: &str) -> Result<JobSpec, JobError> {
    let value: Value = serde_json::from_str(json).map_err(unreadable)?;
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| unreadable(format!("{value} in a job's plan is not a string")))
    };
    let optional_number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    let number = |value: &Value| {
        optional_number(value)
            .ok_or_else(|| unreadable(format!("{value} in a job's plan is not a whole number")))
    };
    let chunking = &value["chunking"];
    Ok(JobSpec {
        collection: text(&value["collection"])?,
        provider: text(&value["provider"])?,
        model: text(&value["model"])?,
        dimensions: optional_number(&value["dimensions"]),
        chunking: Chunking {
            method: text(&chunking["method"])?,
            size: number(&chunking["size"])?,
            overlap: number(&chunking["overlap"])?,
            unit: text(&chunking["unit"])?,
        },
    })
}

/// Serializes the positions of chunks as JSON.
pub(super) fn spans(chunks: &[ChunkSpan]) -> String {
    let rows = chunks.iter().map(|chunk| {
        json!([
            chunk.bytes.start,
            chunk.bytes.end,
            chunk.characters.start,
            chunk.characters.end,
            chunk.headings
        ])
    });
    Value::Array(rows.collect()).to_string()
}

/// Parses the positions of chunks.
pub(super) fn read_spans(text: &str) -> Result<Vec<ChunkSpan>, JobError> {
    let rows: Vec<(u64, u64, u64, u64, Vec<String>)> = serde_json::from_str(text).map_err(unreadable)?;
    let span = |(start, end, first, last, headings)| ChunkSpan {
        bytes: start..end,
        characters: first..last,
        headings,
    };
    Ok(rows.into_iter().map(span).collect())
}

/// Serializes what describes the numbers of vectors, as JSON. Earlier versions read failed chunks from the empty list.
pub(super) fn vectors_head(vectors: &Vectors) -> String {
    json!([vectors.space.as_str(), vectors.dim, vectors.rows, []]).to_string()
}

/// Serializes the numbers of vectors as little-endian bytes.
pub(super) fn vectors_data(vectors: &Vectors) -> Vec<u8> {
    vectors.data.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Parses vectors.
pub(super) fn read_vectors(head: &str, data: &[u8]) -> Result<Vectors, JobError> {
    type Head = (String, usize, Vec<Option<u32>>, Value);
    let (space, dim, rows, _): Head = serde_json::from_str(head).map_err(unreadable)?;
    let (numbers, rest) = data.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(unreadable("the vectors are truncated"));
    }
    Ok(Vectors {
        space: SpaceId::new(space),
        dim,
        rows,
        data: numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    })
}

/// The id of a tenant's new job. It is higher than `last`, the id of the tenant's last job, also after the clock was
/// set back.
pub(super) fn job_id(last: Option<Uuid>) -> JobId {
    let now = Uuid::now_v7();
    JobId(match last {
        Some(last) if last >= now => Uuid::from_u128(last.as_u128() + 1 + u128::from(fastrand::u32(..))),
        _ => now,
    })
}

pub(super) fn reason(code: Option<String>, message: Option<String>) -> Option<Reason> {
    Some(Reason { code: Arc::from(code?), message: message.unwrap_or_default() })
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> JobError {
    JobError::Internal(format!("a stored value cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for (number, expected) in (0..).zip(STATES) {
            assert_eq!((state_number(expected), state(number).unwrap()), (number, expected));
        }
        for (number, expected) in (0..).zip(Status::ALL) {
            assert_eq!((status_number(expected), status(number).unwrap()), (number, expected));
        }
        assert!(state(8).is_err() && status(-1).is_err() && stage(3).is_err());
    }

    #[test]
    fn a_newer_job_has_a_higher_id_although_the_clock_was_set_back() {
        let tomorrow = Uuid::from_u128(Uuid::now_v7().as_u128() + (86_400_000_u128 << 80));
        let after = job_id(Some(tomorrow)).0;
        assert!(after > tomorrow && after.get_version_num() == 7, "{after}");
        assert!(job_id(Some(after)).0 > after && job_id(None).0 < tomorrow);
    }

    #[test]
    fn results_round_trip() {
        let chunks = vec![
            ChunkSpan { bytes: 0..5, characters: 0..4, headings: vec!["A \"b\"".into(), String::new()] },
            ChunkSpan { bytes: 5..9, characters: 4..8, headings: Vec::new() },
        ];
        assert_eq!(read_spans(&spans(&chunks)).unwrap(), chunks);
        let vectors = Vectors {
            space: SpaceId::new("m@1"),
            dim: 2,
            rows: vec![Some(0), None],
            data: vec![0.1, -f32::MIN_POSITIVE],
        };
        assert_eq!(read_vectors(&vectors_head(&vectors), &vectors_data(&vectors)).unwrap(), vectors);
        assert!(read_vectors(&vectors_head(&vectors), &[1, 2, 3]).is_err());
    }
}
