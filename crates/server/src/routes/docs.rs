//! `/openapi.json`, and `/docs`, its viewer. The viewer's assets are inside the binary: nothing is loaded
//! from elsewhere.

use std::sync::Arc;

use axum::Router;
use utoipa::{
    Modify, OpenApi as _,
    openapi::{
        OpenApi,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_swagger_ui::SwaggerUi;

use crate::App;

pub(super) fn routes(document: OpenApi) -> Router<Arc<App>> {
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
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
