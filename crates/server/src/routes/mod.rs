//! All routes with their middleware, in one place. A route and its entry in the OpenAPI document are one
//! statement, so that neither can be without the other.

mod accounts;
mod admin;
mod batch;
mod collections;
mod cors;
mod docs;
mod embed;
mod embeddings;
mod health;
mod jobs;
pub(crate) mod metrics;
mod models;
mod operate;
mod refusals;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::Request,
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate as _, SizeAbove},
    },
};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{App, access_log, error::ApiError, header_limit, metering, request_id};

/// Answers smaller than this are sent as they are: compressing would take longer than sending.
const COMPRESS_ABOVE_BYTES: u64 = 16 << 10;

/// The whole API.
pub fn routes(app: &Arc<App>) -> Router {
    let (router, document) = api();
    let router = router
        .merge(docs::routes(document))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Innermost first. A head beyond the limit goes no further;
        .layer(from_fn_with_state(Arc::clone(app), header_limit::layer))
        // a panic becomes an answer before anything else looks at it;
        .layer(CatchPanicLayer::custom(panicked))
        // what extractors noted becomes headers and audit lines;
        .layer(from_fn_with_state(Arc::clone(app), metering::layer))
        // the line in the log shows what the caller gets, compression left aside;
        .layer(from_fn_with_state(Arc::clone(app), access_log::layer))
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Fastest)
                // An event is sent when it happens, not when enough have.
                .compress_when(SizeAbove::new(COMPRESS_ABOVE_BYTES).and(NotForContentType::SSE)),
        )
        .with_state(Arc::clone(app));
    // A browser's question whether it may ask needs no key and no handler;
    cors::allow(router, &app.settings.cors_origins)
        // the id is outermost, so that every answer carries it and every line above can show it.
        .layer(from_fn(request_id::layer))
}

/// The OpenAPI document.
pub fn openapi() -> OpenApi {
    api().1
}

fn api() -> (Router<Arc<App>>, OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(docs::document())
        .routes(routes!(embeddings::create))
        .routes(routes!(embeddings::create_openai))
        .routes(routes!(batch::create_batch))
        .routes(routes!(admin::list_breakers))
        .routes(routes!(admin::reset_breaker))
        .routes(routes!(admin::clear_cache))
        .routes(routes!(admin::embedding_metrics))
        .routes(routes!(admin::reload))
        .routes(routes!(admin::providers_config))
        .routes(routes!(models::list))
        .routes(routes!(models::list_openai))
        .routes(routes!(models::get_openai))
        .routes(routes!(models::download))
        .routes(routes!(models::warm_up))
        .routes(routes!(models::unload))
        .routes(routes!(models::get))
        .routes(routes!(accounts::quotas))
        .routes(routes!(accounts::usage))
        .routes(routes!(collections::create, collections::list))
        .routes(routes!(collections::get, collections::delete))
        .routes(routes!(collections::stats))
        .routes(routes!(collections::reembed))
        .routes(routes!(
            collections::documents::add,
            collections::documents::list,
            collections::documents::delete_some
        ))
        .routes(routes!(collections::documents::get, collections::documents::delete))
        .routes(routes!(collections::search::search))
        .routes(routes!(collections::archive::export))
        .routes(routes!(collections::archive::import))
        .routes(routes!(collections::user::backup))
        .routes(routes!(collections::user::delete))
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::get, jobs::cancel))
        .routes(routes!(jobs::documents))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::events::events))
        .routes(routes!(jobs::operator::skip))
        .routes(routes!(jobs::operator::skip_status))
        .routes(routes!(jobs::operator::bump))
        .routes(routes!(jobs::operator::ledger))
        .routes(routes!(operate::dlq::list))
        .routes(routes!(operate::dlq::stats))
        .routes(routes!(operate::dlq::requeue))
        .routes(routes!(operate::dlq::requeue_bulk))
        .routes(routes!(operate::dlq::state))
        .routes(routes!(operate::dlq::purge))
        .routes(routes!(operate::stage::status))
        .routes(routes!(operate::stage::control))
        .routes(routes!(operate::summary::summary))
        .routes(routes!(operate::summary::events))
        .routes(routes!(health::service))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(metrics::metrics_text))
        .split_for_parts();
    // axum's sign for "slashes included" is unknown to OpenAPI, where a parameter is called by its name alone.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    refusals::document(&mut document);
    (router, document)
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::unknown_path(request.uri().path())
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::wrong_method(request.method().as_str(), request.uri().path())
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    ApiError::internal().into_response()
}
