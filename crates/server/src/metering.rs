//! What a request costs its caller: rates and quotas before, usage after, `X-RateLimit-*` on whatever is
//! answered, and the audit log's lines.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, request::Parts},
    middleware::Next,
    response::Response,
};
use embeddery_accounts::{
    AuditEvent, Identity, MeteredResponse, Role, UserId,
    limit::{RateLimitError, RateLimitKey, RateLimitKind, RateLimitStatus},
};
use embeddery_core::{EmbedRequest, TraceContext};
use embeddery_gateway::ModelSelector;
use embeddery_ingest::{Account, embed_billed, estimate_input_tokens};

use crate::{
    App, access_log::RequestRecord, auth::Caller, client_ip, error::ApiError, request_id::RequestId,
};

/// A caller whose request counts against their rate: embedding, batch and search requests.
pub(crate) struct MeteredCaller {
    /// Who asks.
    pub(crate) identity: Identity,
    /// What the log is told.
    pub(crate) page: RequestRecord,
    /// The trace that the request is a part of.
    pub(crate) trace: Option<TraceContext>,
    payer: RateLimitKey,
    notes: Option<ResponseExtras>,
}

impl FromRequestParts<Arc<App>> for MeteredCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Caller { identity } = Caller::from_request_parts(parts, app).await?;
        let payer = RateLimitKey::user(&identity.user);
        let page = parts.extensions.get::<RequestRecord>().cloned().unwrap_or_default();
        let trace = parts.extensions.get::<TraceContext>().copied();
        let metered =
            Self { identity, page, trace, payer, notes: parts.extensions.get::<ResponseExtras>().cloned() };
        metered.take(app, RateLimitKind::Requests, 1).await?;
        Ok(metered)
    }
}

impl MeteredCaller {
    /// Embeds on the caller's account: takes the estimated tokens from the rate limit, reserves them in the quota of
    /// the day, and records the tokens that the model read.
    pub(crate) async fn embed(
        &self,
        app: &App,
        selector: ModelSelector<'_>,
        request: EmbedRequest,
    ) -> Result<MeteredResponse, ApiError> {
        self.check_download(app, selector)?;
        let tokens = u32::try_from(estimate_input_tokens(&request.inputs)).unwrap_or(u32::MAX);
        self.take(app, RateLimitKind::Tokens, tokens).await?;
        let account = Account {
            ledger: &app.accounts.ledger,
            user: &self.identity.user,
            timeout: app.settings.request_timeout,
        };
        let billed = embed_billed(&app.router, account, selector, request).await?;
        self.page.embedded(&billed.embeddings, &billed.stats, billed.elapsed);
        Ok(billed)
    }

    /// Refuses a model that would have to be downloaded, unless the caller is an administrator: a request of one user
    /// must not fill the disk of all users.
    pub(crate) fn check_download(&self, app: &App, selector: ModelSelector<'_>) -> Result<(), ApiError> {
        if app.accounts.auth.is_multi_user()
            && self.identity.role != Role::Admin
            && !app.router.is_available_without_download(selector)
        {
            return Err(ApiError::admin_must_download(selector.model.unwrap_or_default()));
        }
        Ok(())
    }

    async fn take(&self, app: &App, measure: RateLimitKind, amount: u32) -> Result<(), ApiError> {
        let (standing, outcome) = match app.accounts.limiter.take(measure, &self.payer, amount).await {
            Ok(standing) => (standing, Ok(())),
            Err(RateLimitError::Wait { wait, status: standing }) => {
                (Some(standing), Err(ApiError::rate_limited(measure, app.accounts.limiter.rates(), wait)))
            }
            Err(RateLimitError::TooMuch { limit }) => {
                (None, Err(ApiError::exceeds_rate_burst(amount, limit)))
            }
        };
        if let (Some(standing), Some(notes)) = (standing, &self.notes) {
            notes.update(|noted| match measure {
                RateLimitKind::Tokens => noted.tokens = Some(standing),
                RateLimitKind::Requests | RateLimitKind::Failures => noted.requests = Some(standing),
            });
        }
        outcome
    }
}

/// Who asks for what, from where: the audit log's words for a request.
pub(crate) struct AuditContext {
    pub(crate) address: Option<IpAddr>,
    method: Method,
    route: Arc<str>,
    request_id: Arc<str>,
    notes: Option<ResponseExtras>,
}

impl AuditContext {
    pub(crate) fn of(parts: &Parts, app: &App) -> Self {
        let extensions = &parts.extensions;
        Self {
            address: client_ip::of(extensions, &parts.headers, &app.settings.trusted_proxies),
            method: parts.method.clone(),
            // The route, not the path: a path may hold anything.
            route: extensions.get::<MatchedPath>().map_or("none", MatchedPath::as_str).into(),
            request_id: extensions.get::<RequestId>().map_or_else(|| "".into(), |id| Arc::clone(&id.0)),
            notes: extensions.get::<ResponseExtras>().cloned(),
        }
    }

    pub(crate) fn event<'a>(&'a self, event: &'static str, user: Option<&'a str>) -> AuditEvent<'a> {
        AuditEvent {
            event,
            user,
            address: self.address,
            method: self.method.as_str(),
            route: &self.route,
            request_id: &self.request_id,
            subject: None,
            changed: None,
            reason: None,
            status: None,
        }
    }

    /// Writes down that an admin acts, and notes that the end is to be written down, too. An admin who hangs up
    /// leaves the first line.
    pub(crate) fn admin_acts(self, app: &App, user: UserId) -> Arc<AdminAction> {
        let notes = self.notes.clone();
        let acting = Arc::new(AdminAction { user, asking: self });
        app.accounts.audit.record(&acting.event("admin_action"));
        if let Some(notes) = notes {
            notes.update(|noted| noted.admin = Some(Arc::clone(&acting)));
        }
        acting
    }
}

/// An admin at work.
pub(crate) struct AdminAction {
    user: UserId,
    asking: AuditContext,
}

impl AdminAction {
    pub(crate) fn event(&self, event: &'static str) -> AuditEvent<'_> {
        self.asking.event(event, Some(self.user.as_str()))
    }
}

/// What extractors learn and the layer around the handler needs.
#[derive(Clone, Default)]
struct ResponseExtras(Arc<Mutex<ResponseExtrasInner>>);

#[derive(Default)]
struct ResponseExtrasInner {
    requests: Option<RateLimitStatus>,
    tokens: Option<RateLimitStatus>,
    admin: Option<Arc<AdminAction>>,
}

impl ResponseExtras {
    fn update(&self, change: impl FnOnce(&mut ResponseExtrasInner)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> ResponseExtrasInner {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let notes = ResponseExtras::default();
    request.extensions_mut().insert(notes.clone());
    let mut response = next.run(request).await;
    let ResponseExtrasInner { requests, tokens, admin } = notes.take();
    if let Some(standing) = requests {
        set_rate_limit_headers(
            &mut response,
            standing,
            ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
        );
    }
    if let Some(standing) = tokens {
        let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        set_rate_limit_headers(&mut response, standing, names);
    }
    if let Some(acting) = admin {
        let status = Some(response.status().as_u16());
        app.accounts.audit.record(&AuditEvent { status, ..acting.event("admin_action_ended") });
    }
    response
}

/// The bucket's size, what may still come at once, seconds until it is full again.
fn set_rate_limit_headers(response: &mut Response, standing: RateLimitStatus, names: [&'static str; 3]) {
    let reset = standing.reset.as_secs_f64().ceil() as u64;
    let values = [u64::from(standing.limit), u64::from(standing.remaining), reset];
    for (name, value) in names.into_iter().zip(values) {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}
