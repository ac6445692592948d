//! One line per request: who asked for what, how it ended, how long it took. Never a text, never a key.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::Response,
};

use crate::request_id::RequestId;

/// What a handler knows and the line shows; put among the answer's extensions.
#[derive(Clone, Default)]
pub(crate) struct Logged {
    pub(crate) model: String,
    pub(crate) inputs: usize,
    pub(crate) tokens: u64,
}

pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let line = Line::begin(&request);
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
    ended: bool,
}

impl Line {
    fn begin(request: &Request) -> Self {
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            route: request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned(),
            id: request.extensions().get::<RequestId>().map(|id| Arc::clone(&id.0)),
            ended: false,
        }
    }

    fn end(mut self, response: &Response) {
        self.ended = true;
        let (request_id, elapsed_ms) = (self.request_id(), self.elapsed_ms());
        let Self { method, route, .. } = &self;
        let status = response.status().as_u16();
        match response.extensions().get::<Logged>() {
            Some(Logged { model, inputs, tokens }) => {
                tracing::info!(request_id, %method, route, status, elapsed_ms, model, inputs, tokens, "answered");
            }
            // Probes and scrapes come every few seconds and say nothing.
            None if method == Method::GET && status == 200 => {
                tracing::debug!(request_id, %method, route, status, elapsed_ms, "answered");
            }
            None => tracing::info!(request_id, %method, route, status, elapsed_ms, "answered"),
        }
    }

    fn request_id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    fn elapsed_ms(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() * 1e4).round() / 10.0
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            let (request_id, elapsed_ms) = (self.request_id(), self.elapsed_ms());
            let Self { method, route, .. } = &*self;
            tracing::info!(request_id, %method, route, elapsed_ms, "the caller hung up");
        }
    }
}
