//! Cross-origin requests. No page may call the API from a browser unless the configuration names its origin: every
//! visitor of a page can read a key in it.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Allows requests from pages of these origins; without any, browsers allow none.
pub(super) fn allow(router: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return router;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let cors = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(REQUEST_HEADERS.map(HeaderName::from_static))
        .expose_headers(RESPONSE_HEADERS.map(HeaderName::from_static))
        .vary([header::ORIGIN]);
    router.layer(cors)
}

/// Headers that a page may send.
const REQUEST_HEADERS: [&str; 6] =
    ["authorization", "content-type", "x-api-key", "x-provider", "x-request-id", "idempotency-key"];
/// Headers that a page may read.
const RESPONSE_HEADERS: [&str; 9] = [
    "x-request-id",
    "x-embeddings-model",
    "x-embeddings-provider",
    "x-embeddings-space",
    "x-embeddings-truncated",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "retry-after",
];
