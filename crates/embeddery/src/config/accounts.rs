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
    auth::{self, AuthConfig, AuthSection},
    network::{self, TlsSection},
    reader::SettingReader,
    units::{Bytes, Positive},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    enabled: bool,
    requests_per_second: f64,
    /// The replaced service's variable. It sets the rate and turns the limits on.
    tenant_rps: Option<f64>,
    burst: u32,
    tokens_per_minute: u32,
    failed_logins_per_minute: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotasSection {
    tokens_per_day: u64,
    stored_vectors: u64,
    concurrent_jobs: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageSection {
    retention_days: Positive,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditSection {
    max_bytes: Bytes,
    keep_files: u32,
}

/// All sections about accounts.
#[derive(Deserialize)]
pub(super) struct AccountsSections {
    auth: AuthSection,
    limits: LimitsSection,
    quotas: QuotasSection,
    usage: UsageSection,
    audit: AuditSection,
    tls: TlsSection,
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

/// Checks the sections. `listen` decides how good a key must be.
pub(super) fn resolve(
    reader: &mut SettingReader,
    sections: AccountsSections,
    listen: SocketAddr,
    redis_url: Option<SecretString>,
) -> AccountsSettings {
    let AccountsSections { auth, limits, quotas, usage, audit, tls } = sections;
    let limit = |number: u64| (number > 0).then_some(number);
    if audit.max_bytes.0 < 4096 {
        reader.problem_at("audit.max_bytes", "must be 4096 or more");
    }
    AccountsSettings {
        auth: auth::resolve(reader, auth, listen),
        rates: rates(reader, &limits),
        quotas: Quotas {
            tokens_per_day: limit(quotas.tokens_per_day),
            stored_vectors: limit(quotas.stored_vectors),
            concurrent_jobs: limit(quotas.concurrent_jobs),
        },
        retention_days: usage.retention_days.get_u32(),
        audit_max_bytes: audit.max_bytes.0,
        audit_keep: audit.keep_files,
        redis_url,
        tls: network::tls(reader, tls),
    }
}

fn rates(reader: &mut SettingReader, limits: &LimitsSection) -> Rates {
    let (enabled, per_second) = match limits.tenant_rps {
        None | Some(0.0) => (limits.enabled, limits.requests_per_second),
        Some(rate) => (limits.enabled || !reader.is_from_variable("limits.enabled"), rate),
    };
    let requests = Rate::per_second(per_second, limits.burst);
    if requests.is_none() {
        reader.problem(
            "limits.requests_per_second and limits.burst: must be above zero; to turn limits off write limits.enabled: false",
        );
    }
    let per_minute = |amount: u32| (amount > 0).then(|| Rate::per_minute(amount)).flatten();
    let failures = per_minute(limits.failed_logins_per_minute);
    // Guessing is slowed down whether or not work is limited.
    if enabled {
        Rates { requests, tokens: per_minute(limits.tokens_per_minute), failures }
    } else {
        Rates { failures, ..Rates::default() }
    }
}
