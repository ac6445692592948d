//! Documents in requests and responses.

use embeddery_chunk::ChunkConfig;
use embeddery_store::{DocumentView, Filter, StoredDocument};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::check_metadata;
use crate::{
    Settings,
    collections::{Added, DocumentIds, NewDocument},
    error::{ApiError, ErrorStyle},
    wire::field::{Bounds, object, objects, whole_number},
};

/// Maximum length of a document's id.
const MAX_ID_BYTES: usize = 512;

/// Documents to store.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddDocumentsRequest {
    /// 1 to 2048 documents.
    #[serde(deserialize_with = "objects")]
    documents: Vec<DocumentRequest>,
    /// How texts are split; `recursive`, 256 tokens, 32 of them shared, when absent.
    #[serde(default, deserialize_with = "object")]
    chunking: Option<ChunkingRequest>,
}

/// A document.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentRequest {
    /// Its id. A document with the id of a stored one replaces it. Without one, it is made of the text.
    pub(crate) id: Option<String>,
    pub(crate) text: String,
    /// What searches can filter by: strings, numbers, booleans, and lists of them. Up to 64 KiB.
    #[schema(value_type = Option<Object>)]
    pub(crate) metadata: Option<Map<String, Value>>,
}

/// How texts are split into chunks.
#[derive(Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Chunking)]
pub(crate) struct ChunkingRequest {
    /// `none`, `recursive`, `markdown`, `code`, `paragraphs`, `sentences`, `words`, `tokens` or `fixed_size`;
    /// `recursive` when absent. `none` refuses a text that the model does not read whole.
    pub(crate) method: Option<String>,
    /// The maximum size of a chunk; 256 tokens, 200 words or 1000 characters when absent. Never more than the model reads.
    #[serde(default, deserialize_with = "whole_number::<1, MAX_CHUNK, _>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    pub(crate) size: Option<usize>,
    /// What two neighbours share; an eighth of size when absent.
    #[serde(default, deserialize_with = "whole_number::<0, MAX_CHUNK, _>")]
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    pub(crate) overlap: Option<usize>,
    /// `characters`, `words` or `tokens`.
    pub(crate) unit: Option<String>,
}

/// Bounds of `size` and `overlap`.
pub(crate) const SIZE: Bounds = Bounds { min: 1, max: MAX_CHUNK };
pub(crate) const OVERLAP: Bounds = Bounds { min: 0, max: MAX_CHUNK };
const MAX_CHUNK: usize = 1_000_000;

impl AddDocumentsRequest {
    pub(crate) fn check(self, settings: &Settings) -> Result<(Vec<NewDocument>, ChunkConfig), ApiError> {
        let chunking = check_chunking(self.chunking)?;
        let (count, max) = (self.documents.len(), settings.max_inputs);
        if count == 0 || count > max {
            let message = format!("documents has {count} elements; 1 to {max} are allowed in a request");
            return Err(ApiError::invalid("documents", message));
        }
        let check = |document: DocumentRequest| document.check(settings);
        let documents = check_all(self.documents, check, |document| &document.id)?;
        Ok((documents, chunking))
    }
}

/// Checks each document, and that no two have the same id.
pub(crate) fn check_all<R, D>(
    requests: Vec<R>,
    check: impl Fn(R) -> Result<D, ApiError>,
    id: impl Fn(&D) -> &str,
) -> Result<Vec<D>, ApiError> {
    let mut documents = Vec::with_capacity(requests.len());
    let mut ids = DocumentIds::new(|first| format!("documents[{first}]"));
    for (index, request) in requests.into_iter().enumerate() {
        let path = format!("documents[{index}]");
        let document = check(request).map_err(|error| error.nested_in(&path))?;
        ids.insert(id(&document), index as u64, &path).map_err(|message| ApiError::invalid(path, message))?;
        documents.push(document);
    }
    Ok(documents)
}

impl DocumentRequest {
    /// Checks a document, and makes the id where there is none.
    pub(crate) fn check(self, settings: &Settings) -> Result<NewDocument, ApiError> {
        let Self { id, text, metadata } = self;
        let (id, metadata) = DocumentFields { id, text: &text, metadata }.check(settings)?;
        Ok(NewDocument { id, text: text.into(), metadata })
    }
}

/// What every document has, however it is sent.
pub(crate) struct DocumentFields<'a> {
    pub(crate) id: Option<String>,
    pub(crate) text: &'a str,
    pub(crate) metadata: Option<Map<String, Value>>,
}

impl DocumentFields<'_> {
    /// Checks the fields; returns the id, made of the text where there is none, and the metadata.
    pub(crate) fn check(self, settings: &Settings) -> Result<(String, Map<String, Value>), ApiError> {
        let metadata = self.metadata.unwrap_or_default();
        check_metadata(&metadata)?;
        check_text(self.text, settings)?;
        let id = match self.id {
            Some(id) => check_id(id)?,
            None => blake3::hash(self.text.as_bytes()).to_hex()[..32].to_owned(),
        };
        Ok((id, metadata))
    }
}

/// Checks that a text can be embedded.
pub(crate) fn check_text(text: &str, settings: &Settings) -> Result<(), ApiError> {
    if text.trim_start_matches('\u{FEFF}').trim().is_empty() {
        return Err(ApiError::invalid("text", "text is blank; omit the document or send a text"));
    }
    if text.len() > settings.text_limit {
        let message =
            format!("text has {} bytes; the limit is {}; split it", text.len(), settings.text_limit);
        return Err(ApiError::invalid("text", message));
    }
    Ok(())
}

/// Checks that an id can be part of a path and of a line.
pub(crate) fn check_id(id: String) -> Result<String, ApiError> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(ApiError::invalid(
            "id",
            format!("id has {} bytes; 1 to {MAX_ID_BYTES} are allowed", id.len()),
        ));
    }
    if id.chars().any(char::is_control) {
        return Err(ApiError::invalid("id", "id has a control character"));
    }
    Ok(id)
}

/// How texts are split. The default is the same for inline documents, imports and jobs.
pub(crate) fn check_chunking(request: Option<ChunkingRequest>) -> Result<ChunkConfig, ApiError> {
    let Some(ChunkingRequest { method, size, overlap, unit }) = request else {
        return Ok(ChunkConfig::default());
    };
    let rule = || {
        let method = method.as_deref().unwrap_or("recursive").parse()?;
        ChunkConfig::new(method, size, overlap, unit.as_deref().map(str::parse).transpose()?)
    };
    rule().map_err(|error: embeddery_chunk::ChunkConfigError| {
        ApiError::invalid("chunking", format!("chunking: {error}"))
    })
}

/// What was stored.
#[derive(Serialize, ToSchema)]
pub(crate) struct AddDocumentsResponse {
    /// Vectors that are new.
    added: u64,
    /// Vectors that were there already; they cost nothing.
    unchanged: u64,
    /// Vectors of removed chunks.
    removed: u64,
    /// Chunks whose end the model did not read; absent when none.
    #[serde(skip_serializing_if = "is_zero")]
    truncated: u64,
    documents: Vec<AddedDocument>,
}

/// Whether a count is left out of a response.
pub(crate) fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A document and its chunks.
#[derive(Serialize, ToSchema)]
struct AddedDocument {
    id: String,
    chunks: usize,
}

impl From<Added> for AddDocumentsResponse {
    fn from(added: Added) -> Self {
        let documents =
            added.documents.into_iter().map(|(id, chunks)| AddedDocument { id, chunks }).collect();
        let (written, truncated) = (added.written, added.truncated);
        Self { added: written.added, unchanged: written.kept, removed: written.removed, truncated, documents }
    }
}

/// A page of documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocumentListResponse {
    documents: Vec<ListedDocument>,
    /// Send it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A document in a list.
#[derive(Serialize, ToSchema)]
struct ListedDocument {
    id: String,
    chunks: u64,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

impl DocumentListResponse {
    pub(crate) fn new(documents: Vec<DocumentView>, limit: usize) -> Self {
        let next = if documents.len() == limit { documents.last().map(|last| last.id.clone()) } else { None };
        let documents = documents
            .into_iter()
            .map(|DocumentView { id, metadata, chunks }| ListedDocument { id, chunks, metadata })
            .collect();
        Self { documents, next }
    }
}

/// A document with its chunks.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocumentResponse {
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
    span: SpanView,
    /// The headings above it, outermost first: of `markdown`.
    headings: Vec<String>,
}

/// The position of a chunk in its document: start and end.
#[derive(Serialize, ToSchema)]
pub(super) struct SpanView {
    bytes: [u64; 2],
    characters: [u64; 2],
}

impl From<embeddery_store::TextSpan> for SpanView {
    fn from(span: embeddery_store::TextSpan) -> Self {
        Self { bytes: [span.bytes.0, span.bytes.1], characters: [span.characters.0, span.characters.1] }
    }
}

impl From<StoredDocument> for DocumentResponse {
    fn from(document: StoredDocument) -> Self {
        let chunks = document
            .chunks
            .into_iter()
            .map(|chunk| ChunkView {
                id: chunk.id.to_string(),
                text: chunk.text,
                span: chunk.span.into(),
                headings: chunk.headings,
            })
            .collect();
        Self { id: document.id, metadata: document.metadata, chunks }
    }
}

/// Which documents to delete: one of the two.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteDocumentsRequest {
    ids: Option<Vec<String>>,
    /// As in a search.
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
}

/// Which documents to delete, checked.
pub(crate) enum Deletion {
    Ids(Vec<String>),
    Filter(Filter),
}

impl DeleteDocumentsRequest {
    pub(crate) fn check(self) -> Result<Deletion, ApiError> {
        match (self.ids, self.filter) {
            (Some(ids), None) => Ok(Deletion::Ids(ids)),
            (None, Some(filter)) => match Filter::parse(&filter)? {
                Filter::And(all) if all.is_empty() => {
                    let message = "filter is empty; to delete all, delete the collection";
                    Err(ApiError::invalid("filter", message))
                }
                filter => Ok(Deletion::Filter(filter)),
            },
            _ => {
                let message = "send either ids or filter; to delete all, delete the collection";
                Err(ApiError::schema(ErrorStyle::Native, Some("filter".into()), message))
            }
        }
    }
}

/// How many documents were deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeleteDocumentsResponse {
    pub(crate) deleted: u64,
}

/// A page of a list.
#[derive(Deserialize, IntoParams)]
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
