//! Who may ask, how much, and what is kept of it: the sections `auth`, `limits`, `quotas`, `usage`, `audit`,
//! and the parts of `server` that concern strangers.

use std::{net::SocketAddr, path::PathBuf};

use embeddery_accounts::{
    auth::{Algorithm, KeyConfig, TokenConfig},
    ledger::Quotas,
    limit::{Rate, Rates},
};
use embeddery_server::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::resolve::Found;

/// The section `auth` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Auth {
    pub mode: Option<String>,
    pub algorithm: Option<String>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway_seconds: Option<u64>,
    pub admin_role: Option<String>,
    pub public_key_file: Option<String>,
    pub jwks_file: Option<String>,
    pub revoked_file: Option<String>,
}

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

/// The section `tls` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub certificate_file: Option<String>,
    pub key_file: Option<String>,
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

/// How callers prove who they are.
pub(crate) enum AuthConfig {
    /// One key; `None`: one is generated.
    SingleUser(Option<SecretString>),
    /// Tokens.
    MultiUser(MultiUser),
}

/// Tokens: what a good one is, and what signs new ones.
pub(crate) struct MultiUser {
    /// What a good token is.
    pub(crate) tokens: TokenConfig,
    /// The secret that `embeddery token issue` signs with, when there is one.
    pub(crate) secret: Option<SecretString>,
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

/// The least length of a key that strangers can try.
const KEY_CHARACTERS: usize = 16;
/// The least length of a secret that signs tokens.
const SECRET_CHARACTERS: usize = 32;

/// Reads the sections. `listen` decides how good a key must be.
pub(super) fn resolve(
    found: &mut Found<'_>,
    (written, defaults): (Sections, Sections),
    listen: SocketAddr,
) -> AccountsSettings {
    let auth = auth(found, (written.auth, defaults.auth), listen);
    let rates = rates(found, written.limits, defaults.limits);
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
        tls: tls(found, written.tls),
    }
}

fn auth(found: &mut Found<'_>, (written, defaults): (Auth, Auth), listen: SocketAddr) -> AuthConfig {
    let mode = found.text(&["AUTH_MODE"], "auth.mode", [written.mode.clone(), None, defaults.mode.clone()]);
    match mode.as_str() {
        // Settings of the other mode are not looked at.
        "single_user" => AuthConfig::SingleUser(api_key(found, listen)),
        "multi_user" => multi_user(found, written, defaults),
        other => {
            found.problem(format!("AUTH_MODE: '{other}' is unknown; write single_user or multi_user"));
            AuthConfig::SingleUser(None)
        }
    }
}

fn api_key(found: &mut Found<'_>, listen: SocketAddr) -> Option<SecretString> {
    let key =
        found.environment.first(&["SINGLE_USER_API_KEY", "API_KEY"]).map(|(_, key)| key.trim().to_owned());
    let exposed = !listen.ip().is_loopback();
    match &key {
        None if exposed => found.problem(format!(
            "SINGLE_USER_API_KEY: is required to listen on {listen}; set {KEY_CHARACTERS} characters or more, or listen on 127.0.0.1"
        )),
        Some(key) if exposed && key.chars().count() < KEY_CHARACTERS => found.problem(format!(
            "SINGLE_USER_API_KEY: has {} characters; {KEY_CHARACTERS} or more are required to listen on {listen}",
            key.chars().count()
        )),
        Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => found.problem(
            "SINGLE_USER_API_KEY: holds a space or a character outside ASCII, which a header cannot carry".into(),
        ),
        _ => {}
    }
    key.map(SecretString::from)
}

fn multi_user(found: &mut Found<'_>, written: Auth, defaults: Auth) -> AuthConfig {
    let name =
        found.text(&["JWT_ALGORITHM"], "auth.algorithm", [written.algorithm, None, defaults.algorithm]);
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
    if algorithm.is_none() {
        found.problem(format!("JWT_ALGORITHM: '{name}' is unknown; write HS256, RS256 or ES256"));
    }
    let file = |found: &Found<'_>, variable, written: Option<String>| {
        found.environment.get(variable).map(str::to_owned).or(written).filter(|path| !path.is_empty())
    };
    let (public_key, jwks) = (
        file(found, "JWT_PUBLIC_KEY_FILE", written.public_key_file),
        file(found, "JWT_JWKS_FILE", written.jwks_file),
    );
    let mut secret = None;
    let keys = if algorithm.is_none_or(|algorithm| algorithm == Algorithm::Hs256) {
        let secrets = secrets(found);
        secret = secrets.first().cloned();
        KeyConfig::Secrets(secrets)
    } else if let Some(path) = jwks {
        KeyConfig::Jwks(path.into())
    } else {
        let text = public_key_text(found, &name, public_key);
        KeyConfig::Pem { algorithm: algorithm.unwrap_or(Algorithm::Rs256), text }
    };
    let list = |variable, written: Option<String>| {
        let text = found.environment.get(variable).map(str::to_owned).or(written).unwrap_or_default();
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let tokens = TokenConfig {
        keys,
        issuers: list("JWT_ISSUER", written.issuer),
        audiences: list("JWT_AUDIENCE", written.audience),
        leeway: written.leeway_seconds.or(defaults.leeway_seconds).unwrap_or_default(),
        admin_role: written.admin_role.or(defaults.admin_role).unwrap_or_default(),
        revoked: file(found, "JWT_REVOKED_FILE", written.revoked_file).map(Into::into),
    };
    if tokens.leeway > 600 {
        found.problem("auth.leeway_seconds: must be 600 or less; set the clocks instead".into());
    }
    if tokens.admin_role.is_empty() {
        found.problem("auth.admin_role: must not be empty; write admin".into());
    }
    AuthConfig::MultiUser(MultiUser { tokens, secret })
}

/// JWT_SECRET_KEY, and JWT_SECONDARY_SECRET while tokens of the one before are about.
fn secrets(found: &mut Found<'_>) -> Vec<SecretString> {
    let mut secrets = Vec::new();
    for (variable, required) in [("JWT_SECRET_KEY", true), ("JWT_SECONDARY_SECRET", false)] {
        match found.environment.get(variable).map(|secret| SecretString::from(secret.to_owned())) {
            Some(secret) if secret.expose_secret().chars().count() < SECRET_CHARACTERS => {
                found.problem(format!(
                    "{variable}: has {} characters; {SECRET_CHARACTERS} or more are required, for example from `openssl rand -hex 32`",
                    secret.expose_secret().chars().count()
                ));
            }
            Some(secret) => secrets.push(secret),
            None if required => found.problem(format!(
                "{variable}: is required in multi_user; set {SECRET_CHARACTERS} characters or more, for example from `openssl rand -hex 32`"
            )),
            None => {}
        }
    }
    secrets
}

fn public_key_text(found: &mut Found<'_>, algorithm: &str, path: Option<String>) -> String {
    if let Some(text) = found.environment.get("JWT_PUBLIC_KEY") {
        // A compose file cannot hold line ends; many write them as \n.
        return text.replace("\\n", "\n");
    }
    let Some(path) = path else {
        found.problem(format!(
            "JWT_PUBLIC_KEY_FILE: is required for {algorithm}; name a PEM file, or a JWKS file with JWT_JWKS_FILE"
        ));
        return String::new();
    };
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        found.problem(format!("JWT_PUBLIC_KEY_FILE: {path} cannot be read: {error}"));
        String::new()
    })
}

fn rates(found: &mut Found<'_>, written: Limits, defaults: Limits) -> Rates {
    let enabled = found.switch("EMBEDDINGS_RATE_LIMIT").or(written.enabled).or(defaults.enabled);
    let per_second = written.requests_per_second.or(defaults.requests_per_second).unwrap_or_default();
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
    if enabled == Some(true) { Rates { requests, tokens, failures } } else { Rates::default() }
}

fn tls(found: &mut Found<'_>, written: Tls) -> Option<(PathBuf, PathBuf)> {
    let file = |variable, written: Option<String>| {
        found.environment.get(variable).map(str::to_owned).or(written).filter(|path| !path.is_empty())
    };
    let certificate = file("EMBEDDINGS_TLS_CERT_FILE", written.certificate_file);
    let key = file("EMBEDDINGS_TLS_KEY_FILE", written.key_file);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => {
            found.problem(
                "tls.certificate_file and tls.key_file: one is set without the other; set both or none"
                    .into(),
            );
            None
        }
    }
}

/// The proxies whose word is taken for where a request comes from.
pub(super) fn trusted_proxies(found: &mut Found<'_>, written: Option<Vec<String>>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in written.unwrap_or_default() {
        let network = text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        match network {
            Some(network) => networks.push(network),
            None => found.problem(format!(
                "server.trusted_proxies: '{text}' is neither an address nor a network; write 10.0.0.7 or 10.0.0.0/8"
            )),
        }
    }
    networks
}

/// The origins whose pages may call the API.
pub(super) fn cors_origins(found: &mut Found<'_>, written: Option<Vec<String>>) -> Vec<String> {
    let origins = written.unwrap_or_default();
    for origin in &origins {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let good = host.is_some_and(|host| {
            !host.is_empty() && !host.contains('/') && host.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if origin != "*" && !good {
            found.problem(format!(
                "server.cors_origins: '{origin}' is no origin; write https://app.example.com, without a path"
            ));
        }
    }
    origins
}
