//! A collection as lines of JSON. The header line describes the collection, each document has one line with its vectors,
//! and the footer line has the number of documents. An import also accepts lines without vectors,
//! `{"id", "text", "metadata"}`, and embeds their texts.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_core::SpaceId;
use embeddery_store::{
    CheckedDocument, Collection, Document, DocumentChunk, ModelBinding, NewCollection, StoredDocument,
    TextSpan, check_text,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    check_metadata,
    documents::{DocumentRequest, is_zero},
};
use crate::{
    Settings,
    collections::NewDocument,
    error::{ApiError, ErrorStyle},
    wire::{
        exact_json::ExactObject,
        parse::{self, Source},
    },
};

/// The version of the format. An import of a higher version is rejected.
const VERSION: u64 = 2;

/// The header line. `M` is the metadata: the stored metadata of a line that is written, [`ExactObject`] of one that is read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine<M> {
    embeddery_collection: u64,
    name: String,
    provider: String,
    model: String,
    space: String,
    dimensions: usize,
    #[serde(default, rename = "cut")]
    custom_dimensions: bool,
    metadata: Option<M>,
}

/// A document with its vectors. `M` is as in [`HeaderLine`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentLine<M> {
    id: String,
    metadata: Option<M>,
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
    /// The collection to create, or that is stored.
    Header(Box<NewCollection>),
    /// A document with its vectors.
    WithVectors(CheckedDocument),
    /// A document to be embedded.
    WithoutVectors(NewDocument),
    /// The number of documents. No line follows.
    Footer(u64),
}

impl Record {
    /// Parses and checks a line.
    pub(crate) fn read(line: &[u8], settings: &Settings) -> Result<Self, ApiError> {
        let source = Source { name: "this", style: ErrorStyle::Native };
        match Kind::from_line(line) {
            Kind::Header(version) if version.is_none_or(|version| version > VERSION) => {
                let version = version
                    .map_or_else(|| "an unknown version".to_owned(), |version| format!("version {version}"));
                let message = format!(
                    "the file has {version}, but the latest known version is {VERSION}; it comes from a newer Embeddery"
                );
                Err(ApiError::invalid("embeddery_collection", message))
            }
            Kind::Header(_) => {
                let new = parse::from_slice::<HeaderLine<ExactObject>>(line, source)?.check()?;
                Ok(Self::Header(Box::new(new)))
            }
            Kind::Footer => Ok(Self::Footer(parse::from_slice::<Footer>(line, source)?.end.documents)),
            Kind::WithVectors => {
                let line: DocumentLine<ExactObject> = parse::from_slice(line, source)?;
                line.check(settings).map(Self::WithVectors)
            }
            Kind::WithoutVectors => {
                let document: DocumentRequest = parse::from_slice(line, source)?;
                document.check(settings).map(Self::WithoutVectors)
            }
        }
    }
}

/// The kinds of lines, which their fields tell.
enum Kind {
    /// With the version of the format, if it is a whole number.
    Header(Option<u64>),
    Footer,
    WithVectors,
    /// Also a line that is not JSON or not an object, whose error says what to send.
    WithoutVectors,
}

impl Kind {
    fn from_line(line: &[u8]) -> Self {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(line).unwrap_or_default();
        if let Some(version) = fields.get("embeddery_collection") {
            Self::Header(version.get().parse().ok())
        } else if fields.contains_key("end") {
            Self::Footer
        } else if fields.contains_key("chunks") {
            Self::WithVectors
        } else {
            Self::WithoutVectors
        }
    }
}

impl HeaderLine<ExactObject> {
    fn check(self) -> Result<NewCollection, ApiError> {
        let binding = ModelBinding {
            provider: self.provider,
            model: self.model,
            space: SpaceId::new(self.space),
            dim: self.dimensions,
            custom_dimensions: self.custom_dimensions,
        };
        let metadata = check_metadata(self.metadata)?.unwrap_or_default();
        let new = NewCollection { binding, metadata, submission: None };
        new.check()?;
        Ok(new)
    }
}

impl DocumentLine<ExactObject> {
    fn check(self, settings: &Settings) -> Result<CheckedDocument, ApiError> {
        if self.chunks.is_empty() {
            return Err(ApiError::invalid("chunks", "chunks is empty; omit the document or send its chunks"));
        }
        let metadata = check_metadata(self.metadata)?.unwrap_or_default();
        let read = |(index, chunk): (usize, ChunkLine)| {
            chunk.read(settings).map_err(|error| error.nested_in(&format!("chunks[{index}]")))
        };
        let chunks = self.chunks.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Document { id: self.id, metadata, chunks, submission: None }.check()?)
    }
}

impl ChunkLine {
    fn read(self, settings: &Settings) -> Result<DocumentChunk, ApiError> {
        check_text(&self.text, settings.text_limit)?;
        let bytes = BASE64_STANDARD.decode(&self.vector).ok().filter(|bytes| bytes.len() % 4 == 0);
        let Some(bytes) = bytes else {
            return Err(ApiError::invalid("vector", "vector is not base64 of 32-bit numbers"));
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
    to_line(&HeaderLine {
        embeddery_collection: VERSION,
        name: collection.name.clone(),
        provider,
        model,
        space: space.as_str().to_owned(),
        dimensions: dim,
        custom_dimensions,
        metadata: Some(&collection.metadata),
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
    to_line(&DocumentLine { id: document.id, metadata: Some(document.metadata), chunks: chunks.collect() })
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
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct ImportResponse {
    /// Stored documents. An id that is in several lines counts once.
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
    /// Lines whose document has replaced the document of an earlier line, because it has the same id, or the same text
    /// and no id. Absent if there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) replaced: u64,
    /// The first hundred of these lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) replacements: Vec<Replacement>,
}

/// A line of an import whose document has replaced that of an earlier line.
#[derive(Serialize, ToSchema)]
pub(crate) struct Replacement {
    /// The number of the line.
    pub(crate) line: u64,
    /// The id of the document.
    pub(crate) id: String,
    /// The number of the earlier line.
    pub(crate) replaces_line: u64,
}
