//! What a request costs its caller: rate limits and quotas before the model is called, recorded usage after.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use embeddery_accounts::{
    Identity, MeteredCallError, MeteredResponse, Role,
    limit::{RateLimitError, RateLimitKey, RateLimitKind},
};
use embeddery_core::{EmbedError, EmbedRequest, TraceContext};
use embeddery_gateway::ModelSelector;
use embeddery_ingest::{Account, embed_billed, estimate_input_tokens};

use crate::{App, access_log::RequestRecord, auth::Caller, error::ApiError, response_extras::ResponseExtras};

/// A caller whose request counts against the caller's rate limit: embedding, batch and search requests.
pub(crate) struct MeteredCaller {
    pub(crate) identity: Identity,
    /// What the access log shows of the request.
    pub(crate) record: RequestRecord,
    /// The trace that the request is a part of.
    pub(crate) trace: Option<TraceContext>,
    rate_limit_key: RateLimitKey,
    extras: Option<ResponseExtras>,
}

impl FromRequestParts<Arc<App>> for MeteredCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Caller { identity } = Caller::from_request_parts(parts, app).await?;
        let metered = Self {
            rate_limit_key: RateLimitKey::user(&identity.user),
            identity,
            record: parts.extensions.get::<RequestRecord>().cloned().unwrap_or_default(),
            trace: parts.extensions.get::<TraceContext>().copied(),
            extras: parts.extensions.get::<ResponseExtras>().cloned(),
        };
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
        self.embed_or(app, selector, request, ApiError::from).await
    }

    /// As [`MeteredCaller::embed`]; `to_error` maps the failure of the model.
    pub(crate) async fn embed_or(
        &self,
        app: &App,
        selector: ModelSelector<'_>,
        request: EmbedRequest,
        to_error: impl FnOnce(EmbedError) -> ApiError,
    ) -> Result<MeteredResponse, ApiError> {
        self.check_download(app, selector)?;
        let tokens = u32::try_from(estimate_input_tokens(&request.inputs)).unwrap_or(u32::MAX);
        self.take(app, RateLimitKind::Tokens, tokens).await?;
        let account = Account {
            ledger: &app.accounts.ledger,
            user: &self.identity.user,
            timeout: app.settings.request_timeout,
        };
        let billed =
            embed_billed(&app.router, account, selector, request).await.map_err(|error| match error {
                MeteredCallError::Embed(error) => to_error(error),
                error @ MeteredCallError::Quota(_) => error.into(),
            })?;
        self.record.add_call(&billed.embeddings, &billed.stats, billed.elapsed);
        if let Some(extras) = &self.extras {
            extras.add_truncated(billed.embeddings.truncated);
        }
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

    async fn take(&self, app: &App, kind: RateLimitKind, amount: u32) -> Result<(), ApiError> {
        let limiter = &app.accounts.limiter;
        let (status, result) = match limiter.take(kind, &self.rate_limit_key, amount).await {
            Ok(status) => (status, Ok(())),
            Err(RateLimitError::Wait { wait, status }) => {
                (Some(status), Err(ApiError::rate_limited(kind, limiter.rates(), wait)))
            }
            Err(RateLimitError::TooMuch { limit }) => {
                (None, Err(ApiError::exceeds_rate_burst(amount, limit)))
            }
        };
        if let (Some(status), Some(extras)) = (status, &self.extras) {
            extras.set_rate_limit(kind, status);
        }
        result
    }
}
