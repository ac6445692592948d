//! Reading usage back.

use std::path::Path;

use rusqlite::{Row as SqlRow, named_params};

use super::file;
use crate::UserId;

/// Which rows. Days are inclusive, as `2026-11-25`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this user; `None`: of all.
    pub user: Option<UserId>,
    /// From this day on.
    pub from: Option<String>,
    /// Up to this day.
    pub to: Option<String>,
    /// At most so many rows, the newest days first.
    pub limit: u32,
}

/// What one user took of one model on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of UTC.
    pub day: String,
    /// Who.
    pub user: String,
    /// Who served.
    pub provider: String,
    /// The provider's name for the model.
    pub model: String,
    /// Requests answered.
    pub requests: i64,
    /// Texts answered.
    pub texts: i64,
    /// Of these, from the cache.
    pub cached_texts: i64,
    /// Tokens read.
    pub tokens: i64,
    /// Tokens a vendor charged for.
    pub billed_tokens: i64,
    /// Their cost in billionths of a dollar.
    pub cost_nanodollars: i64,
}

pub(super) fn read(path: &Path, filter: &Filter) -> Result<Vec<Row>, String> {
    rows(path, filter).map_err(|error| format!("{}: {error}", path.display()))
}

fn rows(path: &Path, filter: &Filter) -> rusqlite::Result<Vec<Row>> {
    let connection = file::open_reader(path)?;
    let mut statement = connection.prepare(
        "SELECT day, user, provider, model, requests, texts, cached_texts, tokens, billed_tokens, cost_nanodollars
         FROM usage
         WHERE (:user IS NULL OR user = :user) AND (:from IS NULL OR day >= :from) AND (:to IS NULL OR day <= :to)
         ORDER BY day DESC, user, provider, model LIMIT :limit",
    )?;
    let user = filter.user.as_ref().map(UserId::as_str);
    let parameters =
        named_params! { ":user": user, ":from": filter.from, ":to": filter.to, ":limit": filter.limit };
    statement.query_map(parameters, row)?.collect()
}

fn row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        day: row.get(0)?,
        user: row.get(1)?,
        provider: row.get(2)?,
        model: row.get(3)?,
        requests: row.get(4)?,
        texts: row.get(5)?,
        cached_texts: row.get(6)?,
        tokens: row.get(7)?,
        billed_tokens: row.get(8)?,
        cost_nanodollars: row.get(9)?,
    })
}
