//! The two forms of a submission: one JSON body, or lines of JSON that are stored while they arrive.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{header::CONTENT_TYPE, request::Parts},
};
use embeddery_core::TraceContext;
use embeddery_pipeline::Job;

use crate::{
    App,
    body::JsonBody,
    collections::{CollectionService, DocumentIds},
    error::{ApiError, ErrorStyle},
    jobs::JobHeaders,
    ndjson::{self, Lines},
    wire::{
        jobs::{JobDocumentRequest, JobQuery, JobRequest, document_identity},
        parse::{self, Source},
    },
};

/// The body of a request that submits a job.
pub(in crate::routes) enum Submission {
    Json { request: Box<JobRequest>, body_hash: [u8; 32] },
    Lines(Lines),
}

impl FromRequest<Arc<App>> for Submission {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let content_type =
            request.headers().get(CONTENT_TYPE).map(|found| String::from_utf8_lossy(found.as_bytes()));
        if content_type.is_some_and(|found| ndjson::is_ndjson(&found)) {
            Lines::from_request(request, app).await.map(Self::Lines)
        } else {
            let (JsonBody(request), body_hash) = JsonBody::with_hash(request, app).await?;
            Ok(Self::Json { request: Box::new(request), body_hash })
        }
    }
}

impl FromRequestParts<Arc<App>> for JobHeaders {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Self::from_headers(&parts.headers, parts.extensions.get::<TraceContext>().copied())
    }
}

impl Submission {
    pub(super) async fn submit(
        self,
        service: &CollectionService,
        headers: JobHeaders,
        query: JobQuery,
    ) -> Result<Job, ApiError> {
        match self {
            Self::Json { request, body_hash } => {
                if !query.is_empty() {
                    let message = "the query is for lines of JSON; send the parameters in the JSON body";
                    return Err(ApiError::invalid("query", message));
                }
                let (params, documents) = request.check(service.settings())?;
                let mut upload = service.open_job(params, headers).await?;
                for (document, equal) in documents {
                    upload.add(document, equal).await?;
                }
                upload.finish(body_hash).await
            }
            Self::Lines(lines) => JsonLinesSubmission { service, headers, query }.submit(lines).await,
        }
    }
}

/// A submission of lines, one document each.
struct JsonLinesSubmission<'a> {
    service: &'a CollectionService,
    headers: JobHeaders,
    query: JobQuery,
}

impl JsonLinesSubmission<'_> {
    /// Parses each line and adds its document to the upload, which writes them in batches. Two submissions are the same
    /// if their parameters and their lines are the same.
    async fn submit(self, mut lines: Lines) -> Result<Job, ApiError> {
        let Self { service, headers, query } = self;
        let mut hasher = blake3::Hasher::new();
        hasher.update(query.canonical_json().as_bytes());
        let mut upload = service.open_job(query.check()?, headers).await?;
        let max_documents = service.app().jobs.limits.documents;
        let mut ids = DocumentIds::new(|first| format!("line {first}"));
        while let Some((number, line)) = lines.next().await? {
            let line = line.trim_ascii();
            hasher.update(b"\n").update(line);
            let with_line = |error: ApiError| error.with_job_line(number);
            if upload.len() >= max_documents as usize {
                let message =
                    format!("there are more than {max_documents} documents; send them as several jobs");
                return Err(with_line(ApiError::invalid("documents", message)));
            }
            let source = Source { name: "the line", style: ErrorStyle::Native };
            let document = parse::from_slice::<JobDocumentRequest>(line, source)
                .and_then(|document| document.check(service.settings()))
                .map_err(with_line)?;
            let equal = ids
                .insert(document_identity(&document), number, "the line")
                .map_err(|message| with_line(ApiError::invalid("id", message)))?;
            upload.add(document, equal).await.map_err(with_line)?;
        }
        if upload.len() == 0 {
            return Err(ApiError::invalid("documents", "the body is empty; send at least one document"));
        }
        upload.finish(*hasher.finalize().as_bytes()).await
    }
}
