//! The access log: one line per request with its user, route, status and duration. It never has a text or a key.

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

/// What extractors and handlers add to the log line of a request, as an extension of the request. Clones share their
/// content.
#[derive(Clone, Default)]
pub(crate) struct RequestRecord(Arc<RequestRecordInner>);

#[derive(Default)]
struct RequestRecordInner {
    user: OnceLock<UserId>,
    totals: Mutex<Option<EmbedTotals>>,
}

/// Totals of all model calls of a request.
#[derive(Clone, Default)]
struct EmbedTotals {
    /// The model of the last call.
    model: String,
    inputs: usize,
    tokens: u64,
    cached: u64,
    embed: Duration,
    upstream: Duration,
}

impl RequestRecord {
    /// Sets the user. Later calls have no effect.
    pub(crate) fn set_user(&self, user: &UserId) {
        self.0.user.get_or_init(|| user.clone());
    }

    /// Adds a model call to the totals.
    pub(crate) fn add_call(&self, embeddings: &Embeddings, stats: &RequestStats, elapsed: Duration) {
        let mut totals = self.0.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = totals.get_or_insert_default();
        if *totals.model != *embeddings.served_by.name {
            totals.model = embeddings.served_by.name.to_string();
        }
        totals.inputs += embeddings.tokens.len();
        totals.tokens += embeddings.total_tokens();
        totals.cached += stats.cache().map_or(0, |(hits, _)| hits);
        totals.embed += elapsed;
        totals.upstream += stats.upstream().1;
    }
}

pub(crate) async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let record = RequestRecord::default();
    request.extensions_mut().insert(record.clone());
    let line = LogLine::begin(&mut request, record, &app);
    let response = next.run(request).await;
    line.end(&response);
    response
}

/// The log line of a request in progress. If the client disconnects, the line is dropped before its end and logs the
/// request without a status.
struct LogLine {
    began: Instant,
    method: Method,
    /// The route and not the path, because a path can contain anything.
    route: String,
    id: Option<Arc<str>>,
    record: RequestRecord,
    metrics: ServerMetrics,
    span: Option<Span>,
    ended: bool,
}

impl LogLine {
    fn begin(request: &mut Request, record: RequestRecord, app: &App) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
        let id = request.extensions().get::<RequestId>().map(|id| Arc::clone(&id.0));
        let span = begin_span(request, app.traced, &route, id.as_deref());
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            route,
            id,
            record,
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
        self.metrics.record_request(&self.method, &self.route, Some(status), elapsed);
        let (request_id, elapsed_ms) = (self.request_id(), milliseconds(elapsed));
        let Self { method, route, record, .. } = &self;
        // Fields without a value are omitted.
        let user = record.0.user.get().map(UserId::as_str);
        let error = response.extensions().get::<ErrorCode>().map(|error| error.0);
        let totals = record.0.totals.lock().unwrap_or_else(PoisonError::into_inner).take();
        match totals {
            Some(EmbedTotals { model, inputs, tokens, cached, embed, upstream }) => {
                let (embed_ms, upstream_ms) = (milliseconds(embed), milliseconds(upstream));
                tracing::info!(
                    request_id, %method, route, status, error, user, elapsed_ms, embed_ms, upstream_ms, model, inputs,
                    tokens, cached, "answered"
                );
            }
            // Health probes and metrics scrapes arrive every few seconds.
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

/// Begins the span of a request and adds the trace context to the request's extensions: that of the span, or the
/// caller's if the request is not traced.
fn begin_span(request: &mut Request, traced: bool, route: &str, id: Option<&str>) -> Option<Span> {
    let sent = request.headers().get("traceparent").and_then(|sent| sent.to_str().ok());
    let parent = sent.and_then(TraceContext::parse);
    // Health probes and metrics scrapes are GET requests without a trace, and arrive every few seconds.
    let enabled = traced && (parent.is_some() || request.method() != Method::GET);
    let attributes = || SpanAttributes {
        kind: 2,
        route: Some(format!("{} {route}", request.method())),
        request_id: id.map(str::to_owned),
        failed: true,
        ..SpanAttributes::default()
    };
    let span = if enabled { Span::begin("request", parent, attributes()) } else { None };
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
            self.metrics.record_request(&self.method, &self.route, None, elapsed);
            let (request_id, elapsed_ms) = (self.request_id(), milliseconds(elapsed));
            let Self { method, route, record, .. } = &*self;
            let user = record.0.user.get().map(UserId::as_str);
            tracing::info!(request_id, %method, route, user, elapsed_ms, "the client disconnected");
        }
    }
}
