//! How a job comes to be: opened, filled, started.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension as _, params};
use zstd::bulk::Compressor;

use super::{key, now};
use crate::{
    JobError, JobId, NewDocument, NewJob, OpenResult,
    jobs::codec::{job_id, priority_number, unreadable},
};

/// Texts shorter than this are kept as they are.
const PACK_FROM_BYTES: usize = 512;
/// The fastest of zstd's usual levels.
const LEVEL: i32 = 1;

pub(super) fn open(db: &Connection, job: &NewJob) -> Result<OpenResult, JobError> {
    if let Some(key) = &job.idempotency_key
        && let Some(found) = by_key(db, (&job.tenant, key))?
    {
        return Ok(OpenResult::Same(found));
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
pub(super) struct Text {
    pub(super) stored: Vec<u8>,
    pub(super) packed: bool,
}

/// A document as it is stored.
pub(super) struct Packed {
    id: String,
    bytes: usize,
    text: Text,
    metadata: String,
    content_type: Option<String>,
}

/// Makes a text small; what does not become smaller stays as it is.
pub(super) fn packed(text: &str) -> Result<Text, JobError> {
    Ok(pack_text(&mut Compressor::new(LEVEL).map_err(unreadable)?, text))
}

fn pack_text(packer: &mut Compressor<'_>, text: &str) -> Text {
    let smaller = match text.len() {
        PACK_FROM_BYTES.. => packer.compress(text.as_bytes()).ok().filter(|packed| packed.len() < text.len()),
        _ => None,
    };
    Text { packed: smaller.is_some(), stored: smaller.unwrap_or_else(|| text.as_bytes().to_vec()) }
}

/// Makes texts small.
pub(super) fn pack(documents: Vec<NewDocument>) -> Result<Vec<Packed>, JobError> {
    let mut packer = Compressor::new(LEVEL).map_err(unreadable)?;
    let pack = |document: NewDocument| {
        Ok(Packed {
            id: document.id,
            bytes: document.text.len(),
            text: pack_text(&mut packer, &document.text),
            metadata: serde_json::to_string(&document.metadata).map_err(unreadable)?,
            content_type: document.content_type,
        })
    };
    documents.into_iter().map(pack).collect()
}

/// The text of a row.
pub(super) fn unpack(stored: &[u8], packed: bool, bytes: usize) -> Result<String, JobError> {
    let plain = match packed {
        false => Cow::Borrowed(stored),
        true => Cow::Owned(zstd::bulk::decompress(stored, bytes).map_err(unreadable)?),
    };
    String::from_utf8(plain.into_owned()).map_err(unreadable)
}

pub(super) fn append(db: &Connection, job: JobId, documents: &[Packed]) -> Result<(), JobError> {
    let found: Option<(i64, u32)> = db
        .prepare_cached("UPDATE job SET d0 = d0 + ?2, submitted_at_ms = ?3 WHERE id = ?1 AND status = -1 RETURNING number, d0")?
        .query_row(params![job.0, documents.len(), now()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (number, after) = found.ok_or_else(gone)?;
    let first = after - documents.len() as u32;
    let now = now();
    let mut row =
        db.prepare_cached("INSERT INTO document (key, id, bytes, touched_at_ms) VALUES (?, ?, ?, ?)")?;
    let mut content = db.prepare_cached(
        "INSERT INTO content (key, text, packed, metadata, content_type) VALUES (?, ?, ?, ?, ?)",
    )?;
    for (item, document) in (first..).zip(documents) {
        let key = key(number, item);
        row.execute(params![key, document.id, document.bytes, now])?;
        content.execute(params![
            key,
            document.text.stored,
            document.text.packed,
            document.metadata,
            document.content_type
        ])?;
    }
    Ok(())
}

pub(super) fn start(db: &Connection, job: JobId, body_hash: &[u8; 32]) -> Result<OpenResult, JobError> {
    struct Found {
        status: i64,
        hash: Option<Vec<u8>>,
        tenant: String,
        key: Option<String>,
        most: Option<u64>,
    }
    let found = db
        .prepare_cached(
            "SELECT status, body_hash, tenant, idempotency_key, max_unfinished FROM job WHERE id = ?",
        )?
        .query_row([job.0], |row| {
            Ok(Found {
                status: row.get(0)?,
                hash: row.get(1)?,
                tenant: row.get(2)?,
                key: row.get(3)?,
                most: row.get(4)?,
            })
        })
        .optional()?
        .ok_or_else(gone)?;
    let same = |job, hash: Option<&[u8]>| match hash == Some(body_hash.as_slice()) {
        true => OpenResult::Same(job),
        false => OpenResult::Conflict(job),
    };
    if found.status >= 0 {
        return Ok(same(job, found.hash.as_deref()));
    }
    // Another upload with the same key may have been faster.
    if let Some(key) = &found.key
        && let Some(other) = by_key(db, (&found.tenant, key))?
    {
        let hash: Option<Vec<u8>> =
            db.query_row("SELECT body_hash FROM job WHERE id = ?", [other.0], |row| row.get(0))?;
        return Ok(same(other, hash.as_deref()));
    }
    if let Some(most) = found.most {
        let running = unfinished_jobs(db, &found.tenant)?;
        if running >= most {
            return Ok(OpenResult::TooMany(running));
        }
    }
    db.prepare_cached("UPDATE job SET status = 0, body_hash = ?2, submitted_at_ms = ?3 WHERE id = ?1")?
        .execute(params![job.0, body_hash.as_slice(), now()])?;
    Ok(OpenResult::New(job))
}

pub(super) fn unfinished_jobs(db: &Connection, tenant: &str) -> Result<u64, JobError> {
    Ok(db
        .prepare_cached("SELECT count(*) FROM job WHERE status IN (0, 1) AND tenant = ?")?
        .query_row([tenant], |row| row.get(0))?)
}

/// The started job of a key.
fn by_key(db: &Connection, (tenant, key): (&str, &str)) -> Result<Option<JobId>, JobError> {
    let found = db
        .prepare_cached("SELECT id FROM job WHERE tenant = ? AND idempotency_key = ? AND status >= 0")?
        .query_row([tenant, key], |row| row.get(0))
        .optional()?;
    Ok(found.map(JobId))
}

fn gone() -> JobError {
    JobError::Unavailable("the job was not started in time and is removed; send it again".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        let texts = ["short", &"the same again and again ".repeat(400), &"ünïcödé 字 ".repeat(100)];
        for text in texts {
            let document = NewDocument {
                id: "d".into(),
                text: text.into(),
                metadata: serde_json::Map::new(),
                content_type: None,
            };
            let packed = pack(vec![document]).unwrap().remove(0);
            assert!(packed.text.stored.len() <= text.len());
            assert_eq!(packed.text.packed, text.len() >= PACK_FROM_BYTES, "{text}");
            assert_eq!(unpack(&packed.text.stored, packed.text.packed, packed.bytes).unwrap(), text);
        }
    }
}
