//! How states, plans and results stand in a database: numbers that never change their meaning, JSON for what is
//! small, bytes for what is large.

use std::sync::Arc;

use embeddery_core::SpaceId;
use serde_json::{Value, json};

use super::{ChunkSpan, Chunking, DocumentState, JobError, Plan, Status, Vectors};
use crate::{Priority, Reason, Stage};

/// All states in the order of their numbers.
pub(super) const STATES: [DocumentState; 7] = [
    DocumentState::At(Stage::Chunking),
    DocumentState::At(Stage::Embedding),
    DocumentState::At(Stage::Storage),
    DocumentState::Stored,
    DocumentState::Failed,
    DocumentState::Skipped,
    DocumentState::Cancelled,
];

/// The first state that is an end.
pub(super) const FIRST_END: i64 = 3;

pub(super) fn state(number: i64) -> Result<DocumentState, JobError> {
    usize::try_from(number)
        .ok()
        .and_then(|place| STATES.get(place).copied())
        .ok_or_else(|| JobError::Internal(format!("a document's state is {number}, which means nothing")))
}

pub(super) const fn state_number(state: DocumentState) -> i64 {
    match state {
        DocumentState::At(stage) => stage_number(stage),
        DocumentState::Stored => 3,
        DocumentState::Failed => 4,
        DocumentState::Skipped => 5,
        DocumentState::Cancelled => 6,
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
        _ => Err(JobError::Internal(format!("a stage is {number}, which means nothing"))),
    }
}

const STATUSES: [Status; 6] =
    [Status::Pending, Status::Running, Status::Completed, Status::Partial, Status::Failed, Status::Cancelled];

/// The first status that is an end.
pub(super) const FIRST_ENDED: i64 = 2;

pub(super) fn status(number: i64) -> Result<Status, JobError> {
    usize::try_from(number)
        .ok()
        .and_then(|place| STATUSES.get(place).copied())
        .ok_or_else(|| JobError::Internal(format!("a job's status is {number}, which means nothing")))
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

/// A plan as JSON.
pub(super) fn plan(plan: &Plan) -> String {
    let Plan { collection, provider, model, dimensions, chunking } = plan;
    let Chunking { method, size, overlap, unit } = chunking;
    json!({
        "collection": collection, "provider": provider, "model": model, "dimensions": dimensions,
        "chunking": {"method": method, "size": size, "overlap": overlap, "unit": unit},
    })
    .to_string()
}

pub(super) fn read_plan(text: &str) -> Result<Plan, JobError> {
    let value: Value = serde_json::from_str(text).map_err(unreadable)?;
    let word = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| unreadable(format!("{value} in a job's plan is no text")))
    };
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    let due = |value: &Value| {
        number(value).ok_or_else(|| unreadable(format!("{value} in a job's plan is no number")))
    };
    let chunking = &value["chunking"];
    Ok(Plan {
        collection: word(&value["collection"])?,
        provider: word(&value["provider"])?,
        model: word(&value["model"])?,
        dimensions: number(&value["dimensions"]),
        chunking: Chunking {
            method: word(&chunking["method"])?,
            size: due(&chunking["size"])?,
            overlap: due(&chunking["overlap"])?,
            unit: word(&chunking["unit"])?,
        },
    })
}

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

pub(super) fn read_spans(text: &str) -> Result<Vec<ChunkSpan>, JobError> {
    let rows: Vec<(u64, u64, u64, u64, Vec<String>)> = serde_json::from_str(text).map_err(unreadable)?;
    let span =
        |(from, to, first, last, headings)| ChunkSpan { bytes: from..to, characters: first..last, headings };
    Ok(rows.into_iter().map(span).collect())
}

/// What stands beside the numbers of vectors.
pub(super) fn vectors_head(vectors: &Vectors) -> String {
    let failed: Vec<Value> =
        vectors.failed.iter().map(|(chunk, why)| json!([chunk, *why.code, why.message])).collect();
    json!([vectors.space.as_str(), vectors.dim, vectors.rows, failed]).to_string()
}

/// The numbers, as little-endian bytes.
pub(super) fn vectors_data(vectors: &Vectors) -> Vec<u8> {
    vectors.data.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(super) fn read_vectors(head: &str, data: &[u8]) -> Result<Vectors, JobError> {
    type Head = (String, usize, Vec<Option<u32>>, Vec<(u32, String, String)>);
    let (space, dim, rows, failed): Head = serde_json::from_str(head).map_err(unreadable)?;
    let reason =
        |(chunk, code, message): (u32, String, String)| (chunk, Reason { code: code.into(), message });
    let (numbers, rest) = data.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(unreadable("the vectors are cut off"));
    }
    Ok(Vectors {
        space: SpaceId::new(space),
        dim,
        rows,
        data: numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        failed: failed.into_iter().map(reason).collect(),
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
    fn numbers_are_what_they_stand_for() {
        for (number, found) in (0..).zip(STATES) {
            assert_eq!((state_number(found), state(number).unwrap()), (number, found));
        }
        for (number, found) in (0..).zip(STATUSES) {
            assert_eq!((status_number(found), status(number).unwrap()), (number, found));
        }
        assert!(state(7).is_err() && status(-1).is_err() && stage(3).is_err());
    }

    #[test]
    fn results_come_back_as_they_were() {
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
            failed: vec![(1, Reason { code: "too_long".into(), message: "chunk 1 …".into() })],
        };
        assert_eq!(read_vectors(&vectors_head(&vectors), &vectors_data(&vectors)).unwrap(), vectors);
        assert!(read_vectors(&vectors_head(&vectors), &[1, 2, 3]).is_err());
    }
}
