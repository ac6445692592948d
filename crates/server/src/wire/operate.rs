//! Stages, dead letters and the summary, in the words of the replaced service.

use std::collections::BTreeMap;

use embeddery_pipeline::{DeadLetter, DeadLetterId, Edit, NewDocument, Stage, StageMode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Settings,
    error::ApiError,
    jobs::dead_letters::{self, DeadLetterState, OperatorNote, REDACTED, RequeueOverrides},
    wire::{
        collections::{documents::checked_text, metadata},
        fields::Fields,
        jobs::view::read_priority,
    },
};

/// Which dead letters.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LettersQuery {
    /// `chunking`, `embedding` (default) or `storage`
    pub(crate) stage: Option<String>,
    /// At most so many, 1 to 500; default 50.
    pub(crate) count: Option<usize>,
    /// Only this job's.
    pub(crate) job_id: Option<String>,
    /// Whether each comes with its document, to be mended; then at most 20 come, and 20 is the default.
    pub(crate) with_document: Option<bool>,
}

impl LettersQuery {
    /// How many.
    pub(crate) fn count(&self) -> Result<usize, ApiError> {
        let (usual, most) = if self.with_document == Some(true) { (20, 20) } else { (50, 500) };
        let count = self.count.unwrap_or(usual);
        if (1..=most).contains(&count) {
            return Ok(count);
        }
        Err(ApiError::invalid("count", format!("count is {count}; it must be between 1 and {most}")))
    }
}

/// Dead letters, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct LettersAnswer {
    pub(crate) stream: String,
    pub(crate) count: usize,
    pub(crate) items: Vec<Letter>,
}

/// A document that was put aside.
#[derive(Serialize, ToSchema)]
pub(crate) struct Letter {
    entry_id: String,
    queue: String,
    job_id: Option<String>,
    error: String,
    error_code: String,
    /// RFC 3339, UTC.
    failed_at: String,
    /// What the queue knew of it, without what looks like a secret.
    #[schema(value_type = Object)]
    payload: Value,
    /// The same.
    #[schema(value_type = Object)]
    fields: Value,
    /// `quarantined`, `approved_for_requeue`, `ignored`, or `null`: nobody has said anything.
    dlq_state: Option<&'static str>,
    operator_note: Option<String>,
    /// The document, where it was asked for and its job still has it; what looks like a secret is hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    document: Option<Value>,
}

impl Letter {
    pub(crate) fn new(
        stage: Stage,
        letter: &DeadLetter,
        remark: Option<OperatorNote>,
        document: Option<NewDocument>,
    ) -> Self {
        let payload = dead_letters::payload(letter);
        let at = i64::try_from(letter.at_ms).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        let message = dead_letters::redacted(Value::String(letter.reason.message.clone()), 0);
        Self {
            entry_id: letter.id.0.clone(),
            queue: queue(stage),
            job_id: letter.task.as_ref().map(|task| task.id.job.to_string()),
            error: message.as_str().unwrap_or_default().to_owned(),
            error_code: letter.reason.code.to_string(),
            failed_at: at.map_or_else(String::new, |at| at.to_string()),
            fields: payload.clone(),
            payload,
            dlq_state: remark.as_ref().map(|remark| remark.state.as_str()),
            operator_note: remark.and_then(|remark| remark.note),
            document: document.map(dead_letters::redacted_document),
        }
    }
}

/// A dead letter that is to run again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct RequeueRequest {
    /// `chunking`, `embedding` or `storage`
    stage: String,
    entry_id: String,
    /// Taken for the replaced service's sake: what runs again is no dead letter any more.
    delete_from_dlq: Option<bool>,
    /// What is changed of it.
    override_fields: Option<OverrideFields>,
}

/// What is changed of a dead letter's document before it runs again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct OverrideFields {
    /// `high` (goes first), `normal` or `low`
    priority: Option<String>,
    /// In place of its text: it begins again at the first stage. A text with `***REDACTED***`, which a letter shows in
    /// a secret's place, is refused: the document would have it for good.
    text: Option<String>,
    /// In place of its metadata; refused likewise.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Several of them.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct RequeueBulkRequest {
    /// `chunking`, `embedding` or `storage`
    stage: String,
    entry_ids: Vec<String>,
    delete_from_dlq: Option<bool>,
    /// What is changed of each: `priority`.
    #[schema(value_type = Option<Object>)]
    override_fields: Option<Value>,
}

/// What the operator says of a dead letter.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct StateRequest {
    /// `chunking`, `embedding` or `storage`
    stage: String,
    entry_id: String,
    /// `quarantined`, `approved_for_requeue` or `ignored`
    state: String,
    /// Needed for `approved_for_requeue`.
    operator_note: Option<String>,
}

/// Dead letters that are to go.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct PurgeRequest {
    /// `chunking`, `embedding` or `storage`
    stage: String,
    /// These; or
    entry_ids: Option<Vec<String>>,
    /// all of the stage.
    all: Option<bool>,
}

/// A stage that is to flow otherwise.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct ControlRequest {
    /// `chunking`, `embedding`, `storage` or `all`
    stage: String,
    /// `pause`: nothing is handed out; `drain`: what is there is worked off, nothing enters; `resume`
    action: String,
}

/// Which letters are to run again.
pub(crate) struct Requeue {
    pub(crate) stage: Stage,
    pub(crate) ids: Vec<DeadLetterId>,
    pub(crate) changes: RequeueOverrides,
    pub(crate) kept: bool,
}

impl Requeue {
    pub(crate) fn one(mut fields: Fields, settings: &Settings) -> Result<Self, ApiError> {
        let id = entry_id(&mut fields)?;
        Self::of(fields, vec![id], settings)
    }

    pub(crate) fn bulk(mut fields: Fields, settings: &Settings) -> Result<Self, ApiError> {
        let ids = entry_ids(&mut fields)?;
        let Some(ids) = ids else {
            return Err(fields.unfit(Some("entry_ids".into()), "entry_ids is missing".into()));
        };
        let requeue = Self::of(fields, ids, settings)?;
        if requeue.changes.edit != Edit::default() {
            let message = "text and metadata are one document's; send its entry to dlq/requeue";
            return Err(ApiError::invalid("override_fields", message));
        }
        Ok(requeue)
    }

    fn of(mut fields: Fields, ids: Vec<DeadLetterId>, settings: &Settings) -> Result<Self, ApiError> {
        let stage = body_stage(&mut fields)?;
        let kept = fields.switch("delete_from_dlq")? == Some(false);
        let changes = match fields.object("override_fields")? {
            None => RequeueOverrides::default(),
            Some(map) => {
                changes(fields.part(map), settings).map_err(|error| error.within("override_fields"))?
            }
        };
        fields.finish()?;
        Ok(Self { stage, ids, changes, kept })
    }
}

fn changes(mut fields: Fields, settings: &Settings) -> Result<RequeueOverrides, ApiError> {
    let word = fields.text("priority")?;
    let priority = word.map(|word| read_priority("priority", &word)).transpose()?;
    let text = fields.text("text")?.map(|text| checked_text(text, settings)).transpose()?;
    let metadata = metadata(&mut fields)?;
    fields.finish()?;
    let hidden_text = text.as_deref().is_some_and(|text| text.contains(REDACTED));
    let hidden = metadata
        .iter()
        .flatten()
        .any(|(key, value)| key.contains(REDACTED) || dead_letters::contains_redaction(value));
    for (field, hidden) in [("text", hidden_text), ("metadata", hidden)] {
        if hidden {
            let message = format!(
                "{field} holds {REDACTED}, which a letter shows in a secret's place, and the document would have for \
                 good; put in what belongs there, or leave {field} out and it stays as it is"
            );
            return Err(ApiError::invalid(field, message));
        }
    }
    Ok(RequeueOverrides { priority, edit: Edit { text, metadata } })
}

/// What is said of which letter.
pub(crate) struct Said {
    pub(crate) stage: Stage,
    pub(crate) id: DeadLetterId,
    pub(crate) remark: OperatorNote,
}

impl Said {
    pub(crate) fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let (stage, id) = (body_stage(&mut fields)?, entry_id(&mut fields)?);
        let word = fields.text("state")?;
        let note = fields.text("operator_note")?.filter(|note| !note.trim().is_empty());
        let Some(word) = word else {
            return Err(fields.unfit(Some("state".into()), "state is missing".into()));
        };
        fields.finish()?;
        let Some((_, state)) = DeadLetterState::ALL.into_iter().find(|(name, _)| *name == word) else {
            let message = "Invalid state: it must be quarantined, approved_for_requeue or ignored";
            return Err(ApiError::invalid("state", message));
        };
        if state == DeadLetterState::ApprovedForRequeue && note.is_none() {
            return Err(ApiError::invalid("operator_note", "operator_note is required to approve requeue"));
        }
        Ok(Self { stage, id, remark: OperatorNote { state, note } })
    }
}

/// Which letters are to go; `None` is all of the stage.
pub(crate) fn purge(mut fields: Fields) -> Result<(Stage, Option<Vec<DeadLetterId>>), ApiError> {
    let stage = body_stage(&mut fields)?;
    let (ids, all) = (entry_ids(&mut fields)?, fields.switch("all")?.unwrap_or(false));
    if ids.is_some() == all {
        return Err(fields.unfit(Some("entry_ids".into()), "send entry_ids, or all: true".into()));
    }
    fields.finish()?;
    Ok((stage, ids))
}

/// Which stages are to flow how.
pub(crate) fn control(mut fields: Fields) -> Result<(Vec<Stage>, &'static str, StageMode), ApiError> {
    let stage = fields.text("stage")?;
    let action = fields.text("action")?;
    let (Some(stage), Some(action)) = (stage, action) else {
        return Err(fields.unfit(None, "stage and action are needed".into()));
    };
    fields.finish()?;
    let stages = if stage == "all" { Stage::ALL.to_vec() } else { vec![named(&stage)?] };
    let known = [("pause", StageMode::Pause), ("resume", StageMode::Run), ("drain", StageMode::Drain)];
    let found = known.into_iter().find(|(name, _)| *name == action);
    let (name, flow) =
        found.ok_or_else(|| ApiError::invalid("action", "action must be pause, resume or drain"))?;
    Ok((stages, name, flow))
}

/// A stage by its name.
pub(crate) fn named(name: &str) -> Result<Stage, ApiError> {
    Stage::ALL.into_iter().find(|stage| stage.as_str() == name).ok_or_else(|| {
        ApiError::invalid("stage", format!("stage is '{name}'; it must be chunking, embedding or storage"))
    })
}

fn body_stage(fields: &mut Fields) -> Result<Stage, ApiError> {
    match fields.text("stage")? {
        Some(name) => named(&name),
        None => Err(fields.unfit(Some("stage".into()), "stage is missing".into())),
    }
}

fn entry_id(fields: &mut Fields) -> Result<DeadLetterId, ApiError> {
    match fields.text("entry_id")? {
        Some(id) => Ok(DeadLetterId(id)),
        None => Err(fields.unfit(Some("entry_id".into()), "entry_id is missing".into())),
    }
}

fn entry_ids(fields: &mut Fields) -> Result<Option<Vec<DeadLetterId>>, ApiError> {
    let Some(value) = fields.take("entry_ids") else { return Ok(None) };
    let ids = value.as_array().and_then(|list| {
        list.iter().map(|id| Some(DeadLetterId(id.as_str()?.to_owned()))).collect::<Option<Vec<_>>>()
    });
    let ids = ids.ok_or_else(|| fields.mismatch("entry_ids", &value, "a list of strings"))?;
    if !(1..=500).contains(&ids.len()) {
        return Err(ApiError::invalid("entry_ids", "entry_ids must name 1 to 500 entries"));
    }
    Ok(Some(ids))
}

/// The stage's queue, as metrics name it.
pub(crate) fn queue(stage: Stage) -> String {
    format!("embeddings:{}", stage.as_str())
}

/// The stage's dead letters.
pub(crate) fn dlq(stage: Stage) -> String {
    format!("embeddings:{}:dlq", stage.as_str())
}

/// A dead letter runs again.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequeueAnswer {
    pub(crate) message: &'static str,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) entry_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warning: Option<&'static str>,
}

/// What came of each.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequeueBulkAnswer {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) results: Vec<RequeueResult>,
}

/// What came of one.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequeueResult {
    pub(crate) entry_id: String,
    /// `success`, `not_found`, `blocked:<state>` or `error:<reason>`
    pub(crate) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warning: Option<&'static str>,
}

/// What is said of a dead letter is kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct StateAnswer {
    pub(crate) ok: bool,
    pub(crate) stream: String,
    pub(crate) entry_id: String,
    pub(crate) state: &'static str,
}

/// Dead letters are gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct PurgeAnswer {
    pub(crate) stream: String,
    pub(crate) purged: usize,
}

/// How a stage flows.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Flags {
    /// Nothing is handed out.
    pub(crate) paused: bool,
    /// Nothing enters; what is there is worked off.
    pub(crate) drain: bool,
}

impl From<StageMode> for Flags {
    fn from(flow: StageMode) -> Self {
        Self { paused: flow == StageMode::Pause, drain: flow == StageMode::Drain }
    }
}

/// Stages flow as was asked.
#[derive(Serialize, ToSchema)]
pub(crate) struct ControlAnswer {
    pub(crate) ok: bool,
    pub(crate) stages: Vec<&'static str>,
    pub(crate) action: &'static str,
}

/// What living workers have done in a stage.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = StageDone)]
pub(crate) struct Done {
    pub(crate) processed: u64,
    pub(crate) failed: u64,
}

/// How much is where.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatsAnswer {
    pub(crate) queues: BTreeMap<String, u64>,
    pub(crate) dlq: BTreeMap<String, u64>,
    pub(crate) total_dlq: u64,
    /// Of workers alive now, since each began; one that serves several stages is counted at each.
    pub(crate) stages: BTreeMap<&'static str, Done>,
}

/// The pipeline at a moment.
#[derive(Serialize, ToSchema)]
pub(crate) struct SummaryAnswer {
    /// What does not answer, `queue` or `jobs`, and why; empty when all is well. Of a queue that does not answer nothing
    /// else is known: its maps are empty.
    pub(crate) unreachable: BTreeMap<&'static str, String>,
    /// Documents that wait.
    pub(crate) queues: BTreeMap<String, u64>,
    /// Those of them that a newer version has put there: only its workers take them.
    pub(crate) newer: BTreeMap<String, u64>,
    pub(crate) dlq: BTreeMap<String, u64>,
    /// Seconds that the longest waiting document has waited.
    pub(crate) ages: BTreeMap<String, f64>,
    pub(crate) stages: BTreeMap<&'static str, Done>,
    pub(crate) flags: BTreeMap<&'static str, Flags>,
    /// Of the replaced service, which had queues for each priority; here one queue knows them.
    #[schema(value_type = Object)]
    pub(crate) priority: BTreeMap<&'static str, u64>,
    /// Workers alive, by stage.
    pub(crate) workers: BTreeMap<&'static str, usize>,
    /// Seconds since 1970.
    pub(crate) ts: f64,
}
