//! The two forms of a submission: one JSON body, or lines of JSON that are stored as they come.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{header::CONTENT_TYPE, request::Parts},
};
use embeddery_core::TraceContext;
use embeddery_pipeline::Job;
use serde_json::Value;

use crate::{
    App,
    body::HashedObject,
    collections::{CollectionService, DocumentIds},
    error::{ApiError, Dialect},
    jobs::{JobHeaders, JobParams},
    ndjson::{self, Lines},
    wire::{
        fields::{Fields, kind},
        jobs::{JobQuery, documents, job_document},
    },
};

/// A job's body.
pub(in crate::routes) enum Submission {
    Whole(HashedObject),
    Lines(Lines),
}

impl FromRequest<Arc<App>> for Submission {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let announced =
            request.headers().get(CONTENT_TYPE).map(|found| String::from_utf8_lossy(found.as_bytes()));
        if announced.is_some_and(|found| ndjson::is_lines(&found)) {
            Lines::from_request(request, app).await.map(Self::Lines)
        } else {
            HashedObject::from_request(request, app).await.map(Self::Whole)
        }
    }
}

impl FromRequestParts<Arc<App>> for JobHeaders {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Self::read(&parts.headers, parts.extensions.get::<TraceContext>().copied())
    }
}

impl Submission {
    pub(super) async fn submit(
        self,
        desk: &CollectionService,
        sender: JobHeaders,
        query: JobQuery,
    ) -> Result<Job, ApiError> {
        match self {
            Self::Whole(HashedObject(mut fields, hash)) => {
                if !query.into_map().is_empty() {
                    let message = "the query speaks for lines of JSON; a JSON body says all itself";
                    return Err(ApiError::invalid("query", message));
                }
                let documents = documents(&mut fields, desk.settings())?;
                let mut upload = desk.open_job(JobParams::read(fields)?, sender).await?;
                for document in documents {
                    upload.add(document).await?;
                }
                upload.finish(hash).await
            }
            Self::Lines(lines) => by_line(desk, sender, (query, lines)).await,
        }
    }
}

/// Takes documents line by line. Two requests are the same when their words and their lines are.
async fn by_line(
    desk: &CollectionService,
    sender: JobHeaders,
    (query, mut lines): (JobQuery, Lines),
) -> Result<Job, ApiError> {
    let words = query.into_map();
    let mut hasher = blake3::Hasher::new();
    hasher.update(Value::Object(words.clone()).to_string().as_bytes());
    let mut upload = desk.open_job(JobParams::read(Fields::new(words, Dialect::Native))?, sender).await?;
    let most = desk.app().jobs.limits.documents;
    let mut ids = DocumentIds::new(|first| format!("line {first}"));
    while let Some((number, line)) = lines.next().await? {
        let line = line.trim_ascii();
        hasher.update(b"\n").update(line);
        let in_line = |error: ApiError| error.in_job_line(number);
        if upload.len() >= most as usize {
            let message = format!("there are more than {most} documents; send them as several jobs");
            return Err(in_line(ApiError::invalid("documents", message)));
        }
        let document = match serde_json::from_slice(line) {
            Ok(Value::Object(map)) => job_document(Fields::new(map, Dialect::Native), desk.settings()),
            Ok(other) => {
                let message = format!("it is {}, an object is due", kind(&other));
                Err(ApiError::schema(Dialect::Native, None, message))
            }
            Err(error) => Err(ApiError::not_json(format!("it is not JSON: {error}"))),
        }
        .map_err(in_line)?;
        ids.insert(&document.id, number, "it")
            .map_err(|message| in_line(ApiError::invalid("id", message)))?;
        upload.add(document).await.map_err(in_line)?;
    }
    if upload.len() == 0 {
        return Err(ApiError::invalid("documents", "there is no line; send at least one document"));
    }
    upload.finish(*hasher.finalize().as_bytes()).await
}
