//! The exact limit of a request's path and headers. hyper limits its read buffer instead: it accepts larger headers
//! that arrive in one read, and answers headers far beyond the limit with an empty 431.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{App, error::ApiError};

pub(crate) async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let limit = app.settings.header_limit;
    // On the wire a header is `name: value` and a line end: four bytes more than its name and value.
    let header_bytes = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let target_bytes = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target_bytes + header_bytes.sum::<usize>() > limit {
        return ApiError::head_too_large(limit).into_response();
    }
    next.run(request).await
}
