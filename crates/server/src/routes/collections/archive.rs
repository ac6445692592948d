//! A collection out of the house and into it, as lines of JSON, never as a whole in memory.

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

use crate::{
    collections::{CollectionService, NewDocument},
    error::{ApiError, ErrorBody},
    ndjson::Lines,
    wire::collections::archive::{Head, ImportAnswer, Record, end, head, whole},
};

/// Documents that are read or written together.
const BATCH: usize = 64;

/// All of a collection, vectors included, as lines of JSON.
///
/// The first line says what the collection is, the last how many documents there were: a file without it is not
/// whole. Documents that are written meanwhile may be in it or not.
#[utoipa::path(
    get,
    operation_id = "export_collection",
    path = "/api/v1/embeddings/collections/{name}/export",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "application/x-ndjson"),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection", body = ErrorBody),
        (status = 503, description = "The store is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn export(desk: CollectionService, Path(name): Path<String>) -> Result<Response, ApiError> {
    let collection = desk.store().get(desk.collection_ref(&name)).await?;
    let first = head(&collection).map_err(|_| ApiError::internal())?;
    let start = Exporting { desk, name, first: Some(first), after: None, documents: 0, ended: false };
    let lines = stream::try_unfold(start, |exporting| async move {
        exporting.step().await.inspect_err(|error| tracing::warn!(%error, "an export ended early"))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Exporting {
    desk: CollectionService,
    name: String,
    /// The head, until it is sent.
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
        let place = self.desk.collection_ref(&self.name);
        let documents = self.desk.store().export(place, page).await.map_err(std::io::Error::other)?;
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

/// Documents from lines of JSON.
///
/// Takes what an export wrote: a collection that is not there is made as the first line says, one that is there
/// must be of the same space. Takes also plain lines `{"id", "text", "metadata"}` for a collection that is there,
/// and embeds them. Lines are stored as they come; when one cannot be taken, the answer says which and how many
/// documents are stored, and sending all again is harmless.
#[utoipa::path(
    post,
    operation_id = "import_collection",
    path = "/api/v1/embeddings/collections/{name}/import",
    tag = "collections",
    params(("name" = String, Path, description = "The collection")),
    request_body(content = String, content_type = "application/x-ndjson", description = "The lines"),
    responses(
        (status = 200, description = "All lines are stored", body = ImportAnswer),
        (status = 400, description = "A line that cannot be taken, or the end is missing", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such collection, and no first line that says how to make it", body = ErrorBody),
        (status = 408, description = "The body arrived too slowly", body = ErrorBody),
        (status = 409, description = "The vectors are of another space than the collection's", body = ErrorBody),
        (status = 413, description = "A line is too large", body = ErrorBody),
        (status = 415, description = "The body is not announced as lines of JSON", body = ErrorBody),
        (status = 422, description = "A line does not fit the schema", body = ErrorBody),
        (status = 503, description = "The model or the store is out of reach", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(crate) async fn import(
    desk: CollectionService,
    Path(name): Path<String>,
    mut lines: Lines,
) -> Result<Json<ImportAnswer>, ApiError> {
    // An import takes as long as it takes; each piece of the body has its own limit.
    let desk = desk.without_deadline();
    let mut importing = Importing::new(desk, name);
    while let Some((number, line)) = lines.next().await? {
        importing.number = number;
        let taken = match Record::read(&line, importing.desk.settings()) {
            Ok(record) => importing.take(record).await,
            Err(error) => Err(error),
        };
        taken.map_err(|error| error.in_line(number, importing.answer.documents))?;
    }
    importing.finish().await.map(Json)
}

struct Importing {
    desk: CollectionService,
    name: String,
    binding: Option<ModelBinding>,
    whole: Vec<Document>,
    plain: Vec<NewDocument>,
    answer: ImportAnswer,
    number: u64,
    /// A head was there, so that an end is due.
    headed: bool,
    /// How many documents the last line says there were.
    said: Option<u64>,
}

impl Importing {
    fn new(desk: CollectionService, name: String) -> Self {
        let answer = ImportAnswer { documents: 0, added: 0, unchanged: 0, removed: 0 };
        Self {
            desk,
            name,
            binding: None,
            whole: Vec::new(),
            plain: Vec::new(),
            answer,
            number: 0,
            headed: false,
            said: None,
        }
    }

    async fn take(&mut self, record: Record) -> Result<(), ApiError> {
        if self.said.is_some() {
            return Err(ApiError::not_json("there is a line after the last one"));
        }
        match record {
            Record::Head(head) if self.number == 1 => self.begin(*head).await,
            Record::Head(_) => Err(ApiError::not_json("a head stands in the middle")),
            Record::End(documents) => {
                self.said = Some(documents);
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
        let place = self.desk.collection_ref(&self.name);
        let bound = match self.desk.store().create(place, new).await {
            Err(error) if error.kind == StoreErrorKind::Exists => self.desk.store().get(place).await,
            made => made,
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

    /// Stores what waits, once `enough` documents do.
    async fn store(&mut self, enough: usize) -> Result<(), ApiError> {
        if self.whole.len() + self.plain.len() < enough {
            return Ok(());
        }
        let binding = match &self.binding {
            Some(binding) => binding.clone(),
            None => self.desk.store().get(self.desk.collection_ref(&self.name)).await?.binding,
        };
        self.binding = Some(binding.clone());
        let mut documents = std::mem::take(&mut self.whole);
        documents.extend(self.desk.cut(&binding, std::mem::take(&mut self.plain), ChunkConfig::WHOLE).await?);
        let stored = documents.len() as u64;
        let written = self.desk.write(&self.name, &binding, documents).await?;
        self.answer.documents += stored;
        self.answer.added += written.added;
        self.answer.unchanged += written.kept;
        self.answer.removed += written.removed;
        Ok(())
    }

    async fn finish(mut self) -> Result<ImportAnswer, ApiError> {
        self.store(1).await.map_err(|error| error.in_line(self.number, self.answer.documents))?;
        let stored = self.answer.documents;
        if self.headed && self.said != Some(stored) {
            let said = self
                .said
                .map_or("its last line is missing".into(), |said| format!("it announces {said} documents"));
            let message = format!("the file is not whole: {said}, {stored} are stored; export it again");
            return Err(ApiError::not_json(message));
        }
        Ok(self.answer)
    }
}
