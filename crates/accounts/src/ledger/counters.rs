//! The counters of a user in the ledger's file: stored vectors, unfinished jobs, usage. Each operation runs inside a
//! transaction of the writer.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::{Counter, UsageSnapshot, day};

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
        to_sql(value)
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
pub(super) fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
