//! Jobs as callers write and read them.

pub(crate) mod operator;
pub(crate) mod view;

use axum::http::HeaderMap;
use embeddery_chunk::{ChunkConfig, Method};
use embeddery_core::TraceContext;
use embeddery_pipeline::NewDocument;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use self::view::PRIORITIES;
use super::{
    collections::{
        documents::{ChunkingPicture, chunking, document},
        model,
    },
    fields::{Fields, kind},
};
use crate::{
    Settings,
    collections::DocumentIds,
    error::ApiError,
    jobs::{JobHeaders, JobParams},
};

/// Documents of a job that comes as one JSON body.
pub(crate) const MOST_DOCUMENTS: usize = 10_000;

/// Bytes of a content type, and of an idempotency key.
const LONGEST_WORD: usize = 255;

/// A job.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct JobRequest {
    /// Where the documents go. Made when the first is stored, and bound to the model's space.
    #[schema(example = "notes-2026")]
    collection: String,
    /// 1 to 10 000 documents; send more as lines of JSON.
    #[schema(value_type = Vec<JobDocument>)]
    documents: Vec<Value>,
    /// Which model makes the vectors, as a request for embeddings names it. Without it the collection's own, or else
    /// the default model.
    model: Option<String>,
    /// Who serves the model, where its name does not say.
    provider: Option<String>,
    /// The wanted length of a vector.
    #[schema(minimum = 1)]
    dimensions: Option<u32>,
    /// How texts are cut; `recursive`, 256 tokens, 32 of them shared, when absent.
    chunking: Option<ChunkingPicture>,
    /// `high`, `normal` (when absent) or `low`: `high` goes before the caller's other documents, `low` after them.
    priority: Option<String>,
}

/// A document of a job.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct JobDocument {
    /// Its id, which a later version of it has, too. Without one, made of the text.
    id: Option<String>,
    text: String,
    /// What searches can filter by: strings, numbers, booleans, and lists of them. Up to 64 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// A MIME type or a language's name: tells `code` how to read the text.
    content_type: Option<String>,
}

/// What a job of lines says in its address.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobQuery {
    /// With lines of JSON: where the documents go.
    collection: Option<String>,
    /// With lines of JSON: the model.
    model: Option<String>,
    /// With lines of JSON: who serves the model.
    provider: Option<String>,
    /// With lines of JSON: the wanted length of a vector.
    dimensions: Option<u64>,
    /// With lines of JSON: how texts are cut.
    method: Option<String>,
    /// With lines of JSON: the largest chunk.
    size: Option<u64>,
    /// With lines of JSON: what two neighbours share.
    overlap: Option<u64>,
    /// With lines of JSON: what sizes are counted in.
    unit: Option<String>,
    /// With lines of JSON: `high`, `normal` (when absent) or `low`; `high` goes first.
    priority: Option<String>,
}

impl JobQuery {
    /// The same words as a body would have, so that one reader checks both.
    pub(crate) fn into_map(self) -> Map<String, Value> {
        let mut map = Map::new();
        let put = |map: &mut Map<String, Value>, name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        let mut chunking = Map::new();
        put(&mut chunking, "method", self.method.map(Value::from));
        put(&mut chunking, "size", self.size.map(Value::from));
        put(&mut chunking, "overlap", self.overlap.map(Value::from));
        put(&mut chunking, "unit", self.unit.map(Value::from));
        put(&mut map, "collection", self.collection.map(Value::from));
        put(&mut map, "model", self.model.map(Value::from));
        put(&mut map, "provider", self.provider.map(Value::from));
        put(&mut map, "dimensions", self.dimensions.map(Value::from));
        put(&mut map, "priority", self.priority.map(Value::from));
        if !chunking.is_empty() {
            map.insert("chunking".into(), Value::Object(chunking));
        }
        map
    }
}

impl JobParams {
    /// Reads all but the documents.
    pub(crate) fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let collection = fields.text("collection")?;
        let model = model(&mut fields, "model")?;
        let chunking = chunking(&mut fields, usual())?;
        let priority = fields.choice("priority", &PRIORITIES)?.unwrap_or_default();
        let Some(collection) = collection else {
            let message = "collection is missing; name where the documents go";
            return Err(fields.unfit(Some("collection".into()), message.into()));
        };
        fields.finish()?;
        Ok(Self { collection, model, chunking, priority })
    }
}

/// How texts of jobs are cut when nothing is said.
fn usual() -> ChunkConfig {
    ChunkConfig::new(Method::Recursive, None, None, None).unwrap_or(ChunkConfig::WHOLE)
}

/// The documents of a JSON body.
pub(crate) fn documents(fields: &mut Fields, settings: &Settings) -> Result<Vec<NewDocument>, ApiError> {
    let list = match fields.take("documents") {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(fields.mismatch("documents", &other, "a list of documents")),
        None => {
            let message = "documents is missing; send a list of {\"id\", \"text\", \"metadata\"}";
            return Err(fields.unfit(Some("documents".into()), message.into()));
        }
    };
    if list.is_empty() || list.len() > MOST_DOCUMENTS {
        let message = format!(
            "documents has {} elements; 1 to {MOST_DOCUMENTS} are allowed in a body, more as lines of JSON with `Content-Type: application/x-ndjson`",
            list.len()
        );
        return Err(ApiError::invalid("documents", message));
    }
    let mut documents = Vec::with_capacity(list.len());
    let mut ids = DocumentIds::new(|first| format!("documents[{first}]"));
    for (index, item) in list.into_iter().enumerate() {
        let place = format!("documents[{index}]");
        let Value::Object(map) = item else {
            return Err(
                fields.unfit(Some(place.clone()), format!("{place} is {}, an object is due", kind(&item)))
            );
        };
        let document = job_document(fields.part(map), settings).map_err(|error| error.within(&place))?;
        ids.insert(&document.id, index as u64, &place)
            .map_err(|message| ApiError::invalid(place, message))?;
        documents.push(document);
    }
    Ok(documents)
}

/// One document, the whole of an object.
pub(crate) fn job_document(mut fields: Fields, settings: &Settings) -> Result<NewDocument, ApiError> {
    let content_type = fields.text("content_type")?;
    if let Some(found) = &content_type
        && (found.is_empty() || found.len() > LONGEST_WORD || found.chars().any(char::is_control))
    {
        let message = format!(
            "content_type is not 1 to {LONGEST_WORD} printable bytes; send text/markdown, for example"
        );
        return Err(ApiError::invalid("content_type", message));
    }
    let document = document(fields, settings)?;
    Ok(NewDocument {
        id: document.id,
        text: document.text.to_string(),
        metadata: document.metadata,
        content_type,
    })
}

impl JobHeaders {
    /// Reads the headers; `trace` is what the request is a part of.
    pub(crate) fn read(headers: &HeaderMap, trace: Option<TraceContext>) -> Result<Self, ApiError> {
        let idempotency_key = match headers.get("idempotency-key") {
            None => None,
            Some(key) => match key.to_str() {
                Ok(key) if (1..=LONGEST_WORD).contains(&key.len()) => Some(key.to_owned()),
                _ => {
                    let message = format!(
                        "Idempotency-Key is not 1 to {LONGEST_WORD} visible ASCII characters; a UUID is usual"
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

/// A word of a query, among those it could be.
pub(crate) fn word<T: Copy>(
    name: &str,
    found: Option<&str>,
    words: &[(T, &str)],
) -> Result<Option<T>, ApiError> {
    let Some(found) = found else { return Ok(None) };
    let known = words.iter().find(|(_, word)| *word == found);
    known.map(|(value, _)| Some(*value)).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
        ApiError::invalid(name, format!("{name} is '{found}'; known are {}", words.join(", ")))
    })
}

/// How many a page may hold.
pub(crate) fn limit(asked: Option<usize>) -> Result<usize, ApiError> {
    let limit = asked.unwrap_or(100);
    if (1..=1000).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid("limit", format!("limit is {limit}; it must be between 1 and 1000")))
}
