//! Jobs in responses.

use std::collections::BTreeMap;

use embeddery_pipeline::{DocumentRow, DocumentState, Job, Priority, Reason, Stage, StageMode, Status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// The names of a job's statuses.
pub(crate) fn statuses() -> [(Status, &'static str); 6] {
    Status::ALL.map(|status| (status, status.as_str()))
}

/// The names of a document's states.
pub(crate) const DOCUMENT_STATES: [(DocumentState, &str); 8] = [
    (DocumentState::At(Stage::Chunking), "chunking"),
    (DocumentState::At(Stage::Embedding), "embedding"),
    (DocumentState::At(Stage::Storage), "storage"),
    (DocumentState::Stored, "stored"),
    (DocumentState::Failed, "failed"),
    (DocumentState::Skipped, "skipped"),
    (DocumentState::Cancelled, "cancelled"),
    (DocumentState::Superseded, "superseded"),
];

/// A job.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
pub(crate) struct JobView {
    job_id: String,
    /// `pending`, `running`, `completed` (all is stored), `partial` (some is), `failed` (none is) or `cancelled`.
    status: &'static str,
    collection: String,
    provider: String,
    model: String,
    /// The requested length of vectors. Null for the model's default.
    dimensions: Option<usize>,
    chunking: ChunkingView,
    /// `high` (goes first), `normal` or `low`.
    priority: &'static str,
    documents: DocumentCounts,
    chunks: ChunkCounts,
    /// From 0 to 1: how many documents have ended.
    progress: f64,
    /// Seconds until the end at the pace of the last minute; `null` when that is not known, or the job has ended.
    eta_seconds: Option<u64>,
    /// RFC 3339.
    submitted_at: String,
    /// When the first result was stored.
    started_at: Option<String>,
    ended_at: Option<String>,
}

/// How texts are split.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct ChunkingView {
    method: String,
    size: usize,
    overlap: usize,
    unit: String,
}

/// Documents by state.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct DocumentCounts {
    total: u64,
    /// Wait to be split, or are being split.
    chunking: u64,
    /// Wait for their vectors.
    embedding: u64,
    /// Wait to be written.
    storage: u64,
    /// Found by searches.
    stored: u64,
    /// `errors` says why.
    failed: u64,
    /// Skipped by an operator.
    skipped: u64,
    cancelled: u64,
    /// A later submission of the same document was stored before, and stays; or the job has an equal document, and both
    /// have no id.
    superseded: u64,
}

/// Chunks of documents.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct ChunkCounts {
    /// Number of chunks of the documents that are split.
    known: u64,
    stored: u64,
}

impl JobView {
    /// Whether at most the estimated time has changed.
    pub(crate) fn equals_except_eta(&self, other: &Self) -> bool {
        let Self { eta_seconds: _, documents, chunks, status, priority, ended_at, .. } = self;
        (documents, chunks, status, priority, ended_at)
            == (&other.documents, &other.chunks, &other.status, &other.priority, &other.ended_at)
    }
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        let of = |state| job.documents.get(&state).copied().unwrap_or(0);
        let at = |stage| of(DocumentState::At(stage));
        let total = job.documents.values().sum();
        let left = at(Stage::Chunking) + at(Stage::Embedding) + at(Stage::Storage);
        let chunking = job.plan.chunking.clone();
        Self {
            job_id: job.id.to_string(),
            status: job.status.as_str(),
            collection: job.plan.collection.clone(),
            provider: job.plan.provider.clone(),
            model: job.plan.model.clone(),
            dimensions: job.plan.dimensions,
            chunking: ChunkingView {
                method: chunking.method,
                size: chunking.size,
                overlap: chunking.overlap,
                unit: chunking.unit,
            },
            priority: priority_name(job.priority),
            documents: DocumentCounts {
                total,
                chunking: at(Stage::Chunking),
                embedding: at(Stage::Embedding),
                storage: at(Stage::Storage),
                stored: of(DocumentState::Stored),
                failed: of(DocumentState::Failed),
                skipped: of(DocumentState::Skipped),
                cancelled: of(DocumentState::Cancelled),
                superseded: of(DocumentState::Superseded),
            },
            chunks: ChunkCounts { known: job.chunks, stored: job.stored_chunks },
            progress: if total == 0 {
                1.0
            } else {
                ((total - left) as f64 / total as f64 * 1e4).round() / 1e4
            },
            eta_seconds: eta(job, left),
            submitted_at: time(job.submitted_at_ms),
            started_at: job.started_at_ms.map(time),
            ended_at: job.ended_at_ms.map(time),
        }
    }
}

/// Seconds at the rate of the last minute, or of the time since the start if that is shorter.
fn eta(job: &Job, left: u64) -> Option<u64> {
    if job.ended_at_ms.is_some() || job.ended_last_minute == 0 {
        return None;
    }
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).ok()?;
    let seconds = now.saturating_sub(job.started_at_ms?).clamp(1000, 60_000) as f64 / 1e3;
    Some((left as f64 * seconds / job.ended_last_minute as f64).ceil() as u64)
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or_default().to_string()
}

/// The names of priorities, the most urgent first.
pub(crate) const PRIORITIES: [(&str, Priority); 3] =
    [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];

pub(crate) fn priority_name(priority: Priority) -> &'static str {
    PRIORITIES.iter().find(|(_, known)| *known == priority).map_or("", |(word, _)| word)
}

/// The priority with this name.
pub(crate) fn find_priority(name: &str) -> Option<Priority> {
    PRIORITIES.iter().find(|(known, _)| *known == name).map(|(_, priority)| *priority)
}

pub(crate) fn unknown_priority(name: &str) -> String {
    format!("priority is '{name}'; it must be high, normal or low")
}

/// The priority in this field.
pub(crate) fn parse_priority(name: &str) -> Result<Priority, ApiError> {
    find_priority(name).ok_or_else(|| ApiError::invalid("priority", unknown_priority(name)))
}

/// A job with what went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobResponse {
    #[serde(flatten)]
    job: JobView,
    /// The first hundred documents that failed; `…/documents?status=failed` lists all.
    errors: Vec<JobDocumentView>,
    /// Why the job makes no progress, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'static str>,
}

impl JobResponse {
    pub(crate) fn new(job: &Job, errors: Vec<DocumentRow>, notice: Option<&'static str>) -> Self {
        Self { job: job.into(), errors: views(errors, &BTreeMap::new()), notice }
    }
}

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobListResponse {
    jobs: Vec<JobView>,
    /// Send it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl JobListResponse {
    pub(crate) fn new(jobs: &[Job], limit: usize) -> Self {
        let next = if jobs.len() == limit { jobs.last().map(|last| last.id.to_string()) } else { None };
        Self { jobs: jobs.iter().map(JobView::from).collect(), next }
    }
}

/// A document of a job.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
pub(crate) struct JobDocumentView {
    /// Its index in the job, from 0.
    index: u32,
    /// Its id in the collection.
    id: String,
    /// `chunking`, `embedding`, `storage`, `stored`, `failed`, `skipped`, `cancelled` or `superseded`.
    status: &'static str,
    /// How many chunks it has, once it is split.
    chunks: Option<u64>,
    /// Failures so far.
    attempts: u32,
    /// The last failure, after which the document has ended or is retried; or the job or the equal document that
    /// superseded it.
    error: Option<FailureView>,
    /// Why it waits, apart from the documents before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<WaitingView>,
}

/// Why a document failed.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct FailureView {
    /// For programs.
    code: String,
    message: String,
}

/// What a document waits for.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct WaitingView {
    #[serde(flatten)]
    reason: FailureView,
    /// RFC 3339; `null` when an operator must act first.
    next_try_at: Option<String>,
}

impl From<Reason> for FailureView {
    fn from(Reason { code, message }: Reason) -> Self {
        Self { code: code.to_string(), message }
    }
}

/// Documents as a response shows them, with the modes of the stages.
fn views(rows: Vec<DocumentRow>, flows: &BTreeMap<Stage, StageMode>) -> Vec<JobDocumentView> {
    let view = |row: DocumentRow| JobDocumentView {
        status: DOCUMENT_STATES.iter().find(|(known, _)| *known == row.state).map_or("", |(_, word)| word),
        waiting: waiting(&row, flows),
        index: row.item,
        id: row.id,
        chunks: row.chunks,
        attempts: row.attempts,
        error: row.reason.filter(|_| row.attempts > 0 || !is_unfinished(row.state)).map(FailureView::from),
    };
    rows.into_iter().map(view).collect()
}

pub(crate) const fn is_unfinished(state: DocumentState) -> bool {
    matches!(state, DocumentState::At(_))
}

fn waiting(row: &DocumentRow, flows: &BTreeMap<Stage, StageMode>) -> Option<WaitingView> {
    let DocumentState::At(stage) = row.state else { return None };
    let held = |code: &str, what: &str| {
        let message = format!("an operator {what} the stage {}", stage.as_str());
        Some(WaitingView { reason: FailureView { code: code.into(), message }, next_try_at: None })
    };
    match (flows.get(&stage), row.retry_at_ms) {
        (Some(StageMode::Pause), _) => held("stage_paused", "has paused"),
        (_, Some(at)) => {
            Some(WaitingView { reason: row.reason.clone()?.into(), next_try_at: Some(time(at)) })
        }
        (Some(StageMode::Drain), None) => held("stage_drains", "lets nothing into"),
        _ => None,
    }
}

/// A page of documents, by index.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobDocumentListResponse {
    documents: Vec<JobDocumentView>,
    /// Send it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
}

impl JobDocumentListResponse {
    pub(crate) fn new(rows: Vec<DocumentRow>, limit: usize, flows: &BTreeMap<Stage, StageMode>) -> Self {
        let next = if rows.len() == limit { rows.last().map(|last| last.item) } else { None };
        Self { documents: views(rows, flows), next }
    }
}
