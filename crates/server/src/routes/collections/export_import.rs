//! Export and import of a collection as lines of JSON. Only one batch of documents is in memory at a time.

use std::collections::{HashMap, hash_map::Entry};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::Path,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use embeddery_chunk::ChunkConfig;
use embeddery_store::{CheckedDocument, ModelBinding, NewCollection, PageRequest, StoreErrorKind};
use futures_util::stream;

use crate::routes::common_errors::{CollectionErrors, DiskErrors};
use crate::{
    collections::{CollectionService, NewDocument, SplitError, id_hash},
    error::{ApiError, ErrorBody},
    ndjson::Lines,
    wire::collections::export_import::{
        ImportResponse, Record, Replacement, document_line, footer_line, header_line,
    },
};

/// Maximum documents in one read from the store, and in one write to it.
const MAX_BATCH_DOCUMENTS: usize = 64;
/// Maximum ids of an import that are remembered, to recognise an id that comes again. They take some 40 MB.
const MAX_TRACKED_IDS: usize = 1 << 20;
/// Maximum replacements that the response lists.
const MAX_REPLACEMENTS: usize = 100;

/// Export a collection with its vectors as lines of JSON.
///
/// The header line describes the collection. The footer line has the number of documents: a file without it is
/// incomplete. Documents that are written during the export may be included or not.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/collections/{name}/export",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "application/x-ndjson"),
        CollectionErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn export_collection(
    service: CollectionService,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let collection = service.store().get(service.collection_ref(&name)).await?;
    let header = header_line(&collection).map_err(|_| ApiError::internal())?;
    let start =
        Exporter { service, name, header: Some(header), last_id: None, documents: 0, is_last_page: false };
    let lines = stream::try_unfold(start, |exporter| async move {
        exporter.next_page().await.inspect_err(|error| tracing::warn!(%error, "an export ended early"))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Exporter {
    service: CollectionService,
    name: String,
    /// The header line, until it is sent.
    header: Option<Vec<u8>>,
    /// The id of the last document that was sent.
    last_id: Option<String>,
    /// Number of documents that were sent.
    documents: u64,
    is_last_page: bool,
}

impl Exporter {
    /// The lines of the next page; `None` after the last page.
    async fn next_page(mut self) -> Result<Option<(Bytes, Self)>, std::io::Error> {
        if self.is_last_page {
            return Ok(None);
        }
        let page = PageRequest { after: self.last_id.as_deref(), limit: MAX_BATCH_DOCUMENTS };
        let collection_ref = self.service.collection_ref(&self.name);
        let documents =
            self.service.store().export(collection_ref, page).await.map_err(std::io::Error::other)?;
        let mut lines = self.header.take().unwrap_or_default();
        self.is_last_page = documents.len() < MAX_BATCH_DOCUMENTS;
        self.documents += documents.len() as u64;
        if let Some(last) = documents.last() {
            self.last_id = Some(last.id.clone());
        }
        for document in documents {
            lines.extend(document_line(document)?);
        }
        if self.is_last_page {
            lines.extend(footer_line(self.documents)?);
        }
        Ok(Some((lines.into(), self)))
    }
}

/// Import documents from lines of JSON.
///
/// Accepts an export: a missing collection is created from the header line, an existing one must be of the same space.
/// Also accepts lines without vectors, `{"id", "text", "metadata"}`, for an existing collection, and splits and embeds
/// their texts as in a request without `chunking`.
/// Documents are stored while the lines arrive. A line with the id of an earlier line, or with its text and no id, replaces
/// the document of that line; the response counts such a document once and lists these lines. The error for an invalid
/// line has its number and the number of stored documents; sending all lines again is harmless.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/collections/{name}/import",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body(content = String, content_type = "application/x-ndjson", description = "The lines"),
    responses(
        (status = 200, description = "All lines are stored", body = ImportResponse),
        DiskErrors,
        (status = 400, description = "A line is invalid, or the footer line is missing", body = ErrorBody),
        (status = 404, description = "No such collection, and no header line to create it from", body = ErrorBody),
        (status = 409, description = "The vectors are of another space than the collection's", body = ErrorBody),
        (status = 413, description = "A line is too large", body = ErrorBody),
        (status = 422, description = "A line does not fit the schema", body = ErrorBody),
        (status = 503, description = "The model or the store of collections is unavailable", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn import_collection(
    service: CollectionService,
    Path(name): Path<String>,
    mut lines: Lines,
) -> Result<Json<ImportResponse>, ApiError> {
    // An import has no deadline; each piece of the body has its own timeout.
    let service = service.without_deadline();
    let mut importer = Importer::new(service, name);
    while let Some((line_number, line)) = lines.next().await? {
        importer.line_number = line_number;
        let added = match Record::read(&line, importer.service.settings()) {
            Ok(record) => importer.add(record).await,
            Err(error) => Err(error),
        };
        added.map_err(|error| error.with_import_line(line_number, importer.response.documents))?;
    }
    importer.finish().await.map(Json)
}

struct Importer {
    service: CollectionService,
    name: String,
    binding: Option<ModelBinding>,
    /// Documents with vectors that are not stored yet.
    with_vectors: Vec<CheckedDocument>,
    /// Documents without vectors that are not stored yet.
    without_vectors: Vec<NewDocument>,
    /// The number of the last line of each id, by a hash of the id.
    lines: HashMap<u64, u64>,
    /// Documents that are not stored yet and whose ids no earlier line has.
    new_ids: u64,
    /// Document lines that were read.
    document_lines: u64,
    response: ImportResponse,
    /// The number of the current line.
    line_number: u64,
    /// Whether there was a header line. Then there must be a footer line.
    has_header: bool,
    /// The number of documents that the footer line states.
    expected_documents: Option<u64>,
}

impl Importer {
    fn new(service: CollectionService, name: String) -> Self {
        Self {
            service,
            name,
            binding: None,
            with_vectors: Vec::new(),
            without_vectors: Vec::new(),
            lines: HashMap::new(),
            new_ids: 0,
            document_lines: 0,
            response: ImportResponse::default(),
            line_number: 0,
            has_header: false,
            expected_documents: None,
        }
    }

    /// Adds the record of the current line.
    async fn add(&mut self, record: Record) -> Result<(), ApiError> {
        if self.expected_documents.is_some() {
            return Err(ApiError::not_json("a line follows the footer line; remove it"));
        }
        match record {
            Record::Header(new) if self.line_number == 1 => self.open_collection(*new).await,
            Record::Header(_) => Err(ApiError::not_json(
                "a header line is allowed only as the first line; import one export per request",
            )),
            Record::Footer(documents) => {
                self.expected_documents = Some(documents);
                Ok(())
            }
            Record::WithVectors(document) => {
                document.check_vectors(self.binding().await?.dim)?;
                self.record_id(&document.id);
                self.with_vectors.push(document);
                self.flush_if(MAX_BATCH_DOCUMENTS).await
            }
            Record::WithoutVectors(document) => {
                self.record_id(&document.id);
                self.without_vectors.push(document);
                self.flush_if(MAX_BATCH_DOCUMENTS).await
            }
        }
    }

    /// Records the id of the current line. A document that is not stored yet is dropped if it has the same id.
    fn record_id(&mut self, id: &str) {
        self.document_lines += 1;
        let buffered = self.with_vectors.len() + self.without_vectors.len();
        self.with_vectors.retain(|document| document.id != id);
        self.without_vectors.retain(|document| document.id != id);
        let is_replaced = self.with_vectors.len() + self.without_vectors.len() < buffered;
        let key = id_hash(id.as_bytes());
        let is_full = self.lines.len() >= MAX_TRACKED_IDS;
        let earlier = match self.lines.entry(key) {
            Entry::Occupied(mut entry) => Some(entry.insert(self.line_number)),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(entry) => {
                entry.insert(self.line_number);
                None
            }
        };
        let Some(replaces_line) = earlier else {
            // The line of an id that is not tracked is not known, so the response does not list it.
            if is_replaced {
                self.response.replaced += 1;
            } else {
                self.new_ids += 1;
            }
            return;
        };
        self.response.replaced += 1;
        if self.response.replacements.len() < MAX_REPLACEMENTS {
            let replacement = Replacement { line: self.line_number, id: id.to_owned(), replaces_line };
            self.response.replacements.push(replacement);
        }
    }

    /// Creates the collection of the header line, or checks that the stored collection has the same space.
    async fn open_collection(&mut self, new: NewCollection) -> Result<(), ApiError> {
        self.has_header = true;
        let header_binding = new.binding.clone();
        self.service.check_policy(&header_binding)?;
        let collection_ref = self.service.collection_ref(&self.name);
        let stored_binding = match self.service.store().create(collection_ref, new).await {
            Err(error) if error.kind == StoreErrorKind::Exists => {
                self.service.store().get(collection_ref).await
            }
            result => result,
        }?
        .binding;
        if stored_binding.space != header_binding.space {
            return Err(embeddery_store::StoreError::space_mismatch(
                &self.name,
                &stored_binding.space,
                &header_binding.space,
            )
            .into());
        }
        self.binding = Some(stored_binding);
        Ok(())
    }

    /// The model of the collection.
    async fn binding(&mut self) -> Result<ModelBinding, ApiError> {
        if let Some(binding) = &self.binding {
            return Ok(binding.clone());
        }
        let binding = self.service.store().get(self.service.collection_ref(&self.name)).await?.binding;
        self.binding = Some(binding.clone());
        Ok(binding)
    }

    /// Stores the buffered documents if there are at least `min_documents`.
    async fn flush_if(&mut self, min_documents: usize) -> Result<(), ApiError> {
        if self.with_vectors.len() + self.without_vectors.len() < min_documents {
            return Ok(());
        }
        let binding = self.binding().await?;
        let mut documents = std::mem::take(&mut self.with_vectors);
        documents.extend(
            self.service
                .split(&binding, std::mem::take(&mut self.without_vectors), ChunkConfig::default())
                .await
                .map_err(SplitError::into_import_error)?,
        );
        let (written, truncated) = self.service.write(&self.name, &binding, documents).await?;
        self.response.documents += std::mem::take(&mut self.new_ids);
        self.response.added += written.added;
        self.response.unchanged += written.kept;
        self.response.removed += written.removed;
        self.response.truncated += truncated;
        Ok(())
    }

    async fn finish(mut self) -> Result<ImportResponse, ApiError> {
        self.flush_if(1)
            .await
            .map_err(|error| error.with_import_line(self.line_number, self.response.documents))?;
        if self.has_header && self.expected_documents != Some(self.document_lines) {
            let (stored, lines) = (self.response.documents, self.document_lines);
            let problem = match self.expected_documents {
                None => "the footer line is missing".to_owned(),
                Some(documents) => format!("the footer states {documents} documents, the body has {lines}"),
            };
            let message = format!(
                "the import is incomplete: {problem}; documents stored: {stored}; export the collection again"
            );
            return Err(ApiError::not_json(message));
        }
        Ok(self.response)
    }
}
