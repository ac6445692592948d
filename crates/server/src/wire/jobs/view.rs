//! Jobs as callers see them.

use std::collections::BTreeMap;

use embeddery_pipeline::{DocumentRow, DocumentState, Job, Priority, Reason, Stage, StageMode, Status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// All words for how far a job is.
pub(crate) fn statuses() -> [(Status, &'static str); 6] {
    Status::ALL.map(|status| (status, status.as_str()))
}

pub(crate) const STATES: [(DocumentState, &str); 8] = [
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
    /// The length of vectors that was asked for; `null`: the model's own.
    dimensions: Option<usize>,
    chunking: ChunkingView,
    /// `high` (goes first), `normal` or `low`.
    priority: &'static str,
    documents: Counts,
    chunks: Chunks,
    /// From 0 to 1: how many documents have ended.
    progress: f64,
    /// Seconds until the end at the pace of the last minute; `null` when that is not known, or the job has ended.
    eta_seconds: Option<u64>,
    /// RFC 3339.
    submitted_at: String,
    /// When the first result was there.
    started_at: Option<String>,
    ended_at: Option<String>,
}

/// How texts are cut.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct ChunkingView {
    method: String,
    size: usize,
    overlap: usize,
    unit: String,
}

/// Documents by state.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct Counts {
    total: u64,
    /// Wait to be cut, or are being cut.
    chunking: u64,
    /// Wait for their vectors.
    embedding: u64,
    /// Wait to be written.
    storage: u64,
    /// Can be found.
    stored: u64,
    /// `errors` says why.
    failed: u64,
    /// An operator has left them out.
    skipped: u64,
    cancelled: u64,
    /// A later submission of the same document was stored before, and stays.
    superseded: u64,
}

/// Chunks of documents.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct Chunks {
    /// Of documents that are cut.
    known: u64,
    stored: u64,
}

impl JobView {
    /// Whether nothing but the guess at the end has changed.
    pub(crate) fn same_but_eta(&self, other: &Self) -> bool {
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
            priority: priority(job.priority),
            documents: Counts {
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
            chunks: Chunks { known: job.chunks, stored: job.stored_chunks },
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

/// At the pace of the last minute, or since the start if that is less.
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

/// The words of priorities, the first of which goes first.
pub(crate) const PRIORITIES: [(&str, Priority); 3] =
    [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];

pub(crate) fn priority(priority: Priority) -> &'static str {
    PRIORITIES.iter().find(|(_, known)| *known == priority).map_or("", |(word, _)| word)
}

/// The priority of a word that stands in this field.
pub(crate) fn read_priority(field: &str, word: &str) -> Result<Priority, ApiError> {
    let found = PRIORITIES.iter().find(|(known, _)| *known == word);
    found.map(|(_, priority)| *priority).ok_or_else(|| {
        ApiError::invalid(field, format!("priority is '{word}'; it must be high, normal or low"))
    })
}

/// A job with what went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobAnswer {
    #[serde(flatten)]
    job: JobView,
    /// The first hundred documents that failed; `…/documents?status=failed` lists all.
    errors: Vec<DocumentView>,
    /// Why nothing moves, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'static str>,
}

impl JobAnswer {
    pub(crate) fn new(job: &Job, errors: Vec<DocumentRow>, notice: Option<&'static str>) -> Self {
        Self { job: job.into(), errors: views(errors, &BTreeMap::new()), notice }
    }
}

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobsAnswer {
    jobs: Vec<JobView>,
    /// Send it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl JobsAnswer {
    pub(crate) fn new(jobs: &[Job], limit: usize) -> Self {
        let next = if jobs.len() == limit { jobs.last().map(|last| last.id.to_string()) } else { None };
        Self { jobs: jobs.iter().map(JobView::from).collect(), next }
    }
}

/// A document of a job.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
pub(crate) struct DocumentView {
    /// Its place in the job, from 0.
    index: u32,
    /// Its id in the collection.
    id: String,
    /// `chunking`, `embedding`, `storage`, `stored`, `failed`, `skipped`, `cancelled` or `superseded`.
    status: &'static str,
    /// How many chunks it has, when it was cut.
    chunks: Option<u64>,
    /// Failures so far.
    attempts: u32,
    /// The last failure; of a document that has not ended, one after which it is tried again. What superseded it.
    error: Option<ReasonView>,
    /// Why it waits, beyond its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<WaitingView>,
}

/// Why a document failed.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct ReasonView {
    /// For programs.
    code: String,
    message: String,
}

/// What a document waits for.
#[derive(Debug, Serialize, ToSchema, PartialEq)]
struct WaitingView {
    #[serde(flatten)]
    reason: ReasonView,
    /// RFC 3339; `null` when somebody has to do something first.
    next_try_at: Option<String>,
}

impl From<Reason> for ReasonView {
    fn from(Reason { code, message }: Reason) -> Self {
        Self { code: code.to_string(), message }
    }
}

/// Documents as callers see them, where stages flow so.
fn views(rows: Vec<DocumentRow>, flows: &BTreeMap<Stage, StageMode>) -> Vec<DocumentView> {
    let view = |row: DocumentRow| DocumentView {
        status: STATES.iter().find(|(known, _)| *known == row.state).map_or("", |(_, word)| word),
        waiting: waiting(&row, flows),
        index: row.item,
        id: row.id,
        chunks: row.chunks,
        attempts: row.attempts,
        error: row.reason.filter(|_| row.attempts > 0 || !is_at_work(row.state)).map(ReasonView::from),
    };
    rows.into_iter().map(view).collect()
}

pub(crate) const fn is_at_work(state: DocumentState) -> bool {
    matches!(state, DocumentState::At(_))
}

fn waiting(row: &DocumentRow, flows: &BTreeMap<Stage, StageMode>) -> Option<WaitingView> {
    let DocumentState::At(stage) = row.state else { return None };
    let held = |code: &str, what: &str| {
        let message = format!("an operator {what} the stage {}", stage.as_str());
        Some(WaitingView { reason: ReasonView { code: code.into(), message }, next_try_at: None })
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

/// A page of documents, by their place.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobDocumentsAnswer {
    documents: Vec<DocumentView>,
    /// Send it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
}

impl JobDocumentsAnswer {
    pub(crate) fn new(rows: Vec<DocumentRow>, limit: usize, flows: &BTreeMap<Stage, StageMode>) -> Self {
        let next = if rows.len() == limit { rows.last().map(|last| last.item) } else { None };
        Self { documents: views(rows, flows), next }
    }
}
