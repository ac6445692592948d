//! A collection as lines of JSON. The header line describes the collection, each document has one line with its vectors,
//! and the footer line has the number of documents. An import also accepts lines without vectors,
//! `{"id", "text", "metadata"}`, and embeds their texts.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_core::SpaceId;
use embeddery_store::{Collection, Document, DocumentChunk, ModelBinding, StoredDocument, TextSpan};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::documents::{DocumentRequest, check_id, is_zero};
use crate::{
    Settings,
    collections::NewDocument,
    error::{ApiError, ErrorStyle},
    wire::parse::{self, Source, describe},
};

/// The version of the format. An import of a higher version is rejected.
const VERSION: u64 = 2;

/// The header line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    embeddery_collection: u64,
    name: String,
    provider: String,
    model: String,
    space: String,
    dimensions: usize,
    #[serde(default, rename = "cut")]
    custom_dimensions: bool,
    #[serde(default)]
    pub(crate) metadata: Map<String, Value>,
}

/// A document with its vectors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentLine {
    id: String,
    #[serde(default)]
    metadata: Map<String, Value>,
    chunks: Vec<ChunkLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkLine {
    text: String,
    bytes: [u64; 2],
    characters: [u64; 2],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headings: Vec<String>,
    /// f32, little-endian, in base64.
    vector: String,
}

/// The footer line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    end: FooterCounts,
}

#[derive(Serialize, Deserialize)]
struct FooterCounts {
    documents: u64,
}

/// One line of an import.
pub(crate) enum Record {
    /// The description of the collection.
    Header(Box<Header>),
    /// A document with its vectors.
    WithVectors(Document),
    /// A document to be embedded.
    WithoutVectors(NewDocument),
    /// The number of documents. No line follows.
    Footer(u64),
}

impl Record {
    /// Parses and checks a line.
    pub(crate) fn read(line: &[u8], settings: &Settings) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(line)
            .map_err(|error| ApiError::not_json(format!("this is not JSON: {error}")))?;
        let Value::Object(map) = value else {
            return Err(ApiError::not_json(format!("this is {}; send an object", describe(&value))));
        };
        if let Some(version) = map.get("embeddery_collection") {
            if version.as_u64().is_none_or(|version| version > VERSION) {
                let message = format!(
                    "the file has version {version}, but the latest known version is {VERSION}; it comes from a newer Embeddery"
                );
                return Err(ApiError::invalid("embeddery_collection", message));
            }
            return Ok(Self::Header(Box::new(typed(map)?)));
        }
        if map.contains_key("end") {
            return typed::<Footer>(map).map(|footer| Self::Footer(footer.end.documents));
        }
        if !map.contains_key("chunks") {
            let source = Source { name: "this", style: ErrorStyle::Native };
            let document: DocumentRequest = parse::from_value(Value::Object(map), source)?;
            return document.check(settings).map(Self::WithoutVectors);
        }
        let line: DocumentLine = typed(map)?;
        let chunks = line.chunks.into_iter().map(ChunkLine::read).collect::<Result<_, _>>()?;
        Ok(Self::WithVectors(Document {
            id: check_id(line.id)?,
            metadata: line.metadata,
            chunks,
            submission: None,
        }))
    }
}

fn typed<T: for<'de> Deserialize<'de>>(map: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(map))
        .map_err(|error| ApiError::schema(ErrorStyle::Native, None, error.to_string()))
}

impl Header {
    pub(crate) fn binding(&self) -> ModelBinding {
        ModelBinding {
            provider: self.provider.clone(),
            model: self.model.clone(),
            space: SpaceId::new(self.space.as_str()),
            dim: self.dimensions,
            custom_dimensions: self.custom_dimensions,
        }
    }
}

impl ChunkLine {
    fn read(self) -> Result<DocumentChunk, ApiError> {
        let bytes = BASE64_STANDARD.decode(&self.vector).ok().filter(|bytes| bytes.len() % 4 == 0);
        let Some(bytes) = bytes else {
            return Err(ApiError::invalid("vector", "a vector is not base64 of 32-bit numbers"));
        };
        let vector =
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        Ok(DocumentChunk {
            vector: Some(vector.collect()),
            text: self.text,
            headings: self.headings,
            span: TextSpan {
                bytes: (self.bytes[0], self.bytes[1]),
                characters: (self.characters[0], self.characters[1]),
            },
        })
    }
}

/// The header line of an export.
pub(crate) fn header_line(collection: &Collection) -> Result<Vec<u8>, serde_json::Error> {
    let ModelBinding { provider, model, space, dim, custom_dimensions } = collection.binding.clone();
    to_line(&Header {
        embeddery_collection: VERSION,
        name: collection.name.clone(),
        provider,
        model,
        space: space.as_str().to_owned(),
        dimensions: dim,
        custom_dimensions,
        metadata: collection.metadata.clone(),
    })
}

/// The line of a document.
pub(crate) fn document_line(document: StoredDocument) -> Result<Vec<u8>, serde_json::Error> {
    let chunks = document.chunks.into_iter().map(|chunk| ChunkLine {
        text: chunk.text,
        headings: chunk.headings,
        bytes: [chunk.span.bytes.0, chunk.span.bytes.1],
        characters: [chunk.span.characters.0, chunk.span.characters.1],
        vector: BASE64_STANDARD
            .encode(chunk.vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()),
    });
    to_line(&DocumentLine { id: document.id, metadata: document.metadata, chunks: chunks.collect() })
}

/// The footer line of an export.
pub(crate) fn footer_line(documents: u64) -> Result<Vec<u8>, serde_json::Error> {
    to_line(&Footer { end: FooterCounts { documents } })
}

fn to_line(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// What an import did.
#[derive(Serialize, ToSchema)]
pub(crate) struct ImportResponse {
    pub(crate) documents: u64,
    /// Vectors that are new.
    pub(crate) added: u64,
    /// Vectors that were there already.
    pub(crate) unchanged: u64,
    /// Vectors of chunks that are no more.
    pub(crate) removed: u64,
    /// Chunks whose end the model did not read; absent when none.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) truncated: u64,
}
