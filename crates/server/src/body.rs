//! A request's body: bounded in bytes and in time, announced as JSON, really JSON. The fields are read by the
//! wire types, which know what each means.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};

use crate::{
    App,
    error::{ApiError, Dialect},
    wire::fields::Fields,
};

/// A JSON object, ready to be read field by field.
pub(crate) struct JsonObject(pub(crate) Fields);

/// Bodies above this are parsed on a thread that may block: it takes milliseconds.
const INLINE_BYTES: usize = 64 << 10;

impl FromRequest<Arc<App>> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        read_object(request, app, parse).await.map(|(fields, _)| Self(fields))
    }
}

/// A JSON object and the hash of its bytes: the same request is known again.
pub(crate) struct HashedObject(pub(crate) Fields, pub(crate) [u8; 32]);

impl FromRequest<Arc<App>> for HashedObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let hashed = |bytes: &[u8]| Ok((parse(bytes)?.0, *blake3::hash(bytes).as_bytes()));
        read_object(request, app, hashed).await.map(|(fields, hash)| Self(fields, hash))
    }
}

/// Reads a body that must be an object, with what else is wanted of its bytes.
async fn read_object<T: Send + 'static>(
    request: Request,
    app: &App,
    parse: impl FnOnce(&[u8]) -> Result<(Value, T), ApiError> + Send + 'static,
) -> Result<(Fields, T), ApiError> {
    let dialect = Dialect::of(request.uri().path());
    check_content_type(&request)?;
    let bytes = read(request, app).await?;
    let (value, more) = if bytes.len() <= INLINE_BYTES {
        parse(&bytes)?
    } else {
        tokio::task::spawn_blocking(move || parse(&bytes)).await.map_err(|_| ApiError::internal())??
    };
    match value {
        Value::Object(map) => Ok((Fields::new(map, dialect), more)),
        other => {
            let message = format!(
                "the body is {}, a JSON object is due: {{\"input\": …}}",
                crate::wire::fields::kind(&other)
            );
            Err(Fields::new(Map::new(), dialect).unfit(None, message))
        }
    }
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

/// The whole body. One that is too large is still read, up to twice the limit, and thrown away: a client that
/// is cut off while it sends sees a broken connection instead of the reason.
async fn read(request: Request, app: &App) -> Result<Bytes, ApiError> {
    let (limit, patience) = (app.settings.body_limit, app.settings.body_timeout);
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
            Err(_) => Err(ApiError::body_broken()),
        }
    };
    tokio::time::timeout(patience, receive).await.unwrap_or_else(|_| Err(ApiError::body_too_slow(patience)))
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

fn parse(bytes: &[u8]) -> Result<(Value, ()), ApiError> {
    let text = str::from_utf8(bytes).map_err(|error| {
        ApiError::not_json(format!(
            "the body is not UTF-8: the byte at {} is not part of a character",
            error.valid_up_to()
        ))
    })?;
    if text.trim().is_empty() {
        return Err(ApiError::not_json("the body is empty; a JSON object is due: {\"input\": …}"));
    }
    let value = serde_json::from_str(text)
        .map_err(|error| ApiError::not_json(format!("the body is not JSON: {error}")))?;
    Ok((value, ()))
}
