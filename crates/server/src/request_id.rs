//! `X-Request-ID` on every response: the caller's own id if it is valid, else a new one. All log lines of a request
//! have it.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

/// The id of a request, as an extension of the request.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(&HEADER).and_then(|id| id.to_str().ok());
    let valid = sent.filter(|id| {
        !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    let id: Arc<str> = valid.map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from);
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}
