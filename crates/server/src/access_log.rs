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
use embeddery_core::{Embeddings, Notes};

use crate::{App, HttpMetrics, error::Failed, request_id::RequestId};

/// What is learnt of a request on its way, for its line; among the request's extensions. Clones write on the same
/// page.
#[derive(Clone, Default)]
pub(crate) struct Page(Arc<Facts>);

#[derive(Default)]
struct Facts {
    user: OnceLock<UserId>,
    work: Mutex<Option<Work>>,
}

/// What models did for a request, all its calls together.
#[derive(Clone, Default)]
struct Work {
    model: String,
    inputs: usize,
    tokens: u64,
    cached: u64,
    embed: Duration,
    upstream: Duration,
}

impl Page {
    /// Who asks.
    pub(crate) fn asked_by(&self, user: &UserId) {
        self.0.user.get_or_init(|| user.clone());
    }

    /// A model has answered, in so much time.
    pub(crate) fn embedded(&self, answer: &Embeddings, notes: &Notes, took: Duration) {
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
    let page = Page::default();
    request.extensions_mut().insert(page.clone());
    let line = Line::begin(&request, page, app.http_metrics.clone());
    let response = next.run(request).await;
    line.end(&response);
    response
}

/// A line in the making. Dropped unended when the caller hung up: nobody is there to get a status, but the
/// work was done for somebody.
struct Line {
    began: Instant,
    method: Method,
    /// The route, not the path: a path may hold anything.
    route: String,
    id: Option<Arc<str>>,
    page: Page,
    metrics: HttpMetrics,
    ended: bool,
}

impl Line {
    fn begin(request: &Request, page: Page, metrics: HttpMetrics) -> Self {
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            route: request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned(),
            id: request.extensions().get::<RequestId>().map(|id| Arc::clone(&id.0)),
            page,
            metrics,
            ended: false,
        }
    }

    fn end(mut self, response: &Response) {
        self.ended = true;
        let elapsed = self.began.elapsed();
        let status = response.status().as_u16();
        self.metrics.answered((&self.method, &self.route), Some(status), elapsed);
        let (request_id, elapsed_ms) = (self.request_id(), milliseconds(elapsed));
        let Self { method, route, page, .. } = &self;
        // Fields that are not known are left out.
        let user = page.0.user.get().map(UserId::as_str);
        let error = response.extensions().get::<Failed>().map(|failed| failed.0);
        let work = page.0.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        match work {
            Some(Work { model, inputs, tokens, cached, embed, upstream }) => {
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

fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e4).round() / 10.0
}

impl Drop for Line {
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
