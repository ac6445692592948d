//! Reports of usage.

use std::path::Path;

use rusqlite::named_params;

use super::file;
use crate::UserId;

/// Selects rows of a report. Days are inclusive and have the form `2026-11-25`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Only this user; `None` selects all users.
    pub user: Option<UserId>,
    /// First day.
    pub from: Option<String>,
    /// Last day.
    pub to: Option<String>,
    /// Maximum number of rows. The newest days come first.
    pub limit: u32,
}

/// The usage of one model by one user on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Day in UTC.
    pub day: String,
    /// The user id.
    pub user: String,
    /// The provider of the model.
    pub provider: String,
    /// The provider's name for the model.
    pub model: String,
    /// Successful requests.
    pub requests: i64,
    /// Embedded texts.
    pub texts: i64,
    /// Texts that came from the cache.
    pub cached_texts: i64,
    /// Tokens of all texts.
    pub tokens: i64,
    /// Tokens that the vendor charged for.
    pub billed_tokens: i64,
    /// Cost of the charged tokens in billionths of a dollar.
    pub cost_nanodollars: i64,
}

pub(super) fn read(path: &Path, filter: &UsageFilter) -> Result<Vec<UsageRow>, String> {
    rows(path, filter).map_err(|error| format!("{}: {error}", path.display()))
}

fn rows(path: &Path, filter: &UsageFilter) -> rusqlite::Result<Vec<UsageRow>> {
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

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<UsageRow> {
    Ok(UsageRow {
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
