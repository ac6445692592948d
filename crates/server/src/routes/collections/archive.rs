//! Export and import of a collection as lines of JSON. The whole is never in memory.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::Path,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use embeddery_chunk::ChunkConfig;
use embeddery_store::{Document, ModelBinding, NewCollection, PageRequest, StoreErrorKind};
use futures_util::stream;

use crate::routes::common_errors::{CollectionErrors, DiskErrors};
use crate::{
    collections::{CollectionService, NewDocument},
    error::{ApiError, ErrorBody},
    ndjson::Lines,
    wire::collections::archive::{Head, ImportResponse, Record, end, head, whole},
};

/// Documents that are read or written together.
const BATCH: usize = 64;

/// Export a collection with its vectors as lines of JSON.
///
/// The first line describes the collection, the last has the number of documents: a file without it is incomplete.
/// Documents that are written meanwhile may be included or not.
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
    let first = head(&collection).map_err(|_| ApiError::internal())?;
    let start = Exporting { service, name, first: Some(first), after: None, documents: 0, ended: false };
    let lines = stream::try_unfold(start, |exporting| async move {
        exporting.step().await.inspect_err(|error| tracing::warn!(%error, "an export ended early"))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Exporting {
    service: CollectionService,
    name: String,
    /// The first line, until it is sent.
    first: Option<Vec<u8>>,
    after: Option<String>,
    documents: u64,
    ended: bool,
}

impl Exporting {
    async fn step(mut self) -> Result<Option<(Bytes, Self)>, std::io::Error> {
        if self.ended {
            return Ok(None);
        }
        let page = PageRequest { after: self.after.as_deref(), limit: BATCH };
        let collection = self.service.collection_ref(&self.name);
        let documents = self.service.store().export(collection, page).await.map_err(std::io::Error::other)?;
        let mut lines = self.first.take().unwrap_or_default();
        self.ended = documents.len() < BATCH;
        self.documents += documents.len() as u64;
        if let Some(last) = documents.last() {
            self.after = Some(last.id.clone());
        }
        for document in documents {
            lines.extend(whole(document)?);
        }
        if self.ended {
            lines.extend(end(self.documents)?);
        }
        Ok(Some((lines.into(), self)))
    }
}

/// Import documents from lines of JSON.
///
/// Accepts an export: a missing collection is created from the first line, an existing one must be of the same space.
/// Also accepts plain lines `{"id", "text", "metadata"}` for an existing collection, and embeds them. Lines are stored
/// as they arrive. The error for an invalid line has its number and the number of stored documents; sending all again
/// is harmless.
#[utoipa::path(
    post,
    path = "/api/v1/embeddings/collections/{name}/import",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body(content = String, content_type = "application/x-ndjson", description = "The lines"),
    responses(
        (status = 200, description = "All lines are stored", body = ImportResponse),
        DiskErrors,
        (status = 400, description = "A line is invalid, or the end is missing", body = ErrorBody),
        (status = 404, description = "No such collection, and no first line to create it from", body = ErrorBody),
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
    let mut importing = Importing::new(service, name);
    while let Some((number, line)) = lines.next().await? {
        importing.number = number;
        let taken = match Record::read(&line, importing.service.settings()) {
            Ok(record) => importing.take(record).await,
            Err(error) => Err(error),
        };
        taken.map_err(|error| error.in_line(number, importing.response.documents))?;
    }
    importing.finish().await.map(Json)
}

struct Importing {
    service: CollectionService,
    name: String,
    binding: Option<ModelBinding>,
    whole: Vec<Document>,
    plain: Vec<NewDocument>,
    response: ImportResponse,
    number: u64,
    /// The file has a head, so it must have an end.
    headed: bool,
    /// The number of documents in the last line.
    announced: Option<u64>,
}

impl Importing {
    fn new(service: CollectionService, name: String) -> Self {
        let response = ImportResponse { documents: 0, added: 0, unchanged: 0, removed: 0 };
        Self {
            service,
            name,
            binding: None,
            whole: Vec::new(),
            plain: Vec::new(),
            response,
            number: 0,
            headed: false,
            announced: None,
        }
    }

    async fn take(&mut self, record: Record) -> Result<(), ApiError> {
        if self.announced.is_some() {
            return Err(ApiError::not_json("there is a line after the last one"));
        }
        match record {
            Record::Head(head) if self.number == 1 => self.begin(*head).await,
            Record::Head(_) => Err(ApiError::not_json("a head stands in the middle")),
            Record::End(documents) => {
                self.announced = Some(documents);
                Ok(())
            }
            Record::Whole(document) => {
                self.whole.push(document);
                self.store(BATCH).await
            }
            Record::Plain(document) => {
                self.plain.push(document);
                self.store(BATCH).await
            }
        }
    }

    async fn begin(&mut self, head: Head) -> Result<(), ApiError> {
        self.headed = true;
        let offered = head.binding();
        let new = NewCollection { binding: offered.clone(), metadata: head.metadata, submission: None };
        let collection = self.service.collection_ref(&self.name);
        let bound = match self.service.store().create(collection, new).await {
            Err(error) if error.kind == StoreErrorKind::Exists => self.service.store().get(collection).await,
            other => other,
        }?
        .binding;
        if bound.space != offered.space {
            return Err(embeddery_store::StoreError::space_mismatch(
                &self.name,
                &bound.space,
                &offered.space,
            )
            .into());
        }
        self.binding = Some(bound);
        Ok(())
    }

    /// Stores the collected documents, once there are `enough`.
    async fn store(&mut self, enough: usize) -> Result<(), ApiError> {
        if self.whole.len() + self.plain.len() < enough {
            return Ok(());
        }
        let binding = match &self.binding {
            Some(binding) => binding.clone(),
            None => self.service.store().get(self.service.collection_ref(&self.name)).await?.binding,
        };
        self.binding = Some(binding.clone());
        let mut documents = std::mem::take(&mut self.whole);
        documents
            .extend(self.service.split(&binding, std::mem::take(&mut self.plain), ChunkConfig::WHOLE).await?);
        let stored = documents.len() as u64;
        let written = self.service.write(&self.name, &binding, documents).await?;
        self.response.documents += stored;
        self.response.added += written.added;
        self.response.unchanged += written.kept;
        self.response.removed += written.removed;
        Ok(())
    }

    async fn finish(mut self) -> Result<ImportResponse, ApiError> {
        self.store(1).await.map_err(|error| error.in_line(self.number, self.response.documents))?;
        let stored = self.response.documents;
        if self.headed && self.announced != Some(stored) {
            let announced = self.announced.map_or("its last line is missing".into(), |documents| {
                format!("it announces {documents} documents")
            });
            let message = format!(
                "the file is incomplete: {announced}, and {stored} documents are stored; export it again"
            );
            return Err(ApiError::not_json(message));
        }
        Ok(self.response)
    }
}
