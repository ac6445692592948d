//! All of the caller's collections at once: copied, or gone.

use axum::Json;

use crate::{
    collections::Desk,
    error::{ApiError, ErrorBody},
    wire::collections::{BackupView, ReceiptView},
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
pub(crate) async fn backup(desk: Desk) -> Result<Json<BackupView>, ApiError> {
    Ok(Json(desk.store().backup(desk.tenant()).await?.into()))
}

/// Delete all that is kept of the caller, and get a receipt.
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
pub(crate) async fn delete(desk: Desk) -> Result<Json<ReceiptView>, ApiError> {
    let receipt = desk.store().delete_tenant(desk.tenant()).await?;
    desk.recount().await;
    Ok(Json(ReceiptView::new(desk.tenant(), receipt)))
}
