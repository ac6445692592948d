//! Who may ask. A handler that takes a [`Caller`] runs only for one who sent the key; a test walks the OpenAPI
//! document and proves which handlers do.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use secrecy::ExposeSecret as _;

use crate::{App, error::ApiError};

/// Somebody who sent the key.
pub(crate) struct Caller {
    /// Whose data and limits apply; in single_user mode there is one user, `1`.
    pub(crate) tenant: Arc<str>,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        check(&parts.headers, app)?;
        Ok(Self { tenant: "1".into() })
    }
}

/// Somebody who may read the metrics: anybody, unless `metrics_auth` is on.
pub(crate) struct MetricsReader;

impl FromRequestParts<Arc<App>> for MetricsReader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if app.settings.metrics_auth {
            check(&parts.headers, app)?;
        }
        Ok(Self)
    }
}

fn check(headers: &HeaderMap, app: &App) -> Result<(), ApiError> {
    let Some(wanted) = &app.settings.api_key else { return Ok(()) };
    let sent = sent_key(headers).ok_or_else(ApiError::missing_key)?;
    // Hashes are of one length and compared in constant time, so that neither the key's length nor a common
    // beginning can be measured.
    if blake3::hash(sent) == blake3::hash(wanted.expose_secret().as_bytes()) {
        Ok(())
    } else {
        Err(ApiError::wrong_key())
    }
}

/// `X-API-KEY`, else the bearer token that OpenAI's clients send.
fn sent_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes().trim_ascii());
    }
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
