//! One file: from what is here already to what the hub announced, whatever happens on the way.
//!
//! A cut line is resumed where it was cut. A server that ignores `Range` costs a restart. Content with a
//! wrong size or checksum is thrown away and asked for once more; wrong again, it is an error.

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
    hub::{FileAddress, Hub, RemoteFile, is_transient},
    lock::Lock,
    partial_file::{PartialFile, blocking},
    retry::{Failure, Retries, RetryPolicy},
};

/// Chunks between the network and the disk; the slower of the two sets the pace.
const CHUNKS_IN_FLIGHT: usize = 16;

/// A file to be fetched.
pub(crate) struct Download<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) retry: RetryPolicy,
    pub(crate) progress: &'a Progress,
    pub(crate) address: FileAddress<'a>,
    pub(crate) announced: &'a RemoteFile,
    /// Where the file shall lie.
    pub(crate) target: PathBuf,
    /// Bytes of the model's other files that are here, for the progress.
    pub(crate) before: u64,
    pub(crate) lock: Arc<Lock>,
}

/// How an attempt ended when nothing on this machine failed.
enum End {
    /// All bytes came, as far as the server told. The size is what it announced, if it did.
    Complete(Option<u64>),
    /// Some bytes are missing.
    Cut(Failure),
}

impl Download<'_> {
    /// Returns the file's size once it lies at its target, proven and on disk.
    pub(crate) async fn run(self) -> Result<u64, SourceError> {
        let (target, announced, lock) = (self.target.clone(), self.announced.clone(), Arc::clone(&self.lock));
        let mut part = blocking(move || PartialFile::open(target, &announced, lock)).await??;
        let mut size = self.announced.size;
        let mut retries = Retries::new(self.retry);
        let mut furthest = part.len();
        let mut once_more = true;
        loop {
            if size.is_none_or(|size| part.len() < size) {
                let (returned, end) = self.attempt(part).await?;
                part = returned;
                match end {
                    End::Complete(told) => size = size.or(told).or(Some(part.len())),
                    End::Cut(failure) => {
                        // Only bytes never seen before count as moving forward: a server that ignores Range
                        // sends the same ones for ever.
                        if part.len() > furthest {
                            furthest = part.len();
                            retries.reset();
                        }
                        retries.wait_after(failure).await?;
                        continue;
                    }
                }
            }
            let Some(difference) = self.difference(&part, size) else {
                let len = part.len();
                blocking(move || part.persist()).await??;
                return Ok(len);
            };
            if !once_more {
                blocking(move || part.discard()).await??;
                return Err(SourceError::new(
                    Corrupt,
                    format!("{} is damaged: {difference}, twice", self.address),
                ));
            }
            tracing::warn!(file = %self.address, difference, "damaged download, trying once more");
            once_more = false;
            furthest = 0;
            part = blocking(move || part.restart().map(|()| part)).await??;
        }
    }

    /// One request, and all that comes of it.
    async fn attempt(&self, mut part: PartialFile) -> Result<(PartialFile, End), SourceError> {
        self.progress.set_done(self.before + part.len());
        let response = match self.hub.file(&self.address, part.len()).await {
            Ok(response) => response,
            Err(failure) => return Ok((part, End::Cut(failure))),
        };
        let range = ContentRange::of(response.headers());
        let told = match response.status() {
            StatusCode::PARTIAL_CONTENT if range.start == Some(part.len()) => range.total,
            StatusCode::OK => {
                if part.len() > 0 {
                    part = blocking(move || part.restart().map(|()| part)).await??;
                    self.progress.set_done(self.before);
                }
                response.content_length()
            }
            StatusCode::RANGE_NOT_SATISFIABLE if range.total == Some(part.len()) => {
                return Ok((part, End::Complete(range.total)));
            }
            status => {
                let asked = part.len();
                part = blocking(move || part.restart().map(|()| part)).await??;
                let why = format!(
                    "{}: the server answered {status} when asked for the rest from byte {asked}",
                    self.address
                );
                return Ok((part, End::Cut(is_transient(Unreachable, why))));
            }
        };
        self.receive(part, response, told).await
    }

    /// Writes a body to the part. Stops early where the body is longer than announced.
    async fn receive(
        &self,
        part: PartialFile,
        mut response: Response,
        told: Option<u64>,
    ) -> Result<(PartialFile, End), SourceError> {
        let size = self.announced.size.or(told);
        // A server that announces another size is believed: the content is wrong, not cut.
        let whole = told.or(size);
        let mut len = part.len();
        let (chunks, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let writer = blocking(move || part.append_all(receiver));
        let mut lost = None;
        while size.is_none_or(|size| len <= size) {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let arrived = chunk.len() as u64;
                    if chunks.send(chunk).await.is_err() {
                        break; // the disk refused; the writer knows why
                    }
                    len += arrived;
                    self.progress.add(arrived);
                }
                Ok(None) => break,
                Err(error) => {
                    lost = Some(self.hub.connection_error(error, &self.address.to_string()));
                    break;
                }
            }
        }
        drop(chunks);
        let (part, written) = writer.await?;
        written?;
        let short = whole.is_some_and(|whole| part.len() < whole);
        let end = match lost {
            Some(failure) => End::Cut(failure),
            None if short => {
                let why = format!(
                    "{} ended after {} of {} bytes",
                    self.address,
                    part.len(),
                    whole.unwrap_or_default()
                );
                End::Cut(is_transient(Unreachable, why))
            }
            None => End::Complete(told),
        };
        Ok((part, end))
    }

    /// How what is here differs from what was announced.
    fn difference(&self, part: &PartialFile, size: Option<u64>) -> Option<String> {
        if let Some(size) = size.filter(|size| *size != part.len()) {
            return Some(format!("expected {size} bytes, found {}", part.len()));
        }
        let found = part.checksum()?;
        let expected = self.announced.checksum.as_ref().filter(|expected| **expected != found)?;
        Some(format!("expected {expected}, found {found}"))
    }
}

/// `bytes 5-9/10`, or `bytes */10` where nothing is left (RFC 9110, 14.4).
#[derive(Default)]
struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

impl ContentRange {
    fn of(headers: &HeaderMap) -> Self {
        let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((range, total)) = text.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')) else {
            return Self::default();
        };
        let start = range.split_once('-').and_then(|(start, _)| start.parse().ok());
        Self { start, total: total.parse().ok() }
    }
}
