//! The operations on the ledger's file. Each one runs inside a transaction of the writer.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::{Counter, UsageRecord, UsageSnapshot, day};

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
        number(request.tokens),
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
        number(usage.texts),
        number(usage.cached_texts),
        number(usage.tokens),
        number(usage.billed_tokens),
        cost_nanodollars,
    ])?;
    Ok(())
}

/// The usage of a user. An expired reservation is ignored, because its process is dead.
pub(super) fn used(db: &Connection, user: &str, now: Timestamp) -> Result<UsageSnapshot> {
    let today = day(now);
    let tokens: i64 = db
        .prepare_cached("SELECT coalesce(sum(tokens), 0) FROM usage WHERE user = ? AND day = ?")?
        .query_row(params![user, today], |row| row.get(0))?;
    let reserved: i64 = db
        .prepare_cached(
            "SELECT coalesce(sum(tokens), 0) FROM reservation WHERE user = ? AND day = ? AND until >= ?",
        )?
        .query_row(params![user, today, now.as_second()], |row| row.get(0))?;
    Ok(UsageSnapshot {
        tokens_today: tokens.max(0).unsigned_abs(),
        tokens_reserved: reserved.max(0).unsigned_abs(),
        stored_vectors: counter_value(db, user, Counter::StoredVectors)?,
        jobs: counter_value(db, user, Counter::Jobs)?,
    })
}

fn counter_value(db: &Connection, user: &str, counter: Counter) -> Result<u64> {
    let value: Option<i64> = db
        .prepare_cached("SELECT value FROM counter WHERE user = ? AND name = ?")?
        .query_row(params![user, counter.as_str()], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or(0).max(0).unsigned_abs())
}

/// A counter of one user.
pub(super) struct CounterKey {
    pub(super) user: Arc<str>,
    pub(super) counter: Counter,
}

/// Adds to a counter, or returns its value if the limit does not allow that much.
pub(super) fn add(
    db: &Connection,
    key: &CounterKey,
    count: u64,
    limit: Option<u64>,
) -> Result<std::result::Result<(), u64>> {
    let value = counter_value(db, &key.user, key.counter)?;
    let sum = value.saturating_add(count);
    if limit.is_some_and(|limit| sum > limit) {
        return Ok(Err(value));
    }
    set(db, key, sum).map(Ok)
}

/// Subtracts from a counter, which stays at zero or above.
pub(super) fn subtract(db: &Connection, key: &CounterKey, count: u64) -> Result<()> {
    let value = counter_value(db, &key.user, key.counter)?;
    set(db, key, value.saturating_sub(count))
}

/// Sets a counter.
pub(super) fn set(db: &Connection, key: &CounterKey, value: u64) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO counter VALUES (?, ?, ?)")?.execute(params![
        key.user,
        key.counter.as_str(),
        number(value)
    ])?;
    Ok(())
}

/// Deletes the data of a user, except the usage and reservations of `kept_day`.
pub(super) fn forget(db: &Connection, user: &str, kept_day: Option<&str>) -> Result<()> {
    for table in ["usage", "reservation"] {
        db.execute(
            &format!("DELETE FROM {table} WHERE user = ?1 AND day IS NOT ?2"),
            params![user, kept_day],
        )?;
    }
    db.execute("DELETE FROM counter WHERE user = ?", [user])?;
    Ok(())
}

/// Deletes expired reservations and the usage of days before the retention period.
pub(super) fn sweep(db: &Connection, now: Timestamp, retention_days: u32) -> Result<()> {
    db.execute("DELETE FROM reservation WHERE until < ?", [now.as_second()])?;
    let retention = jiff::SignedDuration::from_hours(24 * i64::from(retention_days));
    if let Ok(first) = now.checked_sub(retention) {
        db.execute("DELETE FROM usage WHERE day < ?", [day(first)])?;
    }
    Ok(())
}

/// Converts to SQLite's signed integers.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
