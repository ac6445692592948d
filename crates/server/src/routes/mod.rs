//! All routes with their middleware. A route and its entry in the OpenAPI document are one statement, so that neither
//! exists without the other. The name of a handler in camel case is its operation id: `create_collection` is
//! `createCollection`, which generated clients name their methods after.

mod accounts;
mod admin;
mod batch;
mod collections;
mod common_errors;
mod cors;
mod docs;
mod embed_request;
mod embeddings;
mod health;
mod jobs;
pub(crate) mod metrics;
mod models;
mod operator;

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

use crate::{App, access_log, error::ApiError, header_limit, request_id, response_extras};

/// Smaller responses are not compressed: compressing would take longer than sending.
const COMPRESS_ABOVE_BYTES: u64 = 16 << 10;

/// The whole API.
pub fn routes(app: &Arc<App>) -> Router {
    let (router, document) = api();
    let router = router
        .merge(docs::routes(document))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Innermost first. Reject a request whose headers exceed the limit.
        .layer(from_fn_with_state(Arc::clone(app), header_limit::layer))
        // Turn a panic into a 500 before the layers below see the response.
        .layer(CatchPanicLayer::custom(panicked))
        // Add the headers and audit events that extractors prepared.
        .layer(from_fn_with_state(Arc::clone(app), response_extras::layer))
        // Log the response as the caller gets it, except for its compression.
        .layer(from_fn_with_state(Arc::clone(app), access_log::layer))
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Fastest)
                // Compression would delay events until its buffer is full.
                .compress_when(SizeAbove::new(COMPRESS_ABOVE_BYTES).and(NotForContentType::SSE)),
        )
        .with_state(Arc::clone(app));
    // A CORS preflight request needs no key and no handler.
    cors::allow(router, &app.settings.cors_origins)
        // The id is outermost: every response has it, and the layers above can log it.
        .layer(from_fn(request_id::layer))
}

/// The OpenAPI document.
pub fn openapi() -> OpenApi {
    api().1
}

fn api() -> (Router<Arc<App>>, OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(docs::document())
        .routes(routes!(embeddings::create_embeddings))
        .routes(routes!(embeddings::create_embeddings_openai))
        .routes(routes!(batch::create_embeddings_batch))
        .routes(routes!(admin::list_circuit_breakers))
        .routes(routes!(admin::reset_circuit_breaker))
        .routes(routes!(admin::clear_cache))
        .routes(routes!(admin::get_embedding_metrics))
        .routes(routes!(admin::reload_config))
        .routes(routes!(admin::get_providers_config))
        .routes(routes!(models::list_models))
        .routes(routes!(models::list_models_openai))
        .routes(routes!(models::get_model_openai))
        .routes(routes!(models::download_model))
        .routes(routes!(models::warm_up_model))
        .routes(routes!(models::unload_model))
        .routes(routes!(models::get_model))
        .routes(routes!(accounts::get_quotas))
        .routes(routes!(accounts::get_usage))
        .routes(routes!(collections::create_collection, collections::list_collections))
        .routes(routes!(collections::get_collection, collections::delete_collection))
        .routes(routes!(collections::get_collection_stats))
        .routes(routes!(collections::reembed_collection))
        .routes(routes!(
            collections::documents::add_documents,
            collections::documents::list_documents,
            collections::documents::delete_documents
        ))
        .routes(routes!(collections::documents::get_document, collections::documents::delete_document))
        .routes(routes!(collections::search::search_collection))
        .routes(routes!(collections::export_import::export_collection))
        .routes(routes!(collections::export_import::import_collection))
        .routes(routes!(collections::user::create_backup))
        .routes(routes!(collections::user::delete_user))
        .routes(routes!(jobs::submit_job, jobs::list_jobs))
        .routes(routes!(jobs::get_job, jobs::cancel_job))
        .routes(routes!(jobs::list_job_documents))
        .routes(routes!(jobs::retry_job))
        .routes(routes!(jobs::events::stream_job_events))
        .routes(routes!(operator::jobs::skip_job))
        .routes(routes!(operator::jobs::get_job_skip_status))
        .routes(routes!(operator::jobs::bump_job_priority))
        .routes(routes!(operator::jobs::find_job_by_idempotency_key))
        .routes(routes!(operator::dead_letters::list_dead_letters))
        .routes(routes!(operator::dead_letters::get_dead_letter_stats))
        .routes(routes!(operator::dead_letters::requeue_dead_letter))
        .routes(routes!(operator::dead_letters::requeue_dead_letters))
        .routes(routes!(operator::dead_letters::set_dead_letter_state))
        .routes(routes!(operator::dead_letters::purge_dead_letters))
        .routes(routes!(operator::stages::get_stage_status))
        .routes(routes!(operator::stages::control_stage))
        .routes(routes!(operator::summary::get_orchestrator_summary))
        .routes(routes!(operator::summary::stream_orchestrator_events))
        .routes(routes!(health::get_service_health))
        .routes(routes!(health::get_liveness))
        .routes(routes!(health::get_readiness))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(metrics::get_metrics_text))
        .split_for_parts();
    // axum writes `{*id}` for a parameter that may contain slashes; OpenAPI knows only `{id}`.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    common_errors::document(&mut document);
    docs::camel_case_operation_ids(&mut document);
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
