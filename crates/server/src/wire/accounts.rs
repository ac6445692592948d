//! Quotas and usage in responses.

use std::borrow::Cow;

use embeddery_accounts::{
    Limiter,
    ledger::{Quotas, UsageRow, UsageSnapshot},
    limit::RateLimitStatus,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The limits of a user, and what is used of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct QuotasResponse {
    /// The user of the limits.
    user: String,
    /// Requests a second; 0: not limited.
    limit_rps: f64,
    /// Requests left of the burst; `null`: not limited.
    remaining: Option<u32>,
    /// The maximum burst of requests; `null`: not limited.
    burst: Option<u32>,
    /// Tokens a minute.
    tokens_per_minute: QuotaView,
    /// Tokens of today, in UTC.
    tokens_per_day: QuotaView,
    /// Tokens reserved for requests in progress, of today's.
    tokens_reserved: u64,
    /// Vectors in collections.
    stored_vectors: QuotaView,
    /// Jobs that are not finished.
    concurrent_jobs: QuotaView,
}

/// A limit, and what is used of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct QuotaView {
    /// `null`: not limited.
    limit: Option<u64>,
    /// What is used; `null` where nothing is counted, because nothing is limited.
    used: Option<u64>,
    /// What is left; `null`: not limited.
    remaining: Option<u64>,
}

impl QuotaView {
    fn counted(limit: Option<u64>, used: u64) -> Self {
        Self { limit, used: Some(used), remaining: limit.map(|limit| limit.saturating_sub(used)) }
    }

    fn for_rate_limit(status: Option<RateLimitStatus>) -> Self {
        let view = status.map(|status| (u64::from(status.limit), u64::from(status.remaining)));
        Self {
            limit: view.map(|(limit, _)| limit),
            used: view.map(|(limit, left)| limit.saturating_sub(left)),
            remaining: view.map(|(_, left)| left),
        }
    }
}

/// Everything that a response on quotas is made of.
pub(crate) struct QuotaState<'a> {
    pub(crate) user: &'a str,
    pub(crate) limiter: &'a Limiter,
    /// The rate limit of requests.
    pub(crate) requests: Option<RateLimitStatus>,
    /// The rate limit of tokens.
    pub(crate) tokens: Option<RateLimitStatus>,
    pub(crate) quotas: Quotas,
    pub(crate) used: UsageSnapshot,
}

impl From<QuotaState<'_>> for QuotasResponse {
    fn from(state: QuotaState<'_>) -> Self {
        let QuotaState { user, limiter, requests, tokens, quotas, used } = state;
        let rate = limiter.rates().requests;
        let today = used.tokens_today;
        let mut tokens_per_day = QuotaView::counted(quotas.tokens_per_day, today);
        tokens_per_day.remaining =
            tokens_per_day.remaining.map(|left| left.saturating_sub(used.tokens_reserved));
        Self {
            user: user.to_owned(),
            limit_rps: rate.map_or(0.0, |rate| rate.per_second_value()),
            remaining: requests.map(|status| status.remaining),
            burst: rate.map(|rate| rate.burst),
            tokens_per_minute: QuotaView::for_rate_limit(tokens),
            tokens_per_day,
            tokens_reserved: used.tokens_reserved,
            stored_vectors: QuotaView::counted(quotas.stored_vectors, used.stored_vectors),
            concurrent_jobs: QuotaView::counted(quotas.concurrent_jobs, used.jobs),
        }
    }
}

/// Which usage to report.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageQuery {
    /// The user; for admins. Without it an admin gets all users, other callers their own usage.
    pub(crate) user: Option<String>,
    /// The first day, in UTC, as 2026-11-25.
    pub(crate) from: Option<String>,
    /// The last day.
    pub(crate) to: Option<String>,
    /// `json` or `csv`; without it the header `Accept` decides.
    pub(crate) format: Option<String>,
}

/// The usage.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsageResponse {
    /// `list`
    object: &'static str,
    /// One entry for each day, user, provider and model, the newest day first.
    data: Vec<UsageEntry>,
    /// All entries together.
    total: UsageTotal,
    /// Whether there are more entries; request fewer days.
    truncated: bool,
}

/// The usage of one model by one user on one day.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsageEntry {
    /// In UTC.
    day: String,
    user: String,
    provider: String,
    /// The provider's name for the model.
    model: String,
    #[serde(flatten)]
    counts: UsageTotal,
}

/// Counts of successful requests.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct UsageTotal {
    requests: i64,
    texts: i64,
    /// Texts that came from the cache.
    cached_texts: i64,
    /// Tokens of all texts, cached ones included.
    tokens: i64,
    /// Tokens that vendors charged for.
    billed_tokens: i64,
    /// Their cost in US dollars, by the price list.
    cost_usd: f64,
    #[serde(skip)]
    nanodollars: i64,
}

/// Maximum number of entries in one response.
pub(crate) const MAX_ENTRIES: usize = 10_000;

impl UsageResponse {
    pub(crate) fn new(mut rows: Vec<UsageRow>) -> Self {
        let truncated = rows.len() > MAX_ENTRIES;
        rows.truncate(MAX_ENTRIES);
        let mut total = UsageTotal::default();
        let data: Vec<UsageEntry> = rows
            .into_iter()
            .map(|row| {
                let counts = UsageTotal::from(&row);
                total.add(counts);
                UsageEntry { day: row.day, user: row.user, provider: row.provider, model: row.model, counts }
            })
            .collect();
        Self { object: "list", data, total, truncated }
    }

    /// The usage as CSV.
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

impl From<&UsageRow> for UsageTotal {
    fn from(row: &UsageRow) -> Self {
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
}

impl UsageTotal {
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

/// A cell that neither breaks the line nor becomes a formula: a user may be called `=cmd()`, and a spreadsheet would
/// execute it.
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
