//! One line per request: who asked for what, how it ended, how long it took. Never a text, never a key.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
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
    let began = Instant::now();
    let method = request.method().clone();
    // The route, not the path: a path may hold anything.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let elapsed_ms = (began.elapsed().as_secs_f64() * 1e4).round() / 10.0;
    let request_id = id.as_deref().unwrap_or_default();
    match response.extensions().get::<Logged>() {
        Some(Logged { model, inputs, tokens }) => {
            tracing::info!(request_id, %method, route, status, elapsed_ms, model, inputs, tokens, "answered");
        }
        // Probes and scrapes come every few seconds and say nothing.
        None if method == "GET" && status == 200 => {
            tracing::debug!(request_id, %method, route, status, elapsed_ms, "answered");
        }
        None => tracing::info!(request_id, %method, route, status, elapsed_ms, "answered"),
    }
    response
}
