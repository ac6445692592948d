//! Documents in requests and responses.

use embeddery_chunk::ChunkConfig;
use embeddery_store::{DocumentView, Filter, Metadata, StoredDocument, check_id, check_text};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::check_metadata;
use crate::{
    Settings,
    collections::{Added, DocumentIdentity, DocumentIds, EqualDocument, NewDocument, derived_id},
    error::{ApiError, ErrorStyle},
    wire::{
        exact_json::{Exact, ExactObject},
        field::{Bounds, object, objects, whole_number},
    },
};

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
    /// Its id. A document with the id of a stored one replaces it. Without one, it is made of the text: a second document
    /// with the same text and the same metadata is stored once.
    pub(crate) id: Option<String>,
    pub(crate) text: String,
    /// What searches can filter by: strings, numbers, booleans, and lists of them. Up to 64 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<ExactObject>,
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
    pub(crate) fn check(self, settings: &Settings) -> Result<CheckedDocuments, ApiError> {
        let chunking = check_chunking(self.chunking)?;
        let (count, max) = (self.documents.len(), settings.max_inputs);
        if count == 0 || count > max {
            let message = format!("documents has {count} elements; 1 to {max} are allowed in a request");
            return Err(ApiError::invalid("documents", message));
        }
        let check = |document: DocumentRequest| document.check(settings);
        let checked = check_all(self.documents, check, document_identity)?;
        // The position of each document of the request in `documents`.
        let (mut documents, mut sent) = (Vec::new(), Vec::<SentDocument>::with_capacity(count));
        for (document, equal) in checked {
            let index = match &equal {
                Some(EqualDocument { position, .. }) => sent[*position as usize].index,
                None => documents.len(),
            };
            if equal.is_none() {
                documents.push(document);
            }
            sent.push(SentDocument { index, duplicate_of: equal.map(|equal| equal.position) });
        }
        Ok(CheckedDocuments { documents, sent, chunking })
    }
}

fn document_identity(document: &NewDocument) -> DocumentIdentity<'_> {
    let NewDocument { id, text, metadata } = document;
    DocumentIdentity { id, text, metadata, content_type: None }
}

/// The documents of a request.
pub(crate) struct CheckedDocuments {
    /// The documents to store, without duplicates.
    pub(crate) documents: Vec<NewDocument>,
    /// All documents in the order of the request.
    pub(crate) sent: Vec<SentDocument>,
    pub(crate) chunking: ChunkConfig,
}

impl CheckedDocuments {
    /// The index in the request of each document to store.
    pub(crate) fn positions(&self) -> Vec<usize> {
        let is_first = |(_, sent): &(usize, &SentDocument)| sent.duplicate_of.is_none();
        self.sent.iter().enumerate().filter(is_first).map(|(position, _)| position).collect()
    }
}

/// A document as it was sent.
pub(crate) struct SentDocument {
    /// Its index among the documents to store.
    index: usize,
    /// The index in the request of the document that is equal to it.
    duplicate_of: Option<u64>,
}

/// Checks each document, and that no two have the same id, except for equal documents without an id. A later one of
/// those comes with the first one.
pub(crate) fn check_all<R, D>(
    requests: Vec<R>,
    check: impl Fn(R) -> Result<D, ApiError>,
    identity: impl for<'d> Fn(&'d D) -> DocumentIdentity<'d>,
) -> Result<Vec<(D, Option<EqualDocument>)>, ApiError> {
    let mut documents = Vec::with_capacity(requests.len());
    let mut ids = DocumentIds::new(|first| format!("documents[{first}]"));
    for (index, request) in requests.into_iter().enumerate() {
        let path = format!("documents[{index}]");
        let document = check(request).map_err(|error| error.nested_in(&path))?;
        let equal = ids
            .insert(identity(&document), index as u64, &path)
            .map_err(|message| ApiError::invalid(path, message))?;
        documents.push((document, equal));
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
    pub(crate) metadata: Option<ExactObject>,
}

impl DocumentFields<'_> {
    /// Checks the fields; returns the id, made of the text where there is none, and the metadata.
    pub(crate) fn check(self, settings: &Settings) -> Result<(String, Metadata), ApiError> {
        let metadata = check_metadata(self.metadata)?.unwrap_or_default();
        check_text(self.text, settings.text_limit)?;
        let id = self.id.unwrap_or_else(|| derived_id(self.text));
        check_id(&id)?;
        Ok((id, metadata))
    }
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
    /// The documents in the order of the request.
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
    /// The index of an equal document of the request, when both were sent without an id: they are one document.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_of: Option<u64>,
}

impl AddDocumentsResponse {
    pub(crate) fn new(added: Added, sent: Vec<SentDocument>) -> Self {
        let document = |SentDocument { index, duplicate_of }| {
            let (id, chunks) = added.documents.get(index).cloned()?;
            Some(AddedDocument { id, chunks, duplicate_of })
        };
        let documents = sent.into_iter().filter_map(document).collect();
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

/// Which documents to delete: `ids`, `filter`, or `all` with `confirm`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteDocumentsRequest {
    ids: Option<Vec<String>>,
    /// As in a search. A filter that every document matches is refused.
    #[schema(value_type = Option<Object>)]
    filter: Option<Exact<Value>>,
    /// `true` deletes all documents of the collection.
    all: Option<bool>,
    /// With `all`: the name of the collection, again.
    confirm: Option<String>,
}

/// Which documents to delete, checked.
pub(crate) enum Deletion {
    Ids(Vec<String>),
    Filter(Filter),
    All,
}

impl DeleteDocumentsRequest {
    /// `collection` is the name in the path.
    pub(crate) fn check(self, collection: &str) -> Result<Deletion, ApiError> {
        let Self { ids, filter, all, confirm } = self;
        let how = || format!("to delete all documents, send {}", json!({"all": true, "confirm": collection}));
        match (ids, filter, all.unwrap_or_default()) {
            (Some(ids), None, false) if confirm.is_none() => Ok(Deletion::Ids(ids)),
            (None, Some(filter), false) if confirm.is_none() => {
                let filter = Filter::parse(&filter.check("filter")?)?;
                if filter.matches_every_document() {
                    let message = format!("filter matches every document; name a condition, or, {}", how());
                    return Err(ApiError::invalid("filter", message));
                }
                Ok(Deletion::Filter(filter))
            }
            (None, None, true) => match confirm {
                Some(confirm) if confirm == collection => Ok(Deletion::All),
                Some(confirm) => {
                    let confirm: String = confirm.chars().take(40).collect();
                    let message = format!("confirm is '{confirm}', which is not the collection; {}", how());
                    Err(ApiError::invalid("confirm", message))
                }
                None => Err(ApiError::invalid("confirm", format!("confirm is missing; {}", how()))),
            },
            _ => {
                let message = format!("send either ids or filter; {}", how());
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
