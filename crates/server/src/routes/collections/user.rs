//! All of the caller's collections at once: copied, or gone.

use axum::Json;

use crate::{
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::{BackupView, CacheGone, Gone, ReceiptView},
};

/// Copy all of the caller's collections into one file, as they are at one moment.
///
/// With the embedded store the file is a database: put in the place of `vectors.db` it brings everything back.
#[utoipa::path(
    post,
    operation_id = "backup_user",
    path = "/api/v1/embeddings/collections-backup",
    tag = "collections",
    responses(
        (status = 200, description = "The file is written", body = BackupView),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 409, description = "The database has its own means: pg_dump", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn backup(desk: CollectionService) -> Result<Json<BackupView>, ApiError> {
    Ok(Json(desk.store().backup(desk.tenant()).await?.into()))
}

/// Delete all that is kept of the caller, and get a receipt.
///
/// Jobs are cancelled and removed, collections dropped, usage forgotten. Cached vectors are kept by a hash, without a
/// name: where there is one user they are cleared, else they go with their time (`cache.ttl_seconds`).
#[utoipa::path(
    delete,
    operation_id = "delete_user",
    path = "/api/v1/embeddings/users/me",
    tag = "collections",
    responses(
        (status = 200, description = "It is gone", body = ReceiptView),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn delete(desk: CollectionService) -> Result<Json<ReceiptView>, ApiError> {
    // Jobs first: a document under way would bring a collection back.
    let app = desk.app();
    let jobs = app.jobs.delete_all(desk.user().as_str()).await?;
    let collections = desk.store().delete_tenant(desk.tenant()).await?;
    let cache = match &app.controls.cache {
        None => CacheGone::Off,
        Some(_) if app.accounts.auth.is_multi_user() => CacheGone::Expires,
        Some(cache) => {
            cache.clear().await.map_err(|error| ApiError::cache_away(&error.to_string()))?;
            CacheGone::Cleared
        }
    };
    let today_stays = app.accounts.ledger.forget(desk.user()).await;
    Ok(Json(ReceiptView::new(desk.tenant(), &Gone { collections, jobs, cache, today_stays })))
}
