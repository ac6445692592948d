//! Opens jobs, adds their documents, starts them.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension as _, params};
use zstd::bulk::Compressor;

use super::{SqliteJobs, file, key, maintenance::remove_open, now, read};
use crate::{
    JobError, JobId, JobIntake, JobOp, NewDocument, NewJob, OpenResult,
    jobs::codec::{job_id, priority_number, unreadable},
};

/// Shorter texts are not compressed.
const MIN_COMPRESSED_BYTES: usize = 512;
/// The fastest of zstd's usual levels.
const LEVEL: i32 = 1;

impl JobIntake for SqliteJobs {
    fn open(&self, job: NewJob) -> JobOp<'_, OpenResult> {
        Box::pin(async move {
            file::check_space(&self.config.path, self.config.min_free_bytes)?;
            self.write_relaxed(move |db| open(db, &job)).await
        })
    }

    fn append(&self, job: JobId, documents: Vec<NewDocument>) -> JobOp<'_, ()> {
        Box::pin(async move {
            file::check_space(&self.config.path, self.config.min_free_bytes)?;
            // Compressing takes longer than writing, so the writer's thread does not do it.
            let documents = tokio::task::spawn_blocking(move || compress(documents))
                .await
                .map_err(|error| JobError::Internal(format!("compressing texts ended early: {error}")))?;
            self.write_relaxed(move |db| append(db, job, &documents?)).await
        })
    }

    fn start(&self, job: JobId, body_hash: [u8; 32]) -> JobOp<'_, OpenResult> {
        Box::pin(async move {
            let result = self.write_durable(move |db| start(db, job, &body_hash)).await?;
            if result != OpenResult::New(job) {
                // A crash here leaves the open job to `purge_expired`.
                self.in_steps(move |db| remove_open(db, job)).await?;
            }
            Ok(result)
        })
    }

    fn discard(&self, job: JobId) -> JobOp<'_, ()> {
        Box::pin(async move { self.in_steps(move |db| remove_open(db, job)).await.map(drop) })
    }
}

fn open(db: &Connection, job: &NewJob) -> Result<OpenResult, JobError> {
    if let Some(key) = &job.idempotency_key
        && let Some(started) = started_job(db, &job.tenant, key)?
    {
        return Ok(OpenResult::Same(started));
    }
    let last = db
        .prepare_cached("SELECT max(id) FROM job WHERE tenant = ?")?
        .query_row([&job.tenant], |row| row.get(0))?;
    let id = job_id(last);
    let (plan, chunking) = (&job.plan, &job.plan.chunking);
    db.prepare_cached(
        "INSERT INTO job (id, tenant, idempotency_key, max_unfinished, collection, provider, model, dimensions,
                          method, size, overlap, unit, priority, traceparent, submitted_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        id.0,
        job.tenant,
        job.idempotency_key,
        job.max_unfinished,
        plan.collection,
        plan.provider,
        plan.model,
        plan.dimensions,
        chunking.method,
        chunking.size,
        chunking.overlap,
        chunking.unit,
        priority_number(job.priority),
        job.traceparent,
        now(),
    ])?;
    Ok(OpenResult::New(id))
}

/// A text as it is stored.
pub(super) struct StoredText {
    pub(super) bytes: Vec<u8>,
    pub(super) compressed: bool,
}

/// A document as it is stored.
struct StoredDocument {
    id: String,
    text_bytes: usize,
    text: StoredText,
    metadata: String,
    content_type: Option<String>,
}

/// Compresses a text, unless that would not make it smaller.
pub(super) fn compress_text(text: &str) -> Result<StoredText, JobError> {
    Ok(compress_with(&mut Compressor::new(LEVEL).map_err(unreadable)?, text))
}

fn compress_with(compressor: &mut Compressor<'_>, text: &str) -> StoredText {
    let smaller = match text.len() {
        MIN_COMPRESSED_BYTES.. => {
            compressor.compress(text.as_bytes()).ok().filter(|compressed| compressed.len() < text.len())
        }
        _ => None,
    };
    StoredText { compressed: smaller.is_some(), bytes: smaller.unwrap_or_else(|| text.as_bytes().to_vec()) }
}

fn compress(documents: Vec<NewDocument>) -> Result<Vec<StoredDocument>, JobError> {
    let mut compressor = Compressor::new(LEVEL).map_err(unreadable)?;
    let compress = |document: NewDocument| {
        Ok(StoredDocument {
            id: document.id,
            text_bytes: document.text.len(),
            text: compress_with(&mut compressor, &document.text),
            metadata: serde_json::to_string(&document.metadata).map_err(unreadable)?,
            content_type: document.content_type,
        })
    };
    documents.into_iter().map(compress).collect()
}

/// The text of a row.
pub(super) fn decompress(stored: &[u8], compressed: bool, text_bytes: usize) -> Result<String, JobError> {
    let plain = match compressed {
        false => Cow::Borrowed(stored),
        true => Cow::Owned(zstd::bulk::decompress(stored, text_bytes).map_err(unreadable)?),
    };
    String::from_utf8(plain.into_owned()).map_err(unreadable)
}

fn append(db: &Connection, job: JobId, documents: &[StoredDocument]) -> Result<(), JobError> {
    let found: Option<(i64, u32)> = db
        .prepare_cached(
            "UPDATE job SET d0 = d0 + ?2, submitted_at_ms = ?3 WHERE id = ?1 AND status = -1 RETURNING number, d0",
        )?
        .query_row(params![job.0, documents.len(), now()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (number, count) = found.ok_or_else(removed)?;
    let first = count - documents.len() as u32;
    let now = now();
    let mut row =
        db.prepare_cached("INSERT INTO document (key, id, bytes, touched_at_ms) VALUES (?, ?, ?, ?)")?;
    let mut content = db.prepare_cached(
        "INSERT INTO content (key, text, packed, metadata, content_type) VALUES (?, ?, ?, ?, ?)",
    )?;
    for (item, document) in (first..).zip(documents) {
        let key = key(number, item);
        row.execute(params![key, document.id, document.text_bytes, now])?;
        content.execute(params![
            key,
            document.text.bytes,
            document.text.compressed,
            document.metadata,
            document.content_type
        ])?;
    }
    Ok(())
}

fn start(db: &Connection, job: JobId, body_hash: &[u8; 32]) -> Result<OpenResult, JobError> {
    struct OpenedJob {
        status: i64,
        hash: Option<Vec<u8>>,
        tenant: String,
        key: Option<String>,
        max_unfinished: Option<u64>,
    }
    let opened = db
        .prepare_cached(
            "SELECT status, body_hash, tenant, idempotency_key, max_unfinished FROM job WHERE id = ?",
        )?
        .query_row([job.0], |row| {
            Ok(OpenedJob {
                status: row.get(0)?,
                hash: row.get(1)?,
                tenant: row.get(2)?,
                key: row.get(3)?,
                max_unfinished: row.get(4)?,
            })
        })
        .optional()?
        .ok_or_else(removed)?;
    let same = |job, hash: Option<&[u8]>| match hash == Some(body_hash.as_slice()) {
        true => OpenResult::Same(job),
        false => OpenResult::Conflict(job),
    };
    if opened.status >= 0 {
        return Ok(same(job, opened.hash.as_deref()));
    }
    // Another upload with the same key may have started first.
    if let Some(key) = &opened.key
        && let Some(other) = started_job(db, &opened.tenant, key)?
    {
        let hash: Option<Vec<u8>> =
            db.query_row("SELECT body_hash FROM job WHERE id = ?", [other.0], |row| row.get(0))?;
        return Ok(same(other, hash.as_deref()));
    }
    if let Some(max_unfinished) = opened.max_unfinished {
        let unfinished = read::unfinished_jobs(db, &opened.tenant)?;
        if unfinished >= max_unfinished {
            return Ok(OpenResult::TooMany(unfinished));
        }
    }
    db.prepare_cached("UPDATE job SET status = 0, body_hash = ?2, submitted_at_ms = ?3 WHERE id = ?1")?
        .execute(params![job.0, body_hash.as_slice(), now()])?;
    Ok(OpenResult::New(job))
}

/// The started job of a key.
fn started_job(db: &Connection, tenant: &str, key: &str) -> Result<Option<JobId>, JobError> {
    let found = db
        .prepare_cached("SELECT id FROM job WHERE tenant = ? AND idempotency_key = ? AND status >= 0")?
        .query_row([tenant, key], |row| row.get(0))
        .optional()?;
    Ok(found.map(JobId))
}

fn removed() -> JobError {
    JobError::Unavailable("the job was not started in time and is removed; send it again".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        let texts = ["short", &"the same again and again ".repeat(400), &"ünïcödé 字 ".repeat(100)];
        for text in texts {
            let stored = compress_text(text).unwrap();
            assert!(stored.bytes.len() <= text.len());
            assert_eq!(stored.compressed, text.len() >= MIN_COMPRESSED_BYTES, "{text}");
            assert_eq!(decompress(&stored.bytes, stored.compressed, text.len()).unwrap(), text);
        }
    }
}
