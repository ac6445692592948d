//! A body of newline-delimited JSON, read line by line. The body may be larger than memory. A line may be as large as
//! other routes allow a body to be.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::CONTENT_TYPE,
};
use bytes::{Bytes, BytesMut};
use embeddery_core::without_byte_order_mark;
use http_body_util::BodyExt as _;

use crate::{App, error::ApiError};

/// The lines of a request's body.
pub(crate) struct Lines {
    body: Body,
    /// Bytes that arrived and are not returned yet.
    buffer: BytesMut,
    /// Length of the buffer's prefix that has no line end.
    searched: usize,
    ended: bool,
    /// Number of the last line that was read.
    number: u64,
    max_line_bytes: usize,
    timeout: Duration,
}

impl FromRequest<Arc<App>> for Lines {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        if let Some(found) = request.headers().get(CONTENT_TYPE) {
            let text = String::from_utf8_lossy(found.as_bytes()).into_owned();
            if !is_ndjson(&text) {
                return Err(ApiError::not_ndjson(&text));
            }
        }
        Ok(Self {
            body: request.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
            number: 0,
            max_line_bytes: app.settings.body_limit,
            timeout: app.settings.body_timeout,
        })
    }
}

/// Whether a content type is newline-delimited JSON.
pub(crate) fn is_ndjson(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ["application/x-ndjson", "application/jsonl", "application/x-jsonlines"].contains(&&*essence)
}

impl Lines {
    /// The next line that is not blank, with its number; `None` after the last line. A byte order mark at the start of a
    /// line is not part of it, because files may be concatenated. The timeout applies to each frame and not to the whole
    /// body, because a large body takes long.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Bytes)>, ApiError> {
        loop {
            if let Some(length) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + length + 1).freeze();
                let line = self.counted(&line);
                if !line.trim_ascii().is_empty() {
                    return Ok(Some((self.number, line)));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.max_line_bytes {
                return Err(ApiError::body_too_large(self.max_line_bytes));
            }
            if self.ended {
                let line = self.buffer.split().freeze();
                let line = self.counted(&line);
                return Ok((!line.trim_ascii().is_empty()).then_some((self.number, line)));
            }
            let frame = tokio::time::timeout(self.timeout, self.body.frame());
            match frame.await.map_err(|_| ApiError::body_too_slow(self.timeout))? {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(_)) => return Err(ApiError::body_incomplete()),
            }
        }
    }

    /// Counts a line that was taken from the buffer. Returns its content.
    fn counted(&mut self, line: &Bytes) -> Bytes {
        self.searched = 0;
        self.number += 1;
        line.slice_ref(without_byte_order_mark(line))
    }
}
