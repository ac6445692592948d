//! Authentication and authorisation. A handler that takes a [`Caller`] or an [`Admin`] runs only if the request has a
//! valid key or token. A test checks every route of the OpenAPI document.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use embeddery_accounts::{
    AuditEvent, AuthError, Identity, Role,
    limit::{RateLimitError, RateLimitKey, RateLimitKind},
};

use crate::{
    App,
    access_log::RequestRecord,
    audit::{AdminAction, AuditContext},
    error::ApiError,
    response_extras::ResponseExtras,
};

/// An authenticated caller.
pub(crate) struct Caller {
    /// The user: the owner of the data, and the account that limits apply to.
    pub(crate) identity: Identity,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let identified = credential(&parts.headers).and_then(|sent| app.accounts.auth.identify(sent));
        match identified {
            Ok(identity) => {
                if let Some(record) = parts.extensions.get::<RequestRecord>() {
                    record.set_user(&identity.user);
                }
                Ok(Self { identity })
            }
            Err(error) => Err(reject(parts, app, error).await),
        }
    }
}

/// An administrator. The audit log has the action before the handler runs.
pub(crate) struct Admin(Arc<AdminAction>);

impl Admin {
    /// Records in the audit log which fields of which subject are about to be changed.
    pub(crate) fn record_change(&self, app: &App, subject: &str, changed: &str) {
        let event =
            AuditEvent { subject: Some(subject), changed: Some(changed), ..self.0.event("admin_change") };
        app.accounts.audit.record(&event);
    }
}

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Caller { identity } = Caller::from_request_parts(parts, app).await?;
        let context = AuditContext::from_parts(parts, app);
        if identity.role != Role::Admin {
            app.accounts.audit.record(&context.event("admin_refused", Some(identity.user.as_str())));
            return Err(ApiError::not_admin());
        }
        let action = Arc::new(AdminAction::new(identity.user, context));
        app.accounts.audit.record(&action.event("admin_action"));
        // The layer around the handler records the status. If the administrator disconnects, only the first event is
        // recorded.
        if let Some(extras) = parts.extensions.get::<ResponseExtras>() {
            extras.set_admin_action(Arc::clone(&action));
        }
        Ok(Self(action))
    }
}

/// A caller that may read the metrics: any caller, or an authenticated one if `metrics_auth` is on.
pub(crate) struct MetricsReader;

impl FromRequestParts<Arc<App>> for MetricsReader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if app.settings.metrics_auth {
            Caller::from_request_parts(parts, app).await?;
        }
        Ok(Self)
    }
}

/// The error for a missing or invalid key or token; all invalid ones get the same error. With rate limits, an address
/// that sends too many invalid keys gets a 429 for them. Valid keys from that address still work, so that one caller
/// cannot lock out others behind the same address.
async fn reject(parts: &Parts, app: &App, error: AuthError) -> ApiError {
    let context = AuditContext::from_parts(parts, app);
    if let Some(address) = context.address {
        let limited =
            app.accounts.limiter.take(RateLimitKind::Failures, &RateLimitKey::address(address), 1).await;
        if let Err(RateLimitError::Wait { wait, .. }) = limited {
            return ApiError::too_many_failures(wait);
        }
    }
    let mut event = context.event("login_refused", None);
    event.reason = Some(match error {
        AuthError::Missing => "nothing sent",
        AuthError::Bad(reason) => reason,
    });
    app.accounts.audit.record(&event);
    match (error, app.accounts.auth.is_multi_user()) {
        (AuthError::Missing, false) => ApiError::missing_key(),
        (AuthError::Bad(_), false) => ApiError::wrong_key(),
        (AuthError::Missing, true) => ApiError::missing_token(),
        (AuthError::Bad(_), true) => ApiError::bad_token(),
    }
}

/// The value of `X-API-KEY`, or else the bearer token, which OpenAI's clients send. A header that occurs twice is an
/// error, because a proxy in front might check the other value.
fn credential(headers: &HeaderMap) -> Result<Option<&[u8]>, AuthError> {
    let is_repeated = |name| headers.get_all(name).iter().nth(1).is_some();
    if is_repeated("x-api-key") || is_repeated(AUTHORIZATION.as_str()) {
        return Err(AuthError::Bad("two keys sent"));
    }
    if let Some(key) = headers.get("x-api-key") {
        return Ok(Some(key.as_bytes().trim_ascii()));
    }
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
    Ok(bearer
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, token)| token.trim_ascii()))
}
