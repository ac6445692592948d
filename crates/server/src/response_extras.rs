//! What the extractors of a request leave for its response: the rate limits, which become `X-RateLimit-*` headers, the
//! number of texts that a model did not read whole, and the administrator's action, whose status is recorded in the audit
//! log.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use embeddery_accounts::{
    AuditEvent,
    limit::{RateLimitKind, RateLimitStatus},
};

use crate::{App, audit::AdminAction};

/// Shared by the extractors and [`layer`], as an extension of the request. Clones share their content.
#[derive(Clone, Default)]
pub(crate) struct ResponseExtras(Arc<Mutex<ResponseExtrasInner>>);

#[derive(Default)]
struct ResponseExtrasInner {
    requests: Option<RateLimitStatus>,
    tokens: Option<RateLimitStatus>,
    truncated: usize,
    admin_action: Option<Arc<AdminAction>>,
}

impl ResponseExtras {
    pub(crate) fn set_rate_limit(&self, kind: RateLimitKind, status: RateLimitStatus) {
        self.update(|extras| match kind {
            RateLimitKind::Tokens => extras.tokens = Some(status),
            RateLimitKind::Requests | RateLimitKind::Failures => extras.requests = Some(status),
        });
    }

    /// Adds texts that a model did not read whole.
    pub(crate) fn add_truncated(&self, texts: usize) {
        self.update(|extras| extras.truncated += texts);
    }

    pub(crate) fn set_admin_action(&self, action: Arc<AdminAction>) {
        self.update(|extras| extras.admin_action = Some(action));
    }

    fn update(&self, change: impl FnOnce(&mut ResponseExtrasInner)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> ResponseExtrasInner {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let extras = ResponseExtras::default();
    request.extensions_mut().insert(extras.clone());
    let mut response = next.run(request).await;
    let ResponseExtrasInner { requests, tokens, truncated, admin_action } = extras.take();
    if truncated > 0 {
        response.headers_mut().insert(HeaderName::from_static("x-embeddings-truncated"), truncated.into());
    }
    if let Some(status) = requests {
        let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
        set_rate_limit_headers(&mut response, status, names);
    }
    if let Some(status) = tokens {
        let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        set_rate_limit_headers(&mut response, status, names);
    }
    if let Some(action) = admin_action {
        let status = Some(response.status().as_u16());
        app.accounts.audit.record(&AuditEvent { status, ..action.event("admin_action_ended") });
    }
    response
}

/// Sets the size of the bucket, what is left in it, and the seconds until it is full again.
fn set_rate_limit_headers(response: &mut Response, status: RateLimitStatus, names: [&'static str; 3]) {
    let reset_seconds = status.reset.as_secs_f64().ceil() as u64;
    let values = [u64::from(status.limit), u64::from(status.remaining), reset_seconds];
    for (name, value) in names.into_iter().zip(values) {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}
