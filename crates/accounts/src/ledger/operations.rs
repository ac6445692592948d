//! What is done to the file, each inside the writer's transaction.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::{Counter, UsageRecord, UsageSnapshot, day};

/// A reservation that is asked for.
pub(super) struct Reserve {
    pub(super) id: i64,
    pub(super) user: Arc<str>,
    pub(super) tokens: u64,
    pub(super) limit: u64,
    pub(super) now: Timestamp,
    pub(super) until: i64,
}

/// Sets tokens aside, or answers what is used already.
pub(super) fn reserve(db: &Connection, asked: &Reserve) -> Result<std::result::Result<(), u64>> {
    let used = used(db, &asked.user, asked.now)?;
    let taken = used.tokens_today.saturating_add(used.tokens_reserved);
    if taken.saturating_add(asked.tokens) > asked.limit {
        return Ok(Err(taken));
    }
    db.prepare_cached("INSERT INTO reservation VALUES (?, ?, ?, ?, ?)")?.execute(params![
        asked.id,
        asked.user,
        day(asked.now),
        number(asked.tokens),
        asked.until
    ])?;
    Ok(Ok(()))
}

/// Gives a reservation back.
pub(super) fn refund(db: &Connection, id: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM reservation WHERE id = ?")?.execute([id])?;
    Ok(())
}

/// Writes down what a request took, in place of its reservation.
pub(super) fn settle(
    db: &Connection,
    (user, reservation): (&str, Option<i64>),
    (spent, cost): (&UsageRecord, i64),
    now: Timestamp,
) -> Result<()> {
    if let Some(id) = reservation {
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
        spent.provider.as_str(),
        spent.model,
        number(spent.texts),
        number(spent.cached_texts),
        number(spent.tokens),
        number(spent.billed_tokens),
        cost,
    ])?;
    Ok(())
}

/// Where a user stands. A reservation whose time is over counts for nothing: its process is dead.
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
        stored_vectors: counted(db, (user, Counter::StoredVectors))?,
        jobs: counted(db, (user, Counter::Jobs))?,
    })
}

fn counted(db: &Connection, (user, counter): (&str, Counter)) -> Result<u64> {
    let value: Option<i64> = db
        .prepare_cached("SELECT value FROM counter WHERE user = ? AND name = ?")?
        .query_row(params![user, counter.as_str()], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or(0).max(0).unsigned_abs())
}

/// Adds to a counter, or answers what it is when the limit does not allow as much.
pub(super) fn count(
    db: &Connection,
    (user, counter): (&str, Counter),
    (count, limit): (u64, Option<u64>),
) -> Result<std::result::Result<(), u64>> {
    let have = counted(db, (user, counter))?;
    let after = have.saturating_add(count);
    if limit.is_some_and(|limit| after > limit) {
        return Ok(Err(have));
    }
    set_count(db, (user, counter), after).map(Ok)
}

/// Takes away from a counter.
pub(super) fn uncount(db: &Connection, (user, counter): (&str, Counter), count: u64) -> Result<()> {
    let have = counted(db, (user, counter))?;
    set_count(db, (user, counter), have.saturating_sub(count))
}

/// Sets a counter.
pub(super) fn set_count(db: &Connection, (user, counter): (&str, Counter), count: u64) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO counter VALUES (?, ?, ?)")?.execute(params![
        user,
        counter.as_str(),
        number(count)
    ])?;
    Ok(())
}

/// Forgets a user, all but what counts for this day.
pub(super) fn forget(db: &Connection, user: &str, kept: Option<&str>) -> Result<()> {
    for table in ["usage", "reservation"] {
        db.execute(&format!("DELETE FROM {table} WHERE user = ?1 AND day IS NOT ?2"), params![user, kept])?;
    }
    db.execute("DELETE FROM counter WHERE user = ?", [user])?;
    Ok(())
}

/// Drops what is past: dead reservations, and days that nobody has to account for any more.
pub(super) fn sweep(db: &Connection, now: Timestamp, retention_days: u32) -> Result<()> {
    db.execute("DELETE FROM reservation WHERE until < ?", [now.as_second()])?;
    let kept = jiff::SignedDuration::from_hours(24 * i64::from(retention_days));
    if let Ok(first) = now.checked_sub(kept) {
        db.execute("DELETE FROM usage WHERE day < ?", [day(first)])?;
    }
    Ok(())
}

/// SQLite's integers are signed.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
