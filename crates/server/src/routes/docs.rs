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

use crate::{App, error::ApiError};

pub(super) fn routes(document: OpenApi) -> Router<Arc<App>> {
    Router::from(SwaggerUi::new("/docs").url("/openapi.json", document)).layer(from_fn(in_our_words))
}

/// The viewer says nothing about a file that it does not have.
async fn in_our_words(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    if response.status() == StatusCode::NOT_FOUND {
        return ApiError::unknown_path(&path).into_response();
    }
    response
}

/// The document without its paths.
pub(super) fn document() -> OpenApi {
    Document::openapi()
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Embeddery", description = "Turns text into vectors. OpenAI's clients use it at /v1."),
    modifiers(&Keys),
    tags(
        (name = "embeddings", description = "Text to vectors"),
        (name = "openai", description = "The same for OpenAI's clients"),
        (name = "models", description = "Which models there are, and how one gets here"),
        (name = "accounts", description = "What a caller may use, and what was used"),
        (name = "collections", description = "Vectors that are kept and found again"),
        (name = "jobs", description = "Documents that are cut, embedded and stored while nobody waits"),
        (name = "operation", description = "Alive, ready, metrics"),
    ),
)]
struct Document;

/// The two ways to send the key.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-KEY"))),
        );
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}
