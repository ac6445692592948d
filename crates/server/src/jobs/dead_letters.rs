//! Dead letters as the operator's routes use them: list, annotate, requeue, purge. What an operator sees of a dead letter
//! has no secrets.

use embeddery_pipeline::{DeadLetter, DeadLetterId, Edit, NewDocument, Priority, Stage, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{error::ApiError, jobs::Jobs};

/// Dead letters per page of the queue.
const PAGE_SIZE: usize = 500;

/// The operator's decision about a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeadLetterState {
    /// It must not be requeued.
    Quarantined,
    /// It may be requeued.
    ApprovedForRequeue,
    /// It stays a dead letter and needs no attention.
    Ignored,
}

impl DeadLetterState {
    pub(crate) const ALL: [(&str, Self); 3] = [
        ("quarantined", Self::Quarantined),
        ("approved_for_requeue", Self::ApprovedForRequeue),
        ("ignored", Self::Ignored),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, state)| *state == self).map_or("", |(name, _)| name)
    }
}

/// The operator's note on a dead letter. The queue stores it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorNote {
    pub(crate) state: DeadLetterState,
    #[serde(default)]
    pub(crate) note: Option<String>,
}

/// Changes to the document of a dead letter that is requeued.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RequeueOverrides {
    pub(crate) priority: Option<Priority>,
    pub(crate) edit: Edit,
}

impl RequeueOverrides {
    /// The names of the changed fields, for the audit log.
    pub(crate) fn names(&self) -> String {
        let Self { priority, edit } = self;
        let changed = [
            ("priority", priority.is_some()),
            ("text", edit.text.is_some()),
            ("metadata", edit.metadata.is_some()),
        ];
        let names: Vec<&str> =
            changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect();
        names.join(", ")
    }
}

/// The result of requeueing a dead letter.
pub(crate) enum RequeueOutcome {
    Done,
    NotFound,
    /// The operator's decision forbids it.
    Blocked(DeadLetterState),
    /// The dead letter cannot be requeued, with the reason.
    Unusable(&'static str),
}

impl RequeueOutcome {
    /// The metric label `status`.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            Self::Done => "success",
            Self::NotFound => "not_found",
            Self::Blocked(_) => "blocked",
            Self::Unusable(_) => "error",
        }
    }
}

impl Jobs {
    /// Up to `count` dead letters of a stage with the operator's notes, newest first. If `job` is given, only those of
    /// this job.
    pub(crate) async fn list_dead_letters(
        &self,
        stage: Stage,
        job: Option<&str>,
        count: usize,
    ) -> Result<Vec<(DeadLetter, Option<OperatorNote>)>, ApiError> {
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < count {
            let page = self.queue.dead_letters(stage, after.take(), PAGE_SIZE).await?;
            let full = page.len() == PAGE_SIZE;
            after = page.last().map(|letter| letter.id.clone());
            found.extend(page.into_iter().filter(|letter| {
                job.is_none_or(|job| letter.task.as_ref().is_some_and(|task| task.id.job.to_string() == job))
            }));
            if !full {
                break;
            }
        }
        found.truncate(count);
        let ids: Vec<DeadLetterId> = found.iter().map(|letter| letter.id.clone()).collect();
        let notes = self.queue.remarks(stage, &ids).await?;
        let parse = |note: Option<String>| note.and_then(|text| serde_json::from_str(&text).ok());
        Ok(found.into_iter().zip(notes.into_iter().map(parse)).collect())
    }

    /// Stores the operator's note on a dead letter. Returns `false` if there is no such dead letter.
    pub(crate) async fn annotate(
        &self,
        stage: Stage,
        id: &DeadLetterId,
        note: &OperatorNote,
    ) -> Result<bool, ApiError> {
        let text = serde_json::to_string(note).map_err(|_| ApiError::internal())?;
        Ok(self.queue.annotate(stage, id, &text).await?)
    }

    /// The document of a dead letter, if its job still exists.
    pub(crate) async fn dead_letter_document(
        &self,
        letter: &DeadLetter,
    ) -> Result<Option<NewDocument>, ApiError> {
        let Some(task) = &letter.task else { return Ok(None) };
        let loaded = self.store.load(vec![task.id]).await?.pop().transpose()?.flatten();
        Ok(loaded.map(|loaded| loaded.document))
    }

    /// Requeues the document of a dead letter at the stage at which it failed, or at the first stage if its text is
    /// changed. Its count of attempts begins again.
    pub(crate) async fn requeue(
        &self,
        stage: Stage,
        id: &DeadLetterId,
        RequeueOverrides { priority, edit }: RequeueOverrides,
    ) -> Result<RequeueOutcome, ApiError> {
        let Some(letter) = self.queue.dead_letter(stage, id).await? else {
            return Ok(RequeueOutcome::NotFound);
        };
        let note = self.queue.remarks(stage, std::slice::from_ref(id)).await?.pop().flatten();
        match note.and_then(|text| serde_json::from_str::<OperatorNote>(&text).ok()) {
            Some(OperatorNote { state, .. }) if state != DeadLetterState::ApprovedForRequeue => {
                return Ok(RequeueOutcome::Blocked(state));
            }
            _ => {}
        }
        let Some(task) = letter.task else {
            return Ok(RequeueOutcome::Unusable(
                "its message is unreadable, so its document is unknown; purge it and retry the job",
            ));
        };
        // The store also accepts a document that is not recorded as failed yet, and one that an earlier request reset
        // without enqueueing it.
        let retried = self.store.retry_document(&task.tenant, task.id, task.enqueued_at_ms, edit).await?;
        let Some(document) = retried else {
            return Ok(RequeueOutcome::Unusable(
                "its job no longer exists, or the document has not failed; purge it",
            ));
        };
        let mut task = Task::for_document(&document);
        task.priority = priority.unwrap_or(task.priority);
        self.queue.enqueue(&[task]).await?;
        Ok(RequeueOutcome::Done)
    }

    /// Deletes these dead letters of a stage, or all of them. Returns their number. Their documents stay failed.
    pub(crate) async fn purge(
        &self,
        stage: Stage,
        ids: Option<Vec<DeadLetterId>>,
    ) -> Result<usize, ApiError> {
        let mut purged = 0;
        let has_ids = ids.is_some();
        let mut ids = ids.unwrap_or_default();
        loop {
            if !has_ids {
                let page = self.queue.dead_letters(stage, None, PAGE_SIZE).await?;
                ids = page.into_iter().map(|letter| letter.id).collect();
            }
            for id in &ids {
                purged += usize::from(self.queue.delete_dead_letter(stage, id).await?);
            }
            if has_ids || ids.len() < PAGE_SIZE {
                return Ok(purged);
            }
        }
    }
}

/// Whether a value contains the placeholder of a secret that [`redacted_document`] has replaced.
pub(crate) fn contains_redaction(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(REDACTED),
        Value::Array(list) => list.iter().any(contains_redaction),
        Value::Object(map) => {
            map.iter().any(|(key, value)| key.contains(REDACTED) || contains_redaction(value))
        }
        _ => false,
    }
}

/// The content of a dead letter without secrets: the fields of its task, or its raw message if that is unreadable.
pub(crate) fn payload(letter: &DeadLetter) -> Value {
    let payload = match (&letter.task, &letter.raw) {
        (Some(task), _) => json!({
            "job_id": task.id.job.to_string(),
            "item": task.id.item,
            "user_id": &*task.tenant,
            "stage": task.stage.as_str(),
            "bytes": task.bytes,
            "attempts": task.attempts,
            "deaths": task.deaths,
        }),
        (None, Some(raw)) => serde_json::from_slice(raw)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(raw).into_owned())),
        (None, None) => Value::Null,
    };
    redacted(payload, 0)
}

/// The document of a dead letter, without words that look like secrets.
pub(crate) fn redacted_document(document: NewDocument) -> Value {
    let mut after_bearer = false;
    let hide = |word: &str| {
        let plain = word.trim().trim_matches(|c: char| c.is_ascii_punctuation()).to_ascii_lowercase();
        let is_secret = after_bearer || (plain.starts_with("sk-") && plain.len() > 12);
        after_bearer = plain == "bearer";
        if is_secret { word.replace(word.trim(), REDACTED) } else { word.to_owned() }
    };
    json!({
        "id": document.id,
        "text": document.text.split_inclusive(char::is_whitespace).map(hide).collect::<String>(),
        "metadata": redacted(Value::Object(document.metadata), 0),
        "content_type": document.content_type,
    })
}

/// Object keys whose values are secrets, in lower case.
const SECRET_KEYS: [&str; 7] =
    ["api_key", "authorization", "token", "password", "secret", "access_token", "id_token"];
/// A string that contains one of these is a secret.
const SECRET_MARKS: [&str; 3] = ["sk-", "api_key", "bearer "];
/// Replaces a secret.
pub(crate) const REDACTED: &str = "***REDACTED***";
/// Objects and lists below this depth are replaced as a whole.
const MAX_DEPTH: usize = 5;

/// A value without what looks like a secret.
pub(crate) fn redacted(value: Value, depth: usize) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) if depth >= MAX_DEPTH => Value::String(REDACTED.into()),
        Value::Object(map) => {
            let hide = |(key, value): (String, Value)| {
                let is_secret = SECRET_KEYS.contains(&key.to_ascii_lowercase().as_str());
                let value =
                    if is_secret { Value::String(REDACTED.into()) } else { redacted(value, depth + 1) };
                (key, value)
            };
            Value::Object(map.into_iter().map(hide).collect::<Map<_, _>>())
        }
        Value::Array(list) => {
            Value::Array(list.into_iter().map(|value| redacted(value, depth + 1)).collect())
        }
        Value::String(text) if text.len() > 12 => {
            let lower = text.to_ascii_lowercase();
            if SECRET_MARKS.iter().any(|mark| lower.contains(mark)) {
                Value::String(REDACTED.into())
            } else {
                Value::String(text)
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_shown_without_its_secrets() {
        let text = "A task-oriented guide.\n  Send \"Bearer abc.def\" or sk-1234567890abc,\nthen wait.";
        let document =
            NewDocument { id: "d".into(), text: text.into(), metadata: Map::new(), content_type: None };
        assert_eq!(
            redacted_document(document)["text"],
            format!("A task-oriented guide.\n  Send \"Bearer {REDACTED} or {REDACTED}\nthen wait.")
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let value = json!({
            "Token": "abc", "text": "my key is sk-1234567890", "short": "sk-1", "n": 7,
            "in": [{"password": 1, "fine": "hello"}], "a": {"b": {"c": {"d": {"e": {"f": 1}}}}},
        });
        assert_eq!(
            redacted(value, 0),
            json!({
                "Token": REDACTED, "text": REDACTED, "short": "sk-1", "n": 7,
                "in": [{"password": REDACTED, "fine": "hello"}], "a": {"b": {"c": {"d": {"e": REDACTED}}}},
            })
        );
    }
}
