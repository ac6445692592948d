//! Quotas and usage as they are written.

use std::borrow::Cow;

use embeddery_accounts::{
    Limiter,
    ledger::{Quotas, UsageRow, UsageSnapshot},
    limit::Standing,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What a user may have, and what they have.
#[derive(Serialize, ToSchema)]
pub(crate) struct QuotasAnswer {
    /// Whose.
    user: String,
    /// Requests a second; 0: not limited.
    limit_rps: f64,
    /// Requests that may come at once, now; `null`: not limited.
    remaining: Option<u32>,
    /// Requests that may come at once after a pause; `null`: not limited.
    burst: Option<u32>,
    /// Tokens a minute.
    tokens_per_minute: Share,
    /// Tokens of today, in UTC.
    tokens_per_day: Share,
    /// Tokens of requests under way, set aside from today's.
    tokens_reserved: u64,
    /// Vectors in collections.
    stored_vectors: Share,
    /// Jobs that are not finished.
    concurrent_jobs: Share,
}

/// A limit and where one stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Share {
    /// `null`: not limited.
    limit: Option<u64>,
    /// What is used; `null` where nobody counts, because nothing is limited.
    used: Option<u64>,
    /// What is left; `null`: not limited.
    remaining: Option<u64>,
}

impl Share {
    fn counted(limit: Option<u64>, used: u64) -> Self {
        Self { limit, used: Some(used), remaining: limit.map(|limit| limit.saturating_sub(used)) }
    }

    fn standing(standing: Option<Standing>) -> Self {
        let share = standing.map(|standing| (u64::from(standing.limit), u64::from(standing.remaining)));
        Self {
            limit: share.map(|(limit, _)| limit),
            used: share.map(|(limit, left)| limit.saturating_sub(left)),
            remaining: share.map(|(_, left)| left),
        }
    }
}

/// Where a user stands with rates: requests, tokens.
pub(crate) struct Standings(pub(crate) Option<Standing>, pub(crate) Option<Standing>);

impl QuotasAnswer {
    pub(crate) fn new(
        user: &str,
        (limiter, standings): (&Limiter, Standings),
        (quotas, used): (Quotas, UsageSnapshot),
    ) -> Self {
        let Standings(requests, tokens) = standings;
        let rate = limiter.rates().requests;
        let today = used.tokens_today;
        let mut tokens_per_day = Share::counted(quotas.tokens_per_day, today);
        tokens_per_day.remaining =
            tokens_per_day.remaining.map(|left| left.saturating_sub(used.tokens_reserved));
        Self {
            user: user.to_owned(),
            limit_rps: rate.map_or(0.0, |rate| rate.a_second()),
            remaining: requests.map(|standing| standing.remaining),
            burst: rate.map(|rate| rate.burst),
            tokens_per_minute: Share::standing(tokens),
            tokens_per_day,
            tokens_reserved: used.tokens_reserved,
            stored_vectors: Share::counted(quotas.stored_vectors, used.stored_vectors),
            concurrent_jobs: Share::counted(quotas.concurrent_jobs, used.jobs),
        }
    }
}

/// Which usage.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageQuery {
    /// Of this user; for admins. Without it an admin reads all users, anybody else their own.
    pub(crate) user: Option<String>,
    /// From this day of UTC on, as 2026-11-25.
    pub(crate) from: Option<String>,
    /// Up to this day.
    pub(crate) to: Option<String>,
    /// `json` or `csv`; without it as `Accept` says.
    pub(crate) format: Option<String>,
}

/// What was used.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsageAnswer {
    /// `list`
    object: &'static str,
    /// One entry for each day, user, provider and model, the newest day first.
    data: Vec<UsageEntry>,
    /// All entries together.
    total: UsageTotal,
    /// Whether there are more entries than were read; ask for fewer days.
    truncated: bool,
}

/// What one user took of one model on one day.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsageEntry {
    /// Of UTC.
    day: String,
    user: String,
    provider: String,
    /// The provider's name for the model.
    model: String,
    #[serde(flatten)]
    counts: UsageTotal,
}

/// Counts of answered requests.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct UsageTotal {
    requests: i64,
    texts: i64,
    /// Texts that came from the cache.
    cached_texts: i64,
    /// Tokens the models read, cached texts too.
    tokens: i64,
    /// Tokens that vendors charged for.
    billed_tokens: i64,
    /// Their cost in US dollars, by the price list.
    cost_usd: f64,
    #[serde(skip)]
    nanodollars: i64,
}

/// Entries in one answer.
pub(crate) const MOST_ENTRIES: usize = 10_000;

impl UsageAnswer {
    pub(crate) fn new(mut rows: Vec<UsageRow>) -> Self {
        let truncated = rows.len() > MOST_ENTRIES;
        rows.truncate(MOST_ENTRIES);
        let mut total = UsageTotal::default();
        let data: Vec<UsageEntry> = rows
            .into_iter()
            .map(|row| {
                let counts = UsageTotal::of(&row);
                total.add(counts);
                UsageEntry { day: row.day, user: row.user, provider: row.provider, model: row.model, counts }
            })
            .collect();
        Self { object: "list", data, total, truncated }
    }

    /// The same for spreadsheets.
    pub(crate) fn csv(&self) -> String {
        let mut text = String::from(
            "day,user,provider,model,requests,texts,cached_texts,tokens,billed_tokens,cost_usd\r\n",
        );
        for UsageEntry { day, user, provider, model, counts } in &self.data {
            let names = [day, user, provider, model].map(|name| cell(name));
            let UsageTotal { requests, texts, cached_texts, tokens, billed_tokens, cost_usd, .. } = counts;
            let line = format!(
                "{},{requests},{texts},{cached_texts},{tokens},{billed_tokens},{cost_usd}\r\n",
                names.join(",")
            );
            text.push_str(&line);
        }
        text
    }
}

impl UsageTotal {
    fn of(row: &UsageRow) -> Self {
        Self {
            requests: row.requests,
            texts: row.texts,
            cached_texts: row.cached_texts,
            tokens: row.tokens,
            billed_tokens: row.billed_tokens,
            cost_usd: dollars(row.cost_nanodollars),
            nanodollars: row.cost_nanodollars,
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.texts += other.texts;
        self.cached_texts += other.cached_texts;
        self.tokens += other.tokens;
        self.billed_tokens += other.billed_tokens;
        self.nanodollars += other.nanodollars;
        self.cost_usd = dollars(self.nanodollars);
    }
}

fn dollars(nanodollars: i64) -> f64 {
    nanodollars as f64 / 1e9
}

/// A cell that neither breaks the line nor becomes a formula: a user may be called `=cmd()`, and a spreadsheet
/// would obey.
fn cell(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !formula && !text.contains(['"', ',', '\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let guard = if formula { "'" } else { "" };
    Cow::Owned(format!("\"{guard}{}\"", text.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_text_whatever_a_user_is_called() {
        assert_eq!(cell("ann"), "ann");
        assert_eq!(cell("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(cell("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        assert_eq!(cell("@x"), "\"'@x\"");
    }
}
