//! Who may ask. A handler that takes a [`Caller`] or an [`Admin`] runs only for one who sent a good key or
//! token, and cannot forget to ask; a test walks the OpenAPI document and proves what each route asks for.

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
    error::ApiError,
    metering::{AdminAction, AuditContext},
};

/// Somebody whose key or token is good.
pub(crate) struct Caller {
    /// Who they are; whose data and limits apply.
    pub(crate) identity: Identity,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let identified = sent_key(&parts.headers).and_then(|sent| app.accounts.auth.identify(sent));
        match identified {
            Ok(identity) => {
                if let Some(page) = parts.extensions.get::<RequestRecord>() {
                    page.asked_by(&identity.user);
                }
                Ok(Self { identity })
            }
            Err(refused) => Err(refuse(parts, app, refused).await),
        }
    }
}

/// Somebody who may do what concerns all. What they do is in the audit log before they do it.
pub(crate) struct Admin(Arc<AdminAction>);

impl Admin {
    /// Writes down what of what is about to be changed.
    pub(crate) fn changes(&self, app: &App, subject: &str, changed: &str) {
        let event =
            AuditEvent { subject: Some(subject), changed: Some(changed), ..self.0.event("admin_change") };
        app.accounts.audit.record(&event);
    }
}

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Caller { identity } = Caller::from_request_parts(parts, app).await?;
        let asking = AuditContext::of(parts, app);
        if identity.role != Role::Admin {
            app.accounts.audit.record(&asking.event("admin_refused", Some(identity.user.as_str())));
            return Err(ApiError::not_admin());
        }
        Ok(Self(asking.admin_acts(app, identity.user)))
    }
}

/// Somebody who may read the metrics: anybody, unless `metrics_auth` is on.
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

/// Every bad key and every bad token gets the same answer. Who guesses from one address is slowed down when
/// rates are limited; a good key from there still opens, so that nobody can lock a neighbour out.
async fn refuse(parts: &Parts, app: &App, refused: AuthError) -> ApiError {
    let asking = AuditContext::of(parts, app);
    if let Some(address) = asking.address {
        let failed =
            app.accounts.limiter.take(RateLimitKind::Failures, &RateLimitKey::address(address), 1).await;
        if let Err(RateLimitError::Wait { wait, .. }) = failed {
            return ApiError::too_many_failures(wait);
        }
    }
    let mut event = asking.event("login_refused", None);
    event.reason = Some(match refused {
        AuthError::Missing => "nothing sent",
        AuthError::Bad(reason) => reason,
    });
    app.accounts.audit.record(&event);
    match (refused, app.accounts.auth.is_multi_user()) {
        (AuthError::Missing, false) => ApiError::missing_key(),
        (AuthError::Bad(_), false) => ApiError::wrong_key(),
        (AuthError::Missing, true) => ApiError::missing_token(),
        (AuthError::Bad(_), true) => ApiError::bad_token(),
    }
}

/// `X-API-KEY`, else the bearer token that OpenAI's clients send. Two of a kind are refused: a proxy and we
/// might look at different ones.
fn sent_key(headers: &HeaderMap) -> Result<Option<&[u8]>, AuthError> {
    let twice = |name| headers.get_all(name).iter().nth(1).is_some();
    if twice("x-api-key") || twice(AUTHORIZATION.as_str()) {
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
