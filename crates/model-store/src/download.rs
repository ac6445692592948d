//! The download of one file.
//!
//! A broken transfer is resumed at the byte where it broke. If a server ignores `Range`, the file starts over. Content
//! with a wrong size or checksum is discarded and downloaded once more; a second mismatch is an error.

use std::{path::PathBuf, sync::Arc};

use embeddery_core::{
    Progress, SourceError,
    SourceErrorKind::{Corrupt, Unreachable},
};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, HeaderMap},
};
use tokio::sync::mpsc;

use crate::{
    hub::{FileAddress, Hub, RemoteFile, transient},
    lock::Lock,
    partial_file::{PartialFile, blocking},
    retry::{Failure, Retries, RetryPolicy},
};

/// Capacity of the channel from the network to the disk. A full channel slows the transfer down to the speed of the disk.
const CHUNKS_IN_FLIGHT: usize = 16;

/// A file to download.
pub(crate) struct Download<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) retry: RetryPolicy,
    pub(crate) progress: &'a Progress,
    pub(crate) address: FileAddress<'a>,
    pub(crate) announced: &'a RemoteFile,
    /// The final path of the file.
    pub(crate) target: PathBuf,
    /// Bytes of the model's files that are complete already, for the progress.
    pub(crate) bytes_before: u64,
    pub(crate) lock: Arc<Lock>,
}

/// How an attempt ended. Errors of the local disk are returned separately.
enum AttemptEnd {
    /// All bytes arrived. The field is the total size that the server announced, if it did.
    Complete(Option<u64>),
    /// Some bytes are missing.
    Interrupted(Failure),
}

impl Download<'_> {
    /// Downloads the file and returns its size. On success the file is verified, synced and at its target.
    pub(crate) async fn run(self) -> Result<u64, SourceError> {
        let (target, announced, lock) = (self.target.clone(), self.announced.clone(), Arc::clone(&self.lock));
        let mut part = blocking(move || PartialFile::open(target, &announced, lock)).await??;
        let mut size = self.announced.size;
        let mut retries = Retries::new(self.retry);
        let mut max_len = part.len();
        let mut may_retry_mismatch = true;
        loop {
            if size.is_none_or(|size| part.len() < size) {
                let (returned, end) = self.attempt(part).await?;
                part = returned;
                match end {
                    AttemptEnd::Complete(reported) => size = size.or(reported).or(Some(part.len())),
                    AttemptEnd::Interrupted(failure) => {
                        // Only new bytes count as progress: a server that ignores Range sends the same bytes again
                        // and again.
                        if part.len() > max_len {
                            max_len = part.len();
                            retries.reset();
                        }
                        retries.wait_after(failure).await?;
                        continue;
                    }
                }
            }
            let Some(mismatch) = self.mismatch(&part, size) else {
                let len = part.len();
                blocking(move || part.persist()).await??;
                return Ok(len);
            };
            if !may_retry_mismatch {
                blocking(move || part.discard()).await??;
                return Err(SourceError::new(
                    Corrupt,
                    format!("{} is damaged: {mismatch}, twice", self.address),
                ));
            }
            tracing::warn!(file = %self.address, mismatch, "download is damaged; downloading once more");
            may_retry_mismatch = false;
            max_len = 0;
            part = blocking(move || part.restart().map(|()| part)).await??;
        }
    }

    /// Sends one request and writes its response to the partial file.
    async fn attempt(&self, mut part: PartialFile) -> Result<(PartialFile, AttemptEnd), SourceError> {
        self.progress.set_done(self.bytes_before + part.len());
        let response = match self.hub.file(&self.address, part.len()).await {
            Ok(response) => response,
            Err(failure) => return Ok((part, AttemptEnd::Interrupted(failure))),
        };
        let range = ContentRange::from_headers(response.headers());
        let reported = match response.status() {
            StatusCode::PARTIAL_CONTENT if range.start == Some(part.len()) => range.total,
            StatusCode::OK => {
                if part.len() > 0 {
                    part = blocking(move || part.restart().map(|()| part)).await??;
                    self.progress.set_done(self.bytes_before);
                }
                response.content_length()
            }
            StatusCode::RANGE_NOT_SATISFIABLE if range.total == Some(part.len()) => {
                return Ok((part, AttemptEnd::Complete(range.total)));
            }
            status => {
                let offset = part.len();
                part = blocking(move || part.restart().map(|()| part)).await??;
                let reason = format!(
                    "{}: the server responded {status} to a request for the bytes from {offset} on",
                    self.address
                );
                return Ok((part, AttemptEnd::Interrupted(transient(Unreachable, reason))));
            }
        };
        self.receive(part, response, reported).await
    }

    /// Writes a response body to the partial file. Stops early if the body is longer than announced. `reported` is the total
    /// size according to the response.
    async fn receive(
        &self,
        part: PartialFile,
        mut response: Response,
        reported: Option<u64>,
    ) -> Result<(PartialFile, AttemptEnd), SourceError> {
        let size = self.announced.size.or(reported);
        // If the response reports another size than the listing, a body of the reported size counts as complete. Its
        // content is wrong, and downloading the rest would not help.
        let expected = reported.or(size);
        let mut len = part.len();
        let (chunks, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let writer = blocking(move || part.append_all(receiver));
        let mut failure = None;
        while size.is_none_or(|size| len <= size) {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let arrived = chunk.len() as u64;
                    if chunks.send(chunk).await.is_err() {
                        break; // the write failed; the writer returns the error
                    }
                    len += arrived;
                    self.progress.add(arrived);
                }
                Ok(None) => break,
                Err(error) => {
                    failure = Some(self.hub.connection_error(error, &self.address.to_string()));
                    break;
                }
            }
        }
        drop(chunks);
        let (part, written) = writer.await?;
        written?;
        let is_short = expected.is_some_and(|expected| part.len() < expected);
        let end = match failure {
            Some(failure) => AttemptEnd::Interrupted(failure),
            None if is_short => {
                let reason = format!(
                    "{} ended after {} of {} bytes",
                    self.address,
                    part.len(),
                    expected.unwrap_or_default()
                );
                AttemptEnd::Interrupted(transient(Unreachable, reason))
            }
            None => AttemptEnd::Complete(reported),
        };
        Ok((part, end))
    }

    /// How the downloaded bytes differ from the announced size or checksum; `None` if they match.
    fn mismatch(&self, part: &PartialFile, size: Option<u64>) -> Option<String> {
        if let Some(size) = size.filter(|size| *size != part.len()) {
            return Some(format!("expected {size} bytes, found {}", part.len()));
        }
        let found = part.checksum()?;
        let expected = self.announced.checksum.as_ref().filter(|expected| **expected != found)?;
        Some(format!("expected {expected}, found {found}"))
    }
}

/// The header `Content-Range`: `bytes 5-9/10`, or `bytes */10` in a response 416 (RFC 9110, section 14.4).
#[derive(Default)]
struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

impl ContentRange {
    fn from_headers(headers: &HeaderMap) -> Self {
        let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((range, total)) = text.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')) else {
            return Self::default();
        };
        let start = range.split_once('-').and_then(|(start, _)| start.parse().ok());
        Self { start, total: total.parse().ok() }
    }
}
