//! The quota of tokens per day in the ledger's file: reserve, settle and refund. Each operation runs inside a transaction of
//! the writer.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Result, params};

use super::{
    UsageRecord,
    counters::{to_sql, used},
    day,
};

/// A requested reservation.
pub(super) struct Reserve {
    pub(super) id: i64,
    pub(super) user: Arc<str>,
    pub(super) tokens: u64,
    pub(super) limit: u64,
    pub(super) now: Timestamp,
    pub(super) until: i64,
}

/// Reserves tokens, or returns the tokens used and reserved today if the limit does not allow more.
pub(super) fn reserve(db: &Connection, request: &Reserve) -> Result<std::result::Result<(), u64>> {
    let used = used(db, &request.user, request.now)?;
    let used_and_reserved = used.tokens_today.saturating_add(used.tokens_reserved);
    if used_and_reserved.saturating_add(request.tokens) > request.limit {
        return Ok(Err(used_and_reserved));
    }
    db.prepare_cached("INSERT INTO reservation VALUES (?, ?, ?, ?, ?)")?.execute(params![
        request.id,
        request.user,
        day(request.now),
        to_sql(request.tokens),
        request.until
    ])?;
    Ok(Ok(()))
}

/// Deletes a reservation.
pub(super) fn refund(db: &Connection, id: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM reservation WHERE id = ?")?.execute([id])?;
    Ok(())
}

/// The usage of a request that completed.
pub(super) struct Settle {
    pub(super) user: Arc<str>,
    pub(super) reservation: Option<i64>,
    pub(super) usage: UsageRecord,
    pub(super) cost_nanodollars: i64,
}

/// Records the usage of a request in place of its reservation.
pub(super) fn settle(db: &Connection, entry: &Settle, now: Timestamp) -> Result<()> {
    let Settle { user, reservation, usage, cost_nanodollars } = entry;
    if let Some(id) = *reservation {
        refund(db, id)?;
    }
    db.prepare_cached(
        "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT DO UPDATE SET requests = requests + 1, texts = texts + ?5,
           cached_texts = cached_texts + ?6, tokens = tokens + ?7, billed_tokens = billed_tokens + ?8,
           cost_nanodollars = cost_nanodollars + ?9",
    )?
    .execute(params![
        day(now),
        user,
        usage.provider.as_str(),
        usage.model,
        to_sql(usage.texts),
        to_sql(usage.cached_texts),
        to_sql(usage.tokens),
        to_sql(usage.billed_tokens),
        cost_nanodollars,
    ])?;
    Ok(())
}
