//! A body of lines, read one at a time: the body may be larger than memory, a line may not be larger than a body.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::CONTENT_TYPE,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use crate::{App, error::ApiError};

/// The lines of a request's body.
pub(crate) struct Lines {
    body: Body,
    /// What has arrived and is no whole line yet.
    rest: BytesMut,
    /// How much of it holds no line end.
    searched: usize,
    ended: bool,
    number: u64,
    limit: usize,
    patience: Duration,
}

impl FromRequest<Arc<App>> for Lines {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        if let Some(found) = request.headers().get(CONTENT_TYPE) {
            let text = String::from_utf8_lossy(found.as_bytes()).into_owned();
            if !is_lines(&text) {
                return Err(ApiError::not_ndjson(&text));
            }
        }
        Ok(Self {
            body: request.into_body(),
            rest: BytesMut::new(),
            searched: 0,
            ended: false,
            number: 0,
            limit: app.settings.body_limit,
            patience: app.settings.body_timeout,
        })
    }
}

/// Whether a content type announces lines of JSON.
pub(crate) fn is_lines(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ["application/x-ndjson", "application/jsonl", "application/x-jsonlines"].contains(&&*essence)
}

impl Lines {
    /// The next line that is not blank, with its number; `None` after the last one. The limit of time holds for
    /// each piece that arrives, because a large body takes long.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Bytes)>, ApiError> {
        loop {
            if let Some(length) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(self.searched + length + 1).freeze();
                self.searched = 0;
                self.number += 1;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some((self.number, line)));
                }
                continue;
            }
            self.searched = self.rest.len();
            if self.rest.len() > self.limit {
                return Err(ApiError::body_too_large(self.limit));
            }
            if self.ended {
                let line = self.rest.split().freeze();
                self.searched = 0;
                self.number += 1;
                return Ok((!line.trim_ascii().is_empty()).then_some((self.number, line)));
            }
            let frame = tokio::time::timeout(self.patience, self.body.frame());
            match frame.await.map_err(|_| ApiError::body_too_slow(self.patience))? {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
                Some(Err(_)) => return Err(ApiError::body_incomplete()),
            }
        }
    }
}
