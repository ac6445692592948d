//! How much a caller may, and what is kept of it: the sections `limits`, `quotas`, `usage`, `audit`; with `auth`
//! and `tls`, which have files of their own, all that makes accounts.

use std::{net::SocketAddr, path::PathBuf};

use embeddery_accounts::{
    ledger::Quotas,
    limit::{Rate, Rates},
};
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    auth::{self, Auth, AuthConfig},
    resolve::Found,
    strangers::{self, Tls},
};

/// The section `limits` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub enabled: Option<bool>,
    pub requests_per_second: Option<f64>,
    pub burst: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub failed_logins_per_minute: Option<u32>,
}

/// The section `quotas` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenQuotas {
    pub tokens_per_day: Option<u64>,
    pub stored_vectors: Option<u64>,
    pub concurrent_jobs: Option<u64>,
}

/// The section `usage` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Usage {
    pub retention_days: Option<u32>,
}

/// The section `audit` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audit {
    pub max_bytes: Option<u64>,
    pub keep_files: Option<u32>,
}

/// All of these sections.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub auth: Auth,
    pub limits: Limits,
    pub quotas: WrittenQuotas,
    pub usage: Usage,
    pub audit: Audit,
    pub tls: Tls,
}

/// Everything about accounts, checked.
pub(crate) struct AccountsSettings {
    pub(crate) auth: AuthConfig,
    pub(crate) rates: Rates,
    pub(crate) quotas: Quotas,
    pub(crate) retention_days: u32,
    pub(crate) audit_max_bytes: u64,
    pub(crate) audit_keep: u32,
    /// Where limits are shared across replicas.
    pub(crate) redis_url: Option<SecretString>,
    /// Certificate and key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
}

/// Reads the sections. `listen` decides how good a key must be.
pub(super) fn resolve(
    found: &mut Found<'_>,
    (written, defaults): (Sections, Sections),
    listen: SocketAddr,
) -> AccountsSettings {
    let auth = auth::resolve(found, (written.auth, defaults.auth), listen);
    let rates = rates(found, &written.limits, &defaults.limits);
    let quota = |written: Option<u64>, default: Option<u64>| written.or(default).filter(|limit| *limit > 0);
    let quotas = Quotas {
        tokens_per_day: quota(written.quotas.tokens_per_day, defaults.quotas.tokens_per_day),
        stored_vectors: quota(written.quotas.stored_vectors, defaults.quotas.stored_vectors),
        concurrent_jobs: quota(written.quotas.concurrent_jobs, defaults.quotas.concurrent_jobs),
    };
    let retention_days = written.usage.retention_days.or(defaults.usage.retention_days).unwrap_or_default();
    if retention_days == 0 {
        found.problem("usage.retention_days: must be above zero".into());
    }
    let audit_max_bytes = written.audit.max_bytes.or(defaults.audit.max_bytes).unwrap_or_default();
    if audit_max_bytes < 4096 {
        found.problem("audit.max_bytes: must be 4096 or more".into());
    }
    let redis_url = found
        .environment
        .first(&["EMBEDDINGS_REDIS_URL", "REDIS_URL"])
        .map(|(_, url)| SecretString::from(url.trim().to_owned()));
    AccountsSettings {
        auth,
        rates,
        quotas,
        retention_days,
        audit_max_bytes,
        audit_keep: written.audit.keep_files.or(defaults.audit.keep_files).unwrap_or_default(),
        redis_url,
        tls: strangers::tls(found, written.tls),
    }
}

fn rates(found: &mut Found<'_>, written: &Limits, defaults: &Limits) -> Rates {
    let enabled = found.switch("EMBEDDINGS_RATE_LIMIT").or(written.enabled).or(defaults.enabled);
    let per_second = written.requests_per_second.or(defaults.requests_per_second).unwrap_or_default();
    // The replaced service's variable: a rate, and with it the wish to have one.
    let tenant = found.environment.get("EMBEDDINGS_TENANT_RPS").map(str::to_owned);
    let (enabled, per_second) = match tenant.as_deref().map(str::parse::<f64>) {
        None | Some(Ok(0.0)) => (enabled, per_second),
        Some(Ok(rate)) => (found.switch("EMBEDDINGS_RATE_LIMIT").or(Some(true)), rate),
        Some(Err(_)) => {
            found.problem(
                "EMBEDDINGS_TENANT_RPS: is no number; write requests a second, for example 5".into(),
            );
            (enabled, per_second)
        }
    };
    let burst = written.burst.or(defaults.burst).unwrap_or_default();
    let requests = Rate::per_second(per_second, burst);
    if requests.is_none() {
        found.problem(
            "limits.requests_per_second and limits.burst: must be above zero; to turn limits off write limits.enabled: false".into(),
        );
    }
    let a_minute = |written: Option<u32>, default: Option<u32>| {
        written.or(default).filter(|amount| *amount > 0).and_then(Rate::per_minute)
    };
    let tokens = a_minute(written.tokens_per_minute, defaults.tokens_per_minute);
    let failures = a_minute(written.failed_logins_per_minute, defaults.failed_logins_per_minute);
    // Guessing is slowed down whether or not work is limited.
    if enabled == Some(true) {
        Rates { requests, tokens, failures }
    } else {
        Rates { failures, ..Rates::default() }
    }
}
