//! `/openapi.json`, and `/docs`, its viewer. The viewer's assets are inside the binary: nothing is loaded
//! from elsewhere.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};
use utoipa::{
    Modify, OpenApi as _,
    openapi::{
        OpenApi,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_swagger_ui::SwaggerUi;

use super::common_errors::operations;
use crate::{App, error::ApiError};

pub(super) fn routes(document: OpenApi) -> Router<Arc<App>> {
    Router::from(SwaggerUi::new("/docs").url("/openapi.json", document)).layer(from_fn(with_our_errors))
}

/// The viewer's response for an unknown file has no body.
async fn with_our_errors(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    if response.status() == StatusCode::NOT_FOUND {
        return ApiError::unknown_path(&path).into_response();
    }
    response
}

/// Turns the names of handlers into operation ids: `create_collection` into `createCollection`.
pub(super) fn camel_case_operation_ids(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        for id in operations(item).filter_map(|operation| operation.operation_id.as_mut()) {
            let mut words = id.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            *id = words.fold(first, |id, word| {
                let (head, tail) = word.split_at(word.len().min(1));
                id + &head.to_ascii_uppercase() + tail
            });
        }
    }
}

/// The document without its paths.
pub(super) fn document() -> OpenApi {
    Document::openapi()
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Embeddery", description = "Turns text into vectors. OpenAI's clients use it at /v1."),
    modifiers(&SecuritySchemes),
    tags(
        (name = "embeddings", description = "Text to vectors"),
        (name = "openai", description = "The same for OpenAI's clients"),
        (name = "models", description = "Which models there are, and how one gets here"),
        (name = "accounts", description = "Quotas and usage of the caller"),
        (name = "collections", description = "Stored vectors and search"),
        (name = "jobs", description = "Documents that are split, embedded and stored in the background"),
        (name = "operation", description = "Health, metrics and administration"),
    ),
)]
struct Document;

/// The two ways to send the key.
struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-KEY"))),
        );
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}
