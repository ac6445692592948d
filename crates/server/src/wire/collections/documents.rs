//! Documents as callers write and read them.

use std::collections::HashMap;

use embeddery_chunk::ChunkConfig;
use embeddery_store::{DocumentView, Filter, StoredDocument};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::metadata;
use crate::{
    Settings,
    collections::{Added, NewDocument},
    error::ApiError,
    wire::fields::{Fields, kind},
};

/// Bytes of a document's id.
const LONGEST_ID: usize = 512;

/// Documents to be stored.
#[derive(ToSchema)]
pub(crate) struct AddRequest {
    /// 1 to 2048 documents.
    #[schema(value_type = Vec<DocumentPicture>)]
    pub(crate) documents: Vec<NewDocument>,
    /// How texts are cut; without it a document is one chunk.
    #[schema(value_type = Option<ChunkingPicture>)]
    pub(crate) chunking: ChunkConfig,
}

/// A document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture")]
struct DocumentPicture {
    /// Its id, which a later version of it has, too. Without one, made of the text.
    id: Option<String>,
    text: String,
    /// What searches can filter by: strings, numbers, booleans, and lists of them. Up to 64 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// How texts are cut.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture")]
pub(crate) struct ChunkingPicture {
    /// `none`, `recursive`, `markdown`, `code`, `paragraphs`, `sentences`, `words`, `tokens` or `fixed_size`.
    method: String,
    /// The largest chunk; 256 tokens, 200 words or 1000 characters when absent.
    size: Option<u32>,
    /// What two neighbours share; an eighth of size when absent.
    overlap: Option<u32>,
    /// `characters`, `words` or `tokens`.
    unit: Option<String>,
}

impl AddRequest {
    pub(crate) fn read(mut fields: Fields, settings: &Settings) -> Result<Self, ApiError> {
        let list = match fields.take("documents") {
            Some(Value::Array(list)) => list,
            Some(other) => return Err(fields.mismatch("documents", &other, "a list of documents")),
            None => {
                let message = "documents is missing; send a list of {\"id\", \"text\", \"metadata\"}";
                return Err(fields.unfit(Some("documents".into()), message.into()));
            }
        };
        let chunking = chunking(&mut fields, ChunkConfig::WHOLE)?;
        if list.is_empty() || list.len() > settings.max_inputs {
            let message = format!(
                "documents has {} elements; 1 to {} are allowed in a request",
                list.len(),
                settings.max_inputs
            );
            return Err(ApiError::invalid("documents", message));
        }
        let mut documents = Vec::with_capacity(list.len());
        let mut seen = HashMap::new();
        for (index, item) in list.into_iter().enumerate() {
            let place = format!("documents[{index}]");
            let Value::Object(map) = item else {
                return Err(fields
                    .unfit(Some(place.clone()), format!("{place} is {}, an object is due", kind(&item))));
            };
            let document = document(fields.part(map), settings).map_err(|error| error.within(&place))?;
            if let Some(first) = seen.insert(document.id.clone(), index) {
                let message = format!("{place} has the id of documents[{first}], or its text and no id");
                return Err(ApiError::invalid(place, message));
            }
            documents.push(document);
        }
        fields.finish()?;
        Ok(Self { documents, chunking })
    }
}

/// One document, the whole of an object.
pub(crate) fn document(mut fields: Fields, settings: &Settings) -> Result<NewDocument, ApiError> {
    let id = fields.text("id")?;
    let text = fields.text("text")?;
    let metadata = metadata(&mut fields)?.unwrap_or_default();
    let Some(text) = text else {
        return Err(fields.unfit(Some("text".into()), "text is missing".into()));
    };
    fields.finish()?;
    let text = checked_text(text, settings)?;
    let id = match id {
        Some(id) => check_id(id)?,
        None => blake3::hash(text.as_bytes()).to_hex()[..32].to_owned(),
    };
    Ok(NewDocument { id, text: text.into(), metadata })
}

/// A text that can be embedded.
pub(crate) fn checked_text(text: String, settings: &Settings) -> Result<String, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid("text", "text is blank; leave the document out or send a text"));
    }
    if text.len() > settings.text_limit {
        let message = format!("text has {} bytes, {} are allowed; split it", text.len(), settings.text_limit);
        return Err(ApiError::invalid("text", message));
    }
    Ok(text)
}

/// An id that can stand in a path and a line.
pub(crate) fn check_id(id: String) -> Result<String, ApiError> {
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(ApiError::invalid(
            "id",
            format!("id has {} bytes; 1 to {LONGEST_ID} are allowed", id.len()),
        ));
    }
    if id.chars().any(char::is_control) {
        return Err(ApiError::invalid("id", "id holds a control character"));
    }
    Ok(id)
}

/// How texts are cut; `usual` when nothing is said.
pub(crate) fn chunking(fields: &mut Fields, usual: ChunkConfig) -> Result<ChunkConfig, ApiError> {
    let Some(map) = fields.object("chunking")? else { return Ok(usual) };
    let mut fields = fields.part(map);
    let within = |error: ApiError| error.within("chunking");
    let method = fields.text("method").map_err(within)?;
    let size = fields.bounded("size", 1..=1_000_000).map_err(within)?;
    let overlap = fields.bounded("overlap", 0..=1_000_000).map_err(within)?;
    let unit = fields.text("unit").map_err(within)?;
    fields.finish().map_err(within)?;
    let rule = || {
        let method = method.as_deref().unwrap_or("recursive").parse()?;
        ChunkConfig::new(method, size, overlap, unit.as_deref().map(str::parse).transpose()?)
    };
    rule().map_err(|error: embeddery_chunk::ChunkConfigError| {
        ApiError::invalid("chunking", format!("chunking: {error}"))
    })
}

/// What became of the documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct AddAnswer {
    /// Vectors that are new.
    added: u64,
    /// Vectors that were there already; they cost nothing.
    unchanged: u64,
    /// Vectors of chunks that are no more.
    removed: u64,
    documents: Vec<AddedView>,
}

/// A document and its chunks.
#[derive(Serialize, ToSchema)]
struct AddedView {
    id: String,
    chunks: usize,
}

impl From<Added> for AddAnswer {
    fn from(added: Added) -> Self {
        let documents = added.documents.into_iter().map(|(id, chunks)| AddedView { id, chunks }).collect();
        let written = added.written;
        Self { added: written.added, unchanged: written.kept, removed: written.removed, documents }
    }
}

/// A page of documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocumentsAnswer {
    documents: Vec<ListedView>,
    /// Send it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A document in a list.
#[derive(Serialize, ToSchema)]
struct ListedView {
    id: String,
    chunks: u64,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

impl DocumentsAnswer {
    pub(crate) fn new(documents: Vec<DocumentView>, limit: usize) -> Self {
        let next = if documents.len() == limit { documents.last().map(|last| last.id.clone()) } else { None };
        let documents = documents
            .into_iter()
            .map(|DocumentView { id, metadata, chunks }| ListedView { id, chunks, metadata })
            .collect();
        Self { documents, next }
    }
}

/// A document with its chunks.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocumentAnswer {
    id: String,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    chunks: Vec<ChunkView>,
}

/// A chunk.
#[derive(Serialize, ToSchema)]
struct ChunkView {
    /// The vector's id.
    id: String,
    text: String,
    #[serde(flatten)]
    place: PlaceView,
    /// The headings above it, outermost first: of `markdown`.
    headings: Vec<String>,
}

/// Where a chunk stands in its document: from, up to.
#[derive(Serialize, ToSchema)]
pub(super) struct PlaceView {
    bytes: [u64; 2],
    characters: [u64; 2],
}

impl From<embeddery_store::TextSpan> for PlaceView {
    fn from(span: embeddery_store::TextSpan) -> Self {
        Self { bytes: [span.bytes.0, span.bytes.1], characters: [span.characters.0, span.characters.1] }
    }
}

impl From<StoredDocument> for DocumentAnswer {
    fn from(document: StoredDocument) -> Self {
        let chunks = document
            .chunks
            .into_iter()
            .map(|chunk| ChunkView {
                id: chunk.id.to_string(),
                text: chunk.text,
                place: chunk.span.into(),
                headings: chunk.headings,
            })
            .collect();
        Self { id: document.id, metadata: document.metadata, chunks }
    }
}

/// Which documents to delete: one of the two.
#[derive(ToSchema)]
pub(crate) struct DeleteRequest {
    pub(crate) ids: Option<Vec<String>>,
    /// As in a search.
    #[schema(value_type = Option<Object>)]
    pub(crate) filter: Option<Filter>,
}

impl DeleteRequest {
    pub(crate) fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let ids = match fields.take("ids") {
            None => None,
            Some(value) => match serde_json::from_value::<Vec<String>>(value.clone()) {
                Ok(ids) => Some(ids),
                Err(_) => return Err(fields.mismatch("ids", &value, "a list of ids")),
            },
        };
        let filter = fields.take("filter");
        if ids.is_some() == filter.is_some() {
            let message = "send either ids or filter; to delete all, delete the collection";
            return Err(fields.unfit(Some("filter".into()), message.into()));
        }
        let filter = filter.map(|filter| Filter::parse(&filter)).transpose()?;
        if filter == Some(Filter::And(Vec::new())) {
            return Err(ApiError::invalid("filter", "filter is empty; to delete all, delete the collection"));
        }
        fields.finish()?;
        Ok(Self { ids, filter })
    }
}

/// How many are gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeleteAnswer {
    pub(crate) deleted: u64,
}

/// A page of a list.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// The last id of the page before.
    pub(crate) after: Option<String>,
    /// How many, 1 to 1000; 100 when absent.
    pub(crate) limit: Option<usize>,
}

impl PageQuery {
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        let limit = self.limit.unwrap_or(100);
        if (1..=1000).contains(&limit) {
            Ok(limit)
        } else {
            Err(ApiError::invalid("limit", format!("limit is {limit}; it must be between 1 and 1000")))
        }
    }
}
