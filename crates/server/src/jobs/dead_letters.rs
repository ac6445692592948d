//! Dead letters at the edge: what operators see of them, what they say of them, and how they run again.

use embeddery_pipeline::{DeadLetter, DeadLetterId, Edit, NewDocument, Priority, Stage, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{error::ApiError, jobs::Jobs};

/// Letters that are looked at together.
const PAGE: usize = 500;

/// What the operator has decided of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeadLetterState {
    /// Nobody may let it run again.
    Quarantined,
    /// It may run again.
    ApprovedForRequeue,
    /// It stays, and nobody need look.
    Ignored,
}

impl DeadLetterState {
    pub(crate) const ALL: [(&str, Self); 3] = [
        ("quarantined", Self::Quarantined),
        ("approved_for_requeue", Self::ApprovedForRequeue),
        ("ignored", Self::Ignored),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, standing)| *standing == self).map_or("", |(name, _)| name)
    }
}

/// The operator's remark, as the queue keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorNote {
    pub(crate) state: DeadLetterState,
    #[serde(default)]
    pub(crate) note: Option<String>,
}

/// What is changed of a letter's document before it runs again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RequeueOverrides {
    pub(crate) priority: Option<Priority>,
    pub(crate) edit: Edit,
}

impl RequeueOverrides {
    /// Which fields are others than before, for the audit log.
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

/// How an attempt to let a letter run again ended.
pub(crate) enum RequeueOutcome {
    Done,
    NotFound,
    Blocked(DeadLetterState),
    /// It cannot run again, and why.
    Unusable(&'static str),
}

impl RequeueOutcome {
    /// The metrics' word for it.
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
    /// Letters of a stage with the operator's remarks, newest first; only a job's, when it is named.
    pub(crate) async fn list_dead_letters(
        &self,
        stage: Stage,
        job: Option<&str>,
        count: usize,
    ) -> Result<Vec<(DeadLetter, Option<OperatorNote>)>, ApiError> {
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < count {
            let page = self.queue.dead_letters(stage, after.take(), PAGE).await?;
            let full = page.len() == PAGE;
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
        let remarks = self.queue.remarks(stage, &ids).await?;
        let read = |remark: Option<String>| remark.and_then(|text| serde_json::from_str(&text).ok());
        Ok(found.into_iter().zip(remarks.into_iter().map(read)).collect())
    }

    /// Keeps the operator's remark with a letter; false when it is gone.
    pub(crate) async fn remark(
        &self,
        stage: Stage,
        id: &DeadLetterId,
        remark: &OperatorNote,
    ) -> Result<bool, ApiError> {
        let text = serde_json::to_string(remark).map_err(|_| ApiError::internal())?;
        Ok(self.queue.annotate(stage, id, &text).await?)
    }

    /// A letter's document, while its job has it.
    pub(crate) async fn document_of(&self, letter: &DeadLetter) -> Result<Option<NewDocument>, ApiError> {
        let Some(task) = &letter.task else { return Ok(None) };
        let work = self.store.load(vec![task.id]).await?.pop().transpose()?.flatten();
        Ok(work.map(|work| work.document))
    }

    /// Lets a letter's document, and no other, run again from the stage it failed at, or with another text from the
    /// first, with no failures charged.
    pub(crate) async fn requeue(
        &self,
        stage: Stage,
        id: &DeadLetterId,
        RequeueOverrides { priority, edit }: RequeueOverrides,
    ) -> Result<RequeueOutcome, ApiError> {
        let Some(letter) = self.queue.dead_letter(stage, id).await? else {
            return Ok(RequeueOutcome::NotFound);
        };
        let remark = self.queue.remarks(stage, std::slice::from_ref(id)).await?.pop().flatten();
        match remark.and_then(|text| serde_json::from_str::<OperatorNote>(&text).ok()) {
            Some(OperatorNote { state, .. }) if state != DeadLetterState::ApprovedForRequeue => {
                return Ok(RequeueOutcome::Blocked(state));
            }
            _ => {}
        }
        let Some(dead) = letter.task else {
            return Ok(RequeueOutcome::Unusable(
                "its message cannot be read, so nobody knows which document it was; purge it, and retry the job",
            ));
        };
        // Also when nobody has told its job yet that it is dead, or when an attempt to set it back ended before it was
        // in the queue.
        let retried = self.store.retry_document(&dead.tenant, dead.id, dead.enqueued_at_ms, edit).await?;
        let Some(document) = retried else {
            return Ok(RequeueOutcome::Unusable(
                "its job is gone, or the document ended otherwise; purge it",
            ));
        };
        let mut again = Task::for_document(&document);
        again.priority = priority.unwrap_or(again.priority);
        self.queue.enqueue(&[again]).await?;
        Ok(RequeueOutcome::Done)
    }

    /// Removes letters for good; how many there were. Their documents stay failed.
    pub(crate) async fn purge(
        &self,
        stage: Stage,
        ids: Option<Vec<DeadLetterId>>,
    ) -> Result<usize, ApiError> {
        let mut purged = 0;
        let given = ids.is_some();
        let mut ids = ids.unwrap_or_default();
        loop {
            if !given {
                let page = self.queue.dead_letters(stage, None, PAGE).await?;
                ids = page.into_iter().map(|letter| letter.id).collect();
            }
            for id in &ids {
                purged += usize::from(self.queue.delete_dead_letter(stage, id).await?);
            }
            if given || ids.len() < PAGE {
                return Ok(purged);
            }
        }
    }
}

/// Whether this holds what [`redacted_document`] has put in a secret's place.
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

/// What is in a letter, for operators' eyes.
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

/// A letter's document as an operator sees it who is to mend it: without the words that look like secrets.
pub(crate) fn redacted_document(document: NewDocument) -> Value {
    let mut after_bearer = false;
    let hide = |word: &str| {
        let plain = word.trim().trim_matches(|c: char| c.is_ascii_punctuation()).to_ascii_lowercase();
        let secret = after_bearer || (plain.starts_with("sk-") && plain.len() > 12);
        after_bearer = plain == "bearer";
        if secret { word.replace(word.trim(), REDACTED) } else { word.to_owned() }
    };
    json!({
        "id": document.id,
        "text": document.text.split_inclusive(char::is_whitespace).map(hide).collect::<String>(),
        "metadata": redacted(Value::Object(document.metadata), 0),
        "content_type": document.content_type,
    })
}

const SECRET_KEYS: [&str; 7] =
    ["api_key", "authorization", "token", "password", "secret", "access_token", "id_token"];
const SECRET_MARKS: [&str; 3] = ["sk-", "api_key", "bearer "];
pub(crate) const REDACTED: &str = "***REDACTED***";
/// Deeper than this nothing is shown.
const DEPTH: usize = 5;

/// The same without what looks like a secret.
pub(crate) fn redacted(value: Value, depth: usize) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) if depth >= DEPTH => Value::String(REDACTED.into()),
        Value::Object(map) => {
            let hide = |(key, value): (String, Value)| {
                let secret = SECRET_KEYS.contains(&key.to_ascii_lowercase().as_str());
                let value = if secret { Value::String(REDACTED.into()) } else { redacted(value, depth + 1) };
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
