//! Jobs in requests and responses.

pub(crate) mod view;

use axum::http::HeaderMap;
use embeddery_core::TraceContext;
use embeddery_pipeline::{NewDocument, Priority};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use self::view::{find_priority, unknown_priority};
use super::{
    collections::{
        DIMENSIONS, MAX_DIMENSIONS,
        documents::{ChunkingRequest, DocumentFields, OVERLAP, SIZE, check_all, check_chunking},
        model,
    },
    exact_json::ExactObject,
    field::{Bounds, object, objects, variant, whole_number},
};
use crate::{
    Settings,
    collections::{DocumentIdentity, EqualDocument},
    error::{ApiError, ErrorStyle},
    jobs::{JobHeaders, JobParams},
};

/// Maximum number of documents of a job in one JSON body.
pub(crate) const MAX_DOCUMENTS_PER_BODY: usize = 10_000;

/// Maximum length of a content type, and of an idempotency key.
const MAX_HEADER_BYTES: usize = 255;

/// A job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobRequest {
    /// 1 to 10 000 documents; send more as lines of JSON.
    #[serde(deserialize_with = "objects")]
    documents: Vec<JobDocumentRequest>,
    /// Where the documents go. Created when the first is stored, and bound to the model's space.
    #[schema(example = "notes-2026")]
    collection: String,
    /// Which model makes the vectors, named as in a request for embeddings. Without it the collection's own, or else
    /// the default model.
    model: Option<String>,
    /// The model's provider, where its name does not determine it.
    provider: Option<String>,
    /// The requested length of a vector.
    #[serde(default, deserialize_with = "whole_number::<1, MAX_DIMENSIONS, _>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 16384)]
    dimensions: Option<usize>,
    /// How texts are split; `recursive`, 256 tokens, 32 of them shared, when absent.
    #[serde(default, deserialize_with = "object")]
    chunking: Option<ChunkingRequest>,
    /// `high`, `normal` (when absent) or `low`: `high` goes before the caller's other documents, `low` after them.
    #[serde(default, deserialize_with = "variant")]
    #[schema(inline)]
    priority: Option<PriorityField>,
}

/// The values of `priority`.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PriorityField {
    High,
    Normal,
    Low,
}

impl From<PriorityField> for Priority {
    fn from(field: PriorityField) -> Self {
        match field {
            PriorityField::High => Self::High,
            PriorityField::Normal => Self::Normal,
            PriorityField::Low => Self::Low,
        }
    }
}

/// A document of a job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobDocument)]
pub(crate) struct JobDocumentRequest {
    /// Its id. A document with the id of a stored one replaces it. Without one, it is made of the text: a second document
    /// with the same text and the same metadata ends as `superseded`.
    id: Option<String>,
    text: String,
    /// What searches can filter by: strings, numbers, booleans, and lists of them. Up to 64 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<ExactObject>,
    /// A MIME type or a language's name: tells `code` how to read the text.
    content_type: Option<String>,
}

/// The parameters of a job that is sent as lines, in the query of its URL.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobQuery {
    /// With lines of JSON: where the documents go.
    collection: Option<String>,
    /// With lines of JSON: the model.
    model: Option<String>,
    /// With lines of JSON: the model's provider.
    provider: Option<String>,
    /// With lines of JSON: the requested length of a vector.
    dimensions: Option<u64>,
    /// With lines of JSON: how texts are split.
    method: Option<String>,
    /// With lines of JSON: the maximum size of a chunk.
    size: Option<u64>,
    /// With lines of JSON: what two neighbours share.
    overlap: Option<u64>,
    /// With lines of JSON: the unit of sizes.
    unit: Option<String>,
    /// With lines of JSON: `high`, `normal` (when absent) or `low`; `high` goes first.
    priority: Option<String>,
}

/// The parameters and documents of a job. A document that is equal to an earlier one comes with that one.
pub(crate) type CheckedJob = (JobParams, Vec<(NewDocument, Option<EqualDocument>)>);

impl JobRequest {
    /// Checks the documents and the parameters.
    pub(crate) fn check(self, settings: &Settings) -> Result<CheckedJob, ApiError> {
        let count = self.documents.len();
        if count == 0 || count > MAX_DOCUMENTS_PER_BODY {
            let message = format!(
                "documents has {count} elements; 1 to {MAX_DOCUMENTS_PER_BODY} are allowed in a body, more as lines of JSON with `Content-Type: application/x-ndjson`"
            );
            return Err(ApiError::invalid("documents", message));
        }
        let check = |document: JobDocumentRequest| document.check(settings);
        let documents = check_all(self.documents, check, document_identity)?;
        let params = JobParams {
            model: model(self.model, self.provider.as_deref(), self.dimensions)?,
            chunking: check_chunking(self.chunking)?,
            priority: self.priority.map(Priority::from).unwrap_or_default(),
            collection: self.collection,
        };
        Ok((params, documents))
    }
}

impl JobQuery {
    /// Checks the parameters by the rules of a body.
    pub(crate) fn check(self) -> Result<JobParams, ApiError> {
        let dimensions = check_bounds("dimensions", self.dimensions, DIMENSIONS)?;
        let in_chunking = |error: ApiError| error.nested_in("chunking");
        let size = check_bounds("size", self.size, SIZE).map_err(in_chunking)?;
        let overlap = check_bounds("overlap", self.overlap, OVERLAP).map_err(in_chunking)?;
        let chunking = ChunkingRequest { method: self.method, size, overlap, unit: self.unit };
        let invalid = |param: &str, message: String| {
            ApiError::schema(ErrorStyle::Native, Some(param.to_owned()), message)
        };
        let missing = || invalid("collection", "collection is missing; send where the documents go".into());
        let priority = self
            .priority
            .map(|name| find_priority(&name).ok_or_else(|| invalid("priority", unknown_priority(&name))));
        Ok(JobParams {
            model: model(self.model, self.provider.as_deref(), dimensions)?,
            chunking: check_chunking(
                Some(chunking).filter(|chunking| *chunking != ChunkingRequest::default()),
            )?,
            priority: priority.transpose()?.unwrap_or_default(),
            collection: self.collection.ok_or_else(missing)?,
        })
    }

    /// The parameters as JSON, sorted by name. A repeated request is recognised by the hash of this.
    pub(crate) fn canonical_json(&self) -> String {
        let chunking = present([
            ("method", json!(self.method)),
            ("overlap", json!(self.overlap)),
            ("size", json!(self.size)),
            ("unit", json!(self.unit)),
        ]);
        let chunking = if chunking.is_empty() { Value::Null } else { Value::Object(chunking) };
        let fields = present([
            ("chunking", chunking),
            ("collection", json!(self.collection)),
            ("dimensions", json!(self.dimensions)),
            ("model", json!(self.model)),
            ("priority", json!(self.priority)),
            ("provider", json!(self.provider)),
        ]);
        Value::Object(fields).to_string()
    }

    /// Whether the query has no parameter.
    pub(crate) fn is_empty(&self) -> bool {
        self.canonical_json() == "{}"
    }
}

/// The fields that are not `null`.
fn present<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let present = fields.into_iter().filter(|(_, value)| !value.is_null());
    present.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn check_bounds(name: &str, number: Option<u64>, bounds: Bounds) -> Result<Option<usize>, ApiError> {
    let Some(number) = number else { return Ok(None) };
    let outside = || ApiError::invalid(name, format!("{name} is {number}; it must be {bounds}"));
    bounds.check(number).ok_or_else(outside).map(Some)
}

/// What decides whether two documents of a job are the same.
pub(crate) fn document_identity(document: &NewDocument) -> DocumentIdentity<'_> {
    DocumentIdentity {
        id: &document.id,
        text: &document.text,
        metadata: &document.metadata,
        content_type: document.content_type.as_deref(),
    }
}

impl JobDocumentRequest {
    /// Checks a document, and makes the id where there is none.
    pub(crate) fn check(self, settings: &Settings) -> Result<NewDocument, ApiError> {
        let Self { id, text, metadata, content_type } = self;
        if let Some(found) = &content_type
            && (found.is_empty() || found.len() > MAX_HEADER_BYTES || found.chars().any(char::is_control))
        {
            let message = format!(
                "content_type is not 1 to {MAX_HEADER_BYTES} printable bytes; send text/markdown, for example"
            );
            return Err(ApiError::invalid("content_type", message));
        }
        let (id, metadata) = DocumentFields { id, text: &text, metadata }.check(settings)?;
        Ok(NewDocument { id, text, metadata, content_type })
    }
}

impl JobHeaders {
    /// Checks the headers; `trace` is the trace that the request belongs to.
    pub(crate) fn from_headers(headers: &HeaderMap, trace: Option<TraceContext>) -> Result<Self, ApiError> {
        let idempotency_key = match headers.get("idempotency-key") {
            None => None,
            Some(key) => match key.to_str() {
                Ok(key) if (1..=MAX_HEADER_BYTES).contains(&key.len()) => Some(key.to_owned()),
                _ => {
                    let message = format!(
                        "Idempotency-Key is not 1 to {MAX_HEADER_BYTES} visible ASCII characters; a UUID is usual"
                    );
                    return Err(ApiError::invalid("Idempotency-Key", message));
                }
            },
        };
        Ok(Self { idempotency_key, traceparent: trace.map(|trace| trace.to_string().into()) })
    }
}

/// A page of jobs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// Only those: `pending`, `running`, `completed`, `partial`, `failed` or `cancelled`.
    pub(crate) status: Option<String>,
    /// The last job of the page before.
    pub(crate) after: Option<String>,
    /// How many, 1 to 1000; 100 when absent.
    pub(crate) limit: Option<usize>,
}

/// A page of a job's documents.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobDocumentsQuery {
    /// Only those: `chunking`, `embedding`, `storage`, `stored`, `failed`, `skipped`, `cancelled` or
    /// `superseded`.
    pub(crate) status: Option<String>,
    /// The last index of the page before.
    pub(crate) after: Option<u32>,
    /// How many, 1 to 1000; 100 when absent.
    pub(crate) limit: Option<usize>,
}

/// A query parameter that has one of these values.
pub(crate) fn enum_param<T: Copy>(
    name: &str,
    found: Option<&str>,
    values: &[(T, &str)],
) -> Result<Option<T>, ApiError> {
    let Some(found) = found else { return Ok(None) };
    let known = values.iter().find(|(_, name)| *name == found);
    known.map(|(value, _)| Some(*value)).ok_or_else(|| {
        let values: Vec<&str> = values.iter().map(|(_, name)| *name).collect();
        ApiError::invalid(name, format!("{name} is '{found}'; known are {}", values.join(", ")))
    })
}

/// Checks the size of a page.
pub(crate) fn page_limit(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(100);
    if (1..=1000).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid("limit", format!("limit is {limit}; it must be between 1 and 1000")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> JobQuery {
        axum::extract::Query::try_from_uri(&format!("/?{text}").parse().unwrap()).unwrap().0
    }

    #[test]
    fn the_hashed_form_of_a_query_is_the_one_of_earlier_versions() {
        let all = "unit=words&size=50&priority=high&overlap=5&provider=openai&model=m&method=words&dimensions=8&collection=c";
        assert_eq!(
            query(all).canonical_json(),
            r#"{"chunking":{"method":"words","overlap":5,"size":50,"unit":"words"},"collection":"c","dimensions":8,"model":"m","priority":"high","provider":"openai"}"#
        );
        assert_eq!(query("collection=c").canonical_json(), r#"{"collection":"c"}"#);
        assert!(query("").is_empty());
    }
}
