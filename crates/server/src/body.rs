//! A request's body: bounded in bytes and in time, announced as JSON, parsed into its type.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::Bytes;
use embeddery_core::without_byte_order_mark;
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;

use crate::{
    App,
    error::{ApiError, ErrorStyle},
    wire::parse::{self, Source},
};

/// A request's JSON body. Every route that takes one takes it as this.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A larger body is parsed on a blocking thread, because it takes milliseconds.
const MAX_INLINE_BYTES: usize = 64 << 10;

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        read_json(request, app, |_| ()).await.map(|(body, ())| Self(body))
    }
}

impl<T: DeserializeOwned + Send + 'static> JsonBody<T> {
    /// The body and the hash of its bytes, by which a repeated request is recognised.
    pub(crate) async fn with_hash(request: Request, app: &App) -> Result<(Self, [u8; 32]), ApiError> {
        let (body, hash) = read_json(request, app, |bytes| *blake3::hash(bytes).as_bytes()).await?;
        Ok((Self(body), hash))
    }
}

async fn read_json<T: DeserializeOwned + Send + 'static, H: Send + 'static>(
    request: Request,
    app: &App,
    hash: impl FnOnce(&[u8]) -> H + Send + 'static,
) -> Result<(T, H), ApiError> {
    let source = Source { name: "the body", style: ErrorStyle::for_path(request.uri().path()) };
    check_content_type(&request)?;
    let bytes = read(request, app).await?;
    let bytes = bytes.slice_ref(without_byte_order_mark(&bytes));
    let inline = bytes.len() <= MAX_INLINE_BYTES;
    let parse = move || Ok((parse::from_slice(&bytes, source)?, hash(&bytes)));
    if inline {
        return parse();
    }
    tokio::task::spawn_blocking(parse).await.map_err(|_| ApiError::internal())?
}

fn check_content_type(request: &Request) -> Result<(), ApiError> {
    let Some(found) = request.headers().get(CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(found.as_bytes()).into_owned();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        Ok(())
    } else {
        Err(ApiError::wrong_content_type(&text))
    }
}

/// The whole body. A body over the limit is still received, up to twice the limit, and discarded: a client whose
/// connection closes while it sends sees the closed connection instead of the reason.
async fn read(request: Request, app: &App) -> Result<Bytes, ApiError> {
    let (limit, timeout) = (app.settings.body_limit, app.settings.body_timeout);
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > 2 * limit as u64) {
        return Err(ApiError::body_too_large(limit));
    }
    let receive = async {
        let mut body = request.into_body();
        match Limited::new(&mut body, limit).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                drain(body, limit).await;
                Err(ApiError::body_too_large(limit))
            }
            Err(_) => Err(ApiError::body_incomplete()),
        }
    };
    tokio::time::timeout(timeout, receive).await.unwrap_or_else(|_| Err(ApiError::body_too_slow(timeout)))
}

async fn drain(mut body: Body, limit: usize) {
    let mut left = limit;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        if size > left {
            return;
        }
        left -= size;
    }
}
