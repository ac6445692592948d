//! A request's head: bounded exactly, with our words. hyper bounds what it buffers, but lets a head pass that
//! arrives in one piece with its end; one far beyond the limit it answers itself, without a body.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{App, error::ApiError};

pub(crate) async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let limit = app.settings.header_limit;
    // As on the wire: `name: value` and its line end.
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target + lines.sum::<usize>() > limit {
        return ApiError::head_too_large(limit).into_response();
    }
    next.run(request).await
}
