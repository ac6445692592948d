//! The section `auth`: who may ask. Settings of the other mode are not looked at.

use std::net::SocketAddr;

use embeddery_accounts::auth::{KeyConfig, TokenAlgorithm, TokenConfig};
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

/// The least length of a key that strangers can try.
const KEY_CHARACTERS: usize = 16;
/// The least length of a secret that signs tokens.
const SECRET_CHARACTERS: usize = 32;

/// Reads the section. `listen` decides how good a key must be.
pub(super) fn resolve(
    found: &mut Found<'_>,
    (written, defaults): (Auth, Auth),
    listen: SocketAddr,
) -> AuthConfig {
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
    let algorithm = TokenAlgorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
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
    let keys = if algorithm.is_none_or(|algorithm| algorithm == TokenAlgorithm::Hs256) {
        let secrets = secrets(found);
        secret = secrets.first().cloned();
        KeyConfig::Secrets(secrets)
    } else if let Some(path) = jwks {
        KeyConfig::Jwks(path.into())
    } else {
        let text = public_key_text(found, &name, public_key);
        KeyConfig::Pem { algorithm: algorithm.unwrap_or(TokenAlgorithm::Rs256), text }
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
