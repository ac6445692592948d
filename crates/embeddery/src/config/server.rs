//! How the API treats requests, and what is logged.

use std::{net::SocketAddr, str::FromStr};

use embeddery_core::DimensionPolicy;
use embeddery_server::Settings;
use serde::Deserialize;

use super::{
    LogConfig,
    network::{Network, Origin},
    units::{Parsed, Positive, Seconds},
};

/// The section `server`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerSection {
    request_timeout_seconds: Seconds,
    body_timeout_seconds: Seconds,
    body_limit_bytes: Positive,
    text_limit_bytes: Positive,
    header_limit_bytes: Positive,
    max_inputs: Positive,
    pub(super) shutdown_grace_seconds: Seconds,
    metrics_auth: bool,
    max_connections: Positive,
    trusted_proxies: Vec<Parsed<Network>>,
    cors_origins: Vec<Parsed<Origin>>,
}

impl ServerSection {
    pub(super) fn settings(self, dimension_policy: DimensionPolicy) -> Settings {
        Settings {
            metrics_auth: self.metrics_auth,
            request_timeout: self.request_timeout_seconds.0,
            body_timeout: self.body_timeout_seconds.0,
            body_limit: self.body_limit_bytes.get(),
            text_limit: self.text_limit_bytes.get(),
            header_limit: self.header_limit_bytes.get(),
            max_inputs: self.max_inputs.get(),
            max_connections: self.max_connections.get(),
            trusted_proxies: self.trusted_proxies.into_iter().map(|network| network.0.0).collect(),
            cors_origins: self.cors_origins.into_iter().map(|origin| origin.0.0).collect(),
            tls: None,
            dimension_policy,
        }
    }
}

/// The names of the policies.
#[derive(Deserialize)]
#[serde(remote = "DimensionPolicy", rename_all = "lowercase")]
pub(super) enum DimensionPolicyName {
    Strict,
    Reduce,
    Pad,
    Ignore,
}

/// Where the API listens.
#[derive(Clone, Copy)]
pub(super) struct ListenAddress(pub(super) SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.replace("localhost:", "127.0.0.1:").parse().map(Self).map_err(|_| {
            format!("'{text}' is not ADDRESS:PORT; write for example 127.0.0.1:8000 or 0.0.0.0:8000")
        })
    }
}

/// The section `log`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogSection {
    level: Parsed<LogLevel>,
    format: LogFormat,
    /// The replaced service's switch; it beats `format`.
    json: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogFormat {
    Pretty,
    Json,
}

struct LogLevel(tracing::Level);

impl FromStr for LogLevel {
    type Err = String;

    /// Loguru's extra names are accepted, because the guide's users have them in their files.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text.to_ascii_uppercase().as_str() {
            "TRACE" => tracing::Level::TRACE,
            "DEBUG" => tracing::Level::DEBUG,
            "INFO" | "SUCCESS" => tracing::Level::INFO,
            "WARN" | "WARNING" => tracing::Level::WARN,
            "ERROR" | "CRITICAL" => tracing::Level::ERROR,
            _ => return Err(format!("'{text}' is unknown; write TRACE, DEBUG, INFO, WARNING or ERROR")),
        }))
    }
}

impl From<LogSection> for LogConfig {
    fn from(log: LogSection) -> Self {
        Self { level: log.level.0.0, json: log.json.unwrap_or(matches!(log.format, LogFormat::Json)) }
    }
}
