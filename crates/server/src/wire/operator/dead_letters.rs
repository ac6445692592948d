//! Dead letters in requests and responses, in the words of the replaced service.

use embeddery_pipeline::{DeadLetter, DeadLetterId, Edit, NewDocument, Stage};
use embeddery_store::check_text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::stages::{parse_stage, queue_name};
use crate::{
    Settings,
    error::{ApiError, ErrorStyle},
    jobs::dead_letters::{self, DeadLetterState, OperatorNote, REDACTED, RequeueOverrides},
    wire::{collections::check_metadata, exact_json::ExactObject, field::object, jobs::view::parse_priority},
};

/// Maximum number of entries in one request.
const MAX_ENTRIES: usize = 500;

/// Which dead letters.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadLetterQuery {
    /// `chunking`, `embedding` (default) or `storage`
    pub(crate) stage: Option<String>,
    /// Maximum number, 1 to 500; default 50.
    pub(crate) count: Option<usize>,
    /// Only this job's.
    pub(crate) job_id: Option<String>,
    /// Whether each has its document, to be corrected; then at most 20 are returned, and 20 is the default.
    pub(crate) with_document: Option<bool>,
}

impl DeadLetterQuery {
    /// Checks how many are returned.
    pub(crate) fn count(&self) -> Result<usize, ApiError> {
        let (default, max) = if self.with_document == Some(true) { (20, 20) } else { (50, 500) };
        let count = self.count.unwrap_or(default);
        if (1..=max).contains(&count) {
            return Ok(count);
        }
        Err(ApiError::invalid("count", format!("count is {count}; it must be between 1 and {max}")))
    }
}

/// Dead letters, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeadLetterListResponse {
    pub(crate) stream: String,
    pub(crate) count: usize,
    pub(crate) items: Vec<DeadLetterView>,
}

/// A document that failed for good.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeadLetterView {
    entry_id: String,
    queue: String,
    job_id: Option<String>,
    error: String,
    error_code: String,
    /// RFC 3339, UTC.
    failed_at: String,
    /// What the queue knew of the document, secrets redacted.
    #[schema(value_type = Object)]
    payload: Value,
    /// The same as `payload`.
    #[schema(value_type = Object)]
    fields: Value,
    /// `quarantined`, `approved_for_requeue`, `ignored`, or `null` before an operator has decided.
    dlq_state: Option<&'static str>,
    operator_note: Option<String>,
    /// The document, where it was requested and its job still has it; secrets redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    document: Option<Value>,
}

impl DeadLetterView {
    pub(crate) fn new(
        stage: Stage,
        letter: &DeadLetter,
        note: Option<OperatorNote>,
        document: Option<NewDocument>,
    ) -> Self {
        let payload = dead_letters::payload(letter);
        let at = i64::try_from(letter.at_ms).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        let message = dead_letters::redacted(Value::String(letter.reason.message.clone()), 0);
        Self {
            entry_id: letter.id.0.clone(),
            queue: queue_name(stage),
            job_id: letter.task.as_ref().map(|task| task.id.job.to_string()),
            error: message.as_str().unwrap_or_default().to_owned(),
            error_code: letter.reason.code.to_string(),
            failed_at: at.map_or_else(String::new, |at| at.to_string()),
            fields: payload.clone(),
            payload,
            dlq_state: note.as_ref().map(|note| note.state.as_str()),
            operator_note: note.and_then(|note| note.note),
            document: document.map(dead_letters::redacted_document),
        }
    }
}

/// A dead letter to requeue.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequeueRequest {
    entry_id: String,
    /// `chunking`, `embedding` or `storage`
    stage: String,
    /// Accepted for clients of the replaced service: a requeued entry is no dead letter any more.
    delete_from_dlq: Option<bool>,
    /// What is changed of the document.
    #[serde(default, deserialize_with = "object")]
    override_fields: Option<OverrideFields>,
}

/// What is changed of a dead letter's document before it is requeued.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OverrideFields {
    /// `high` (goes first), `normal` or `low`
    priority: Option<String>,
    /// Replaces its text: the document starts again at the first stage. A text with `***REDACTED***`, which
    /// replaces a secret in responses, is rejected, because it would be stored.
    text: Option<String>,
    /// Replaces its metadata; rejected likewise.
    #[schema(value_type = Option<Object>)]
    metadata: Option<ExactObject>,
}

/// Several dead letters to requeue.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequeueBulkRequest {
    /// 1 to 500.
    entry_ids: Vec<String>,
    /// `chunking`, `embedding` or `storage`
    stage: String,
    delete_from_dlq: Option<bool>,
    /// What is changed of each: `priority`.
    #[serde(default, deserialize_with = "object")]
    override_fields: Option<OverrideFields>,
}

/// An operator's decision on a dead letter.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateRequest {
    /// `chunking`, `embedding` or `storage`
    stage: String,
    entry_id: String,
    /// `quarantined`, `approved_for_requeue` or `ignored`
    state: String,
    /// Required for `approved_for_requeue`.
    operator_note: Option<String>,
}

/// Dead letters to delete.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PurgeRequest {
    /// `chunking`, `embedding` or `storage`
    stage: String,
    /// These, 1 to 500; or
    entry_ids: Option<Vec<String>>,
    /// all of the stage.
    all: Option<bool>,
}

/// How dead letters are requeued, checked.
pub(crate) struct RequeueParams {
    pub(crate) stage: Stage,
    pub(crate) changes: RequeueOverrides,
    /// The caller asks to keep the entries, which has no effect.
    pub(crate) keep: bool,
}

impl RequeueRequest {
    pub(crate) fn check(self, settings: &Settings) -> Result<(DeadLetterId, RequeueParams), ApiError> {
        let params = RequeueParams {
            stage: parse_stage(&self.stage)?,
            changes: self.override_fields.unwrap_or_default().check(settings)?,
            keep: self.delete_from_dlq == Some(false),
        };
        Ok((DeadLetterId(self.entry_id), params))
    }
}

impl RequeueBulkRequest {
    pub(crate) fn check(self, settings: &Settings) -> Result<(Vec<DeadLetterId>, RequeueParams), ApiError> {
        let ids = check_entry_ids(self.entry_ids)?;
        let params = RequeueParams {
            stage: parse_stage(&self.stage)?,
            changes: self.override_fields.unwrap_or_default().check(settings)?,
            keep: self.delete_from_dlq == Some(false),
        };
        if params.changes.edit != Edit::default() {
            let message = "text and metadata are one document's; send its entry to dlq/requeue";
            return Err(ApiError::invalid("override_fields", message));
        }
        Ok((ids, params))
    }
}

impl OverrideFields {
    fn check(self, settings: &Settings) -> Result<RequeueOverrides, ApiError> {
        self.check_fields(settings).map_err(|error| error.nested_in("override_fields"))
    }

    fn check_fields(self, settings: &Settings) -> Result<RequeueOverrides, ApiError> {
        let Self { priority, text, metadata } = self;
        let priority = priority.as_deref().map(parse_priority).transpose()?;
        text.as_deref().map_or(Ok(()), |text| check_text(text, settings.text_limit))?;
        let metadata = check_metadata(metadata)?;
        let redacted_text = text.as_deref().is_some_and(|text| text.contains(REDACTED));
        let redacted_metadata = metadata
            .iter()
            .flatten()
            .any(|(key, value)| key.contains(REDACTED) || dead_letters::contains_redaction(value));
        for (field, redacted) in [("text", redacted_text), ("metadata", redacted_metadata)] {
            if redacted {
                let message = format!(
                    "{field} has {REDACTED}, which replaces a secret in responses and would be stored; \
                     restore the secret, or omit {field} to keep it unchanged"
                );
                return Err(ApiError::invalid(field, message));
            }
        }
        Ok(RequeueOverrides { priority, edit: Edit { text, metadata } })
    }
}

/// An operator's decision, checked.
pub(crate) struct Decision {
    pub(crate) stage: Stage,
    pub(crate) id: DeadLetterId,
    pub(crate) note: OperatorNote,
}

impl StateRequest {
    pub(crate) fn check(self) -> Result<Decision, ApiError> {
        let stage = parse_stage(&self.stage)?;
        let Some((_, state)) = DeadLetterState::ALL.into_iter().find(|(name, _)| *name == self.state) else {
            let message = "Invalid state: it must be quarantined, approved_for_requeue or ignored";
            return Err(ApiError::invalid("state", message));
        };
        let note = self.operator_note.filter(|note| !note.trim().is_empty());
        if state == DeadLetterState::ApprovedForRequeue && note.is_none() {
            return Err(ApiError::invalid("operator_note", "operator_note is required to approve requeue"));
        }
        Ok(Decision { stage, id: DeadLetterId(self.entry_id), note: OperatorNote { state, note } })
    }
}

impl PurgeRequest {
    /// The stage and the entries; `None` is all of the stage.
    pub(crate) fn check(self) -> Result<(Stage, Option<Vec<DeadLetterId>>), ApiError> {
        let stage = parse_stage(&self.stage)?;
        let ids = self.entry_ids.map(check_entry_ids).transpose()?;
        if ids.is_some() == self.all.unwrap_or(false) {
            let message = "send entry_ids, or all: true";
            return Err(ApiError::schema(ErrorStyle::Native, Some("entry_ids".into()), message));
        }
        Ok((stage, ids))
    }
}

fn check_entry_ids(ids: Vec<String>) -> Result<Vec<DeadLetterId>, ApiError> {
    if !(1..=MAX_ENTRIES).contains(&ids.len()) {
        let message = format!("entry_ids must name 1 to {MAX_ENTRIES} entries");
        return Err(ApiError::invalid("entry_ids", message));
    }
    Ok(ids.into_iter().map(DeadLetterId).collect())
}

/// A dead letter is requeued.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequeueResponse {
    pub(crate) message: &'static str,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) entry_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warning: Option<&'static str>,
}

/// The result for each entry.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequeueBulkResponse {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) results: Vec<RequeueResult>,
}

/// The result for one entry.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequeueResult {
    pub(crate) entry_id: String,
    /// `success`, `not_found`, `blocked:<state>` or `error:<reason>`
    pub(crate) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warning: Option<&'static str>,
}

/// The decision is stored.
#[derive(Serialize, ToSchema)]
pub(crate) struct StateResponse {
    pub(crate) ok: bool,
    pub(crate) stream: String,
    pub(crate) entry_id: String,
    pub(crate) state: &'static str,
}

/// Dead letters are deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct PurgeResponse {
    pub(crate) stream: String,
    pub(crate) purged: usize,
}
