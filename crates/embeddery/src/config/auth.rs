//! The section `auth`: how callers authenticate. Settings of the mode that is not chosen are not checked.

use std::{net::SocketAddr, path::PathBuf};

use embeddery_accounts::auth::{KeyConfig, TokenAlgorithm, TokenConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{reader::SettingReader, units::filled};

/// The section `auth`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthSection {
    mode: Mode,
    api_key: Option<SecretString>,
    secret: Option<SecretString>,
    previous_secret: Option<SecretString>,
    public_key: Option<String>,
    /// Read in the mode that has tokens only.
    algorithm: String,
    issuer: String,
    audience: String,
    leeway_seconds: u64,
    admin_role: String,
    #[serde(deserialize_with = "filled")]
    public_key_file: Option<String>,
    #[serde(deserialize_with = "filled")]
    jwks_file: Option<PathBuf>,
    #[serde(deserialize_with = "filled")]
    revoked_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    SingleUser,
    MultiUser,
}

/// How callers authenticate.
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

/// The minimum length of a key when the service listens beyond loopback.
const MIN_KEY_CHARACTERS: usize = 16;
/// The minimum length of a secret that signs tokens.
const MIN_SECRET_CHARACTERS: usize = 32;

/// Checks the section. `listen` decides how good a key must be.
pub(super) fn resolve(reader: &mut SettingReader, auth: AuthSection, listen: SocketAddr) -> AuthConfig {
    match auth.mode {
        Mode::SingleUser => AuthConfig::SingleUser(api_key(reader, auth.api_key, listen)),
        Mode::MultiUser => multi_user(reader, auth),
    }
}

fn api_key(
    reader: &mut SettingReader,
    key: Option<SecretString>,
    listen: SocketAddr,
) -> Option<SecretString> {
    let key = key.map(|key| key.expose_secret().trim().to_owned());
    let exposed = !listen.ip().is_loopback();
    match &key {
        None if exposed => reader.problem(format!(
            "SINGLE_USER_API_KEY: is required to listen on {listen}; set {MIN_KEY_CHARACTERS} characters or more, or listen on 127.0.0.1"
        )),
        Some(key) if exposed && key.chars().count() < MIN_KEY_CHARACTERS => reader.problem(format!(
            "SINGLE_USER_API_KEY: has {} characters; {MIN_KEY_CHARACTERS} or more are required to listen on {listen}",
            key.chars().count()
        )),
        Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => reader.problem(
            "SINGLE_USER_API_KEY: holds a space or a character outside ASCII, which a header cannot carry",
        ),
        _ => {}
    }
    key.map(SecretString::from)
}

fn multi_user(reader: &mut SettingReader, auth: AuthSection) -> AuthConfig {
    let name = &auth.algorithm;
    let algorithm = TokenAlgorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
    if algorithm.is_none() {
        reader.problem_at("auth.algorithm", format_args!("'{name}' is unknown; write HS256, RS256 or ES256"));
    }
    let mut secret = None;
    let keys = match (algorithm, auth.jwks_file) {
        (None | Some(TokenAlgorithm::Hs256), _) => {
            let secrets = secrets(reader, [auth.secret, auth.previous_secret]);
            secret = secrets.first().cloned();
            KeyConfig::Secrets(secrets)
        }
        (Some(_), Some(path)) => KeyConfig::Jwks(path),
        (Some(algorithm), None) => {
            let text = match auth.public_key {
                // A compose file cannot hold line ends; many write them as \n.
                Some(text) => text.replace("\\n", "\n"),
                None => public_key_of_file(reader, algorithm, auth.public_key_file),
            };
            KeyConfig::Pem { algorithm, text }
        }
    };
    let list = |text: &str| {
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    if auth.leeway_seconds > 600 {
        reader.problem_at("auth.leeway_seconds", "must be 600 or less; set the clocks instead");
    }
    if auth.admin_role.is_empty() {
        reader.problem_at("auth.admin_role", "must not be empty; write admin");
    }
    let tokens = TokenConfig {
        keys,
        issuers: list(&auth.issuer),
        audiences: list(&auth.audience),
        leeway: auth.leeway_seconds,
        admin_role: auth.admin_role,
        revoked: auth.revoked_file,
    };
    AuthConfig::MultiUser(MultiUser { tokens, secret })
}

/// JWT_SECRET_KEY, and JWT_SECONDARY_SECRET, the secret before it, while tokens signed with that are valid.
fn secrets(reader: &mut SettingReader, [secret, previous]: [Option<SecretString>; 2]) -> Vec<SecretString> {
    if secret.is_none() {
        reader.problem(format!(
            "JWT_SECRET_KEY: is required in multi_user; set {MIN_SECRET_CHARACTERS} characters or more, for example from `openssl rand -hex 32`"
        ));
    }
    let mut secrets = Vec::new();
    for (variable, secret) in [("JWT_SECRET_KEY", secret), ("JWT_SECONDARY_SECRET", previous)] {
        let Some(secret) = secret else { continue };
        let characters = secret.expose_secret().chars().count();
        if characters < MIN_SECRET_CHARACTERS {
            reader.problem(format!(
                "{variable}: has {characters} characters; {MIN_SECRET_CHARACTERS} or more are required, for example from `openssl rand -hex 32`"
            ));
        } else {
            secrets.push(secret);
        }
    }
    secrets
}

fn public_key_of_file(reader: &mut SettingReader, algorithm: TokenAlgorithm, path: Option<String>) -> String {
    let Some(path) = path else {
        reader.problem(format!(
            "JWT_PUBLIC_KEY_FILE: is required for {}; name a PEM file, or a JWKS file with JWT_JWKS_FILE",
            algorithm.as_str()
        ));
        return String::new();
    };
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        reader.problem_at("auth.public_key_file", format_args!("{path} cannot be read: {error}"));
        String::new()
    })
}
