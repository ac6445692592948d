//! One line per request: who asked for what, how it ended, how long it took. Never a text, never a key.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use embeddery_accounts::UserId;
use embeddery_core::{Embeddings, RequestStats, TraceContext};
use embeddery_gateway::trace::{Span, SpanAttributes};

use crate::{App, ServerMetrics, error::ErrorCode, request_id::RequestId};

/// What is learnt of a request on its way, for its line; among the request's extensions. Clones write on the same
/// page.
#[derive(Clone, Default)]
pub(crate) struct RequestRecord(Arc<Known>);

#[derive(Default)]
struct Known {
    user: OnceLock<UserId>,
    work: Mutex<Option<EmbedTotals>>,
}

/// What models did for a request, all its calls together.
#[derive(Clone, Default)]
struct EmbedTotals {
    model: String,
    inputs: usize,
    tokens: u64,
    cached: u64,
    embed: Duration,
    upstream: Duration,
}

impl RequestRecord {
    /// Who asks.
    pub(crate) fn asked_by(&self, user: &UserId) {
        self.0.user.get_or_init(|| user.clone());
    }

    /// A model has answered, in so much time.
    pub(crate) fn embedded(&self, answer: &Embeddings, notes: &RequestStats, took: Duration) {
        let mut work = self.0.work.lock().unwrap_or_else(PoisonError::into_inner);
        let work = work.get_or_insert_default();
        if *work.model != *answer.served_by.name {
            work.model = answer.served_by.name.to_string();
        }
        work.inputs += answer.tokens.len();
        work.tokens += answer.total_tokens();
        work.cached += notes.cache().map_or(0, |(hits, _)| hits);
        work.embed += took;
        work.upstream += notes.upstream().1;
    }
}

pub(crate) async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let page = RequestRecord::default();
    request.extensions_mut().insert(page.clone());
    let line = LogLine::begin(&mut request, page, &app);
    let response = next.run(request).await;
    line.end(&response);
    response
}

/// A line in the making. Dropped unended when the caller hung up: nobody is there to get a status, but the
/// work was done for somebody.
struct LogLine {
    began: Instant,
    method: Method,
    /// The route, not the path: a path may hold anything.
    route: String,
    id: Option<Arc<str>>,
    page: RequestRecord,
    metrics: ServerMetrics,
    span: Option<Span>,
    ended: bool,
}

impl LogLine {
    fn begin(request: &mut Request, page: RequestRecord, app: &App) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
        let id = request.extensions().get::<RequestId>().map(|id| Arc::clone(&id.0));
        let span = trace(request, app.traced, (&route, id.as_deref()));
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            route,
            id,
            page,
            metrics: app.http_metrics.clone(),
            span,
            ended: false,
        }
    }

    fn end(mut self, response: &Response) {
        self.ended = true;
        let elapsed = self.began.elapsed();
        let status = response.status().as_u16();
        if let Some(span) = &mut self.span {
            span.attributes.status = Some(status.into());
            span.attributes.failed = status >= 500;
        }
        self.metrics.answered((&self.method, &self.route), Some(status), elapsed);
        let (request_id, elapsed_ms) = (self.request_id(), milliseconds(elapsed));
        let Self { method, route, page, .. } = &self;
        // Fields that are not known are left out.
        let user = page.0.user.get().map(UserId::as_str);
        let error = response.extensions().get::<ErrorCode>().map(|failed| failed.0);
        let work = page.0.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        match work {
            Some(EmbedTotals { model, inputs, tokens, cached, embed, upstream }) => {
                let (embed_ms, upstream_ms) = (milliseconds(embed), milliseconds(upstream));
                tracing::info!(
                    request_id, %method, route, status, error, user, elapsed_ms, embed_ms, upstream_ms, model, inputs,
                    tokens, cached, "answered"
                );
            }
            // Probes and scrapes come every few seconds and say nothing.
            None if method == Method::GET && status == 200 => {
                tracing::debug!(request_id, %method, route, status, user, elapsed_ms, "answered");
            }
            None => tracing::info!(request_id, %method, route, status, error, user, elapsed_ms, "answered"),
        }
    }

    fn request_id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

/// The request's place in its trace, among its extensions: what the caller sent, or a span of our own below it.
fn trace(request: &mut Request, traced: bool, (route, id): (&str, Option<&str>)) -> Option<Span> {
    let sent = request.headers().get("traceparent").and_then(|sent| sent.to_str().ok());
    let parent = sent.and_then(TraceContext::parse);
    // Probes and scrapes come every few seconds and say nothing.
    let wanted = traced && (parent.is_some() || request.method() != Method::GET);
    let facts = || SpanAttributes {
        kind: 2,
        route: Some(format!("{} {route}", request.method())),
        request_id: id.map(str::to_owned),
        failed: true,
        ..SpanAttributes::default()
    };
    let span = if wanted { Span::begin("request", parent, facts()) } else { None };
    if let Some(context) = span.as_ref().map(Span::context).or(parent) {
        request.extensions_mut().insert(context);
    }
    span
}

fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e4).round() / 10.0
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.ended {
            let elapsed = self.began.elapsed();
            self.metrics.answered((&self.method, &self.route), None, elapsed);
            let (request_id, elapsed_ms) = (self.request_id(), milliseconds(elapsed));
            let Self { method, route, page, .. } = &*self;
            let user = page.0.user.get().map(UserId::as_str);
            tracing::info!(request_id, %method, route, user, elapsed_ms, "the caller hung up");
        }
    }
}
