//! All collections of the caller at once: back up, delete.

use axum::Json;

use crate::routes::common_errors::{DiskErrors, StoreErrors};
use crate::{
    collections::CollectionService,
    error::{ApiError, ErrorBody},
    wire::collections::{BackupResponse, CacheDeletion, DeletionSummary, UserDeletionReceipt},
};

/// Back up all collections of the caller into one file, as they are at one moment.
///
/// With the embedded store the file is a database: copied over `vectors.db` it restores everything.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/collections-backup",
    tag = "collections",
    responses(
        (status = 200, description = "The file is written", body = BackupResponse),
        StoreErrors,
        DiskErrors,
        (status = 409, description = "The store is a PostgreSQL database; back it up with pg_dump", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn create_backup(service: CollectionService) -> Result<Json<BackupResponse>, ApiError> {
    Ok(Json(service.store().backup(service.tenant()).await?.into()))
}

/// Delete all data of the caller, and get a receipt.
///
/// Jobs are cancelled and deleted, collections and usage are deleted. Cached vectors are kept under a hash, without a
/// user: with one user they are cleared, else they expire (`cache.ttl_seconds`).
#[utoipa::path(
    delete,
    path = "/api/v1/embeddings/users/me",
    tag = "collections",
    responses(
        (status = 200, description = "It is deleted", body = UserDeletionReceipt),
        StoreErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn delete_user(service: CollectionService) -> Result<Json<UserDeletionReceipt>, ApiError> {
    // Jobs first: a document in progress would create its collection again.
    let app = service.app();
    let jobs = app.jobs.delete_all(service.user().as_str()).await?;
    let collections = service.store().delete_tenant(service.tenant()).await?;
    let cache = match &app.controls.cache {
        None => CacheDeletion::Off,
        Some(_) if app.accounts.auth.is_multi_user() => CacheDeletion::Expires,
        Some(cache) => {
            cache.clear().await.map_err(|error| ApiError::cache_unavailable(&error.to_string()))?;
            CacheDeletion::Cleared
        }
    };
    let keeps_todays_usage = app.accounts.ledger.forget(service.user()).await;
    Ok(Json(UserDeletionReceipt::new(
        service.tenant(),
        &DeletionSummary { collections, jobs, cache, keeps_todays_usage },
    )))
}
