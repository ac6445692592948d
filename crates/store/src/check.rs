//! The checks of what is stored. They are the same for both stores and for all ways in, so that a document is refused before
//! it is embedded, and not because one store cannot hold it.

use std::{fmt, ops::Deref};

use embeddery_core::to_comparable_length;
use serde_json::Value;

use crate::{
    Document, ModelBinding, NewCollection, StoreError,
    types::{Metadata, check_vector},
};

/// Maximum length of a document's id.
const MAX_ID_BYTES: usize = 512;

/// Maximum size of one object of metadata as JSON. Metadata of many documents are in memory during a search.
const MAX_METADATA_BYTES: usize = 64 << 10;

/// Maximum length of the name of a provider, of a model and of a space.
const MAX_NAME_BYTES: [(&str, usize); 3] = [("provider", 64), ("model", 512), ("space", 1024)];

/// Maximum dimensions of a vector.
const MAX_DIMENSIONS: usize = 16_384;

/// A value that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field: `metadata.tags[2]`.
    pub field: String,
    /// What is wrong and what to do. It begins with the field.
    pub message: String,
}

impl FieldError {
    fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        let field = field.into();
        Self { message: format!("{field} {problem}"), field }
    }

    /// The same error in a part: `chunks[2]`.
    fn inside(self, part: &str) -> Self {
        Self { field: format!("{part}.{}", self.field), message: format!("{part}.{}", self.message) }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FieldError {}

impl From<FieldError> for StoreError {
    fn from(error: FieldError) -> Self {
        Self::invalid(error.message)
    }
}

/// A document that can be stored. Only [`Document::check`] makes one. Its vectors may be set later.
#[derive(Clone, Debug)]
pub struct CheckedDocument(Document);

impl Deref for CheckedDocument {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.0
    }
}

impl CheckedDocument {
    /// Sets the vector of a chunk. The store checks it.
    pub fn set_vector(&mut self, chunk: usize, mut vector: Vec<f32>) {
        to_comparable_length(&mut vector);
        if let Some(chunk) = self.0.chunks.get_mut(chunk) {
            chunk.vector = Some(vector);
        }
    }

    /// Checks that the vectors that are set have `dim` numbers, all of them finite, and a length above zero.
    ///
    /// # Errors
    /// Names the first vector that does not.
    pub fn check_vectors(&self, dim: usize) -> Result<(), FieldError> {
        for (index, vector) in self.0.chunks.iter().map(|chunk| &chunk.vector).enumerate() {
            if let Some(vector) = vector
                && let Err(error) = check_vector(vector, dim)
            {
                let message = format!("chunks[{index}].{}", error.message);
                return Err(FieldError { field: format!("chunks[{index}].vector"), message });
            }
        }
        Ok(())
    }
}

impl Document {
    /// Checks everything but the vectors. Scales vectors of extreme lengths, which a store cannot compare.
    ///
    /// # Errors
    /// Names the first field that cannot be stored.
    pub fn check(mut self) -> Result<CheckedDocument, FieldError> {
        check_id(&self.id)?;
        check_metadata(&self.metadata)?;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let check = || {
                check_text(&chunk.text, usize::MAX)?;
                for (index, heading) in chunk.headings.iter().enumerate() {
                    check_nul(heading, || format!("headings[{index}]"))?;
                }
                check_range("bytes", chunk.span.bytes)?;
                check_range("characters", chunk.span.characters)
            };
            check().map_err(|error| error.inside(&format!("chunks[{index}]")))?;
        }
        self.chunks.iter_mut().filter_map(|chunk| chunk.vector.as_deref_mut()).for_each(to_comparable_length);
        Ok(CheckedDocument(self))
    }
}

impl ModelBinding {
    /// Checks the names, which become parts of responses and headers, and the dimensions.
    ///
    /// # Errors
    /// Names the first field that cannot be stored.
    pub fn check(&self) -> Result<(), FieldError> {
        let names = [&self.provider, &self.model, self.space.as_str()];
        for ((field, max_bytes), name) in MAX_NAME_BYTES.into_iter().zip(names) {
            if !(1..=max_bytes).contains(&name.len()) || name.chars().any(char::is_control) {
                let problem = format!("is not 1 to {max_bytes} bytes without control characters");
                return Err(FieldError::new(field, problem));
            }
        }
        if !(1..=MAX_DIMENSIONS).contains(&self.dim) {
            let problem = format!("is {}; it must be between 1 and {MAX_DIMENSIONS}", self.dim);
            return Err(FieldError::new("dimensions", problem));
        }
        Ok(())
    }
}

impl NewCollection {
    /// Checks the metadata and the names of the binding.
    ///
    /// # Errors
    /// Names the first field that cannot be stored.
    pub fn check(&self) -> Result<(), FieldError> {
        check_metadata(&self.metadata)?;
        self.binding.check()
    }
}

/// Checks that an id can be part of a path and of a line.
///
/// # Errors
/// If it cannot.
pub fn check_id(id: &str) -> Result<(), FieldError> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        let problem = format!("has {} bytes; 1 to {MAX_ID_BYTES} are allowed", id.len());
        return Err(FieldError::new("id", problem));
    }
    if id.chars().any(char::is_control) {
        return Err(FieldError::new("id", "has a control character; remove it"));
    }
    Ok(())
}

/// Checks that a text can be embedded and stored.
///
/// # Errors
/// If it is blank, longer than `max_bytes`, or has a NUL character.
pub fn check_text(text: &str, max_bytes: usize) -> Result<(), FieldError> {
    // A byte order mark is no content.
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return Err(FieldError::new("text", "is blank; omit the document or send a text"));
    }
    if text.len() > max_bytes {
        let problem = format!("has {} bytes; the limit is {max_bytes}; split it", text.len());
        return Err(FieldError::new("text", problem));
    }
    check_nul(text, || "text".to_owned())
}

/// Checks metadata of a document or of a collection.
///
/// # Errors
/// If it is too large, or has a NUL character.
pub fn check_metadata(metadata: &Metadata) -> Result<(), FieldError> {
    let bytes = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_METADATA_BYTES {
        let problem = format!(
            "has {bytes} bytes; the limit is {MAX_METADATA_BYTES}; store long values in the text or elsewhere"
        );
        return Err(FieldError::new("metadata", problem));
    }
    check_fields(metadata, "metadata")
}

fn check_fields(fields: &Metadata, path: &str) -> Result<(), FieldError> {
    for (name, value) in fields {
        if name.contains('\0') {
            let problem = format!("has a field whose name has {NUL}: {name:?}; rename it");
            return Err(FieldError::new(path, problem));
        }
        check_value(value, &|| format!("{path}.{name}"))?;
    }
    Ok(())
}

fn check_value(value: &Value, path: &dyn Fn() -> String) -> Result<(), FieldError> {
    match value {
        Value::String(text) => check_nul(text, path),
        Value::Object(fields) => check_fields(fields, &path()),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .try_for_each(|(index, element)| check_value(element, &|| format!("{}[{index}]", path()))),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// How messages name the character.
const NUL: &str = "a NUL character (U+0000), which cannot be stored";

/// Refuses a NUL character, which PostgreSQL cannot store.
fn check_nul(text: &str, field: impl Fn() -> String) -> Result<(), FieldError> {
    match text.find('\0') {
        Some(at) => Err(FieldError::new(field(), format!("has {NUL}, at byte {at}; remove it"))),
        None => Ok(()),
    }
}

fn check_range(field: &str, (start, end): (u64, u64)) -> Result<(), FieldError> {
    if start <= end && i64::try_from(end).is_ok() {
        return Ok(());
    }
    Err(FieldError::new(field, format!("is [{start}, {end}]; send a start and an end that is not before it")))
}

#[cfg(test)]
mod tests {
    use embeddery_core::SpaceId;
    use serde_json::json;

    use super::*;
    use crate::{DocumentChunk, TextSpan};

    fn document(change: impl FnOnce(&mut Document)) -> Document {
        let span = TextSpan { bytes: (0, 1), characters: (0, 1) };
        let chunk = DocumentChunk { text: "x".into(), span, headings: vec!["h".into()], vector: None };
        let mut document = Document {
            id: "d".into(),
            metadata: Metadata::new(),
            chunks: vec![chunk.clone(), chunk],
            submission: None,
        };
        change(&mut document);
        document
    }

    fn metadata(value: &Value) -> Metadata {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_first_field_that_cannot_be_stored_is_named() {
        assert!(document(|_| ()).check().is_ok());
        for (broken, field, word) in [
            (document(|d| d.id = "a\0b".into()), "id", "control character"),
            (document(|d| d.id = "x".repeat(513)), "id", "has 513 bytes"),
            (document(|d| d.chunks[1].text = "a\0".into()), "chunks[1].text", "NUL character (U+0000)"),
            (document(|d| d.chunks[0].text = "\n".into()), "chunks[0].text", "is blank"),
            (document(|d| d.chunks[1].headings[0] = "\0".into()), "chunks[1].headings[0]", "NUL"),
            (document(|d| d.chunks[0].span.bytes = (2, 1)), "chunks[0].bytes", "[2, 1]"),
            (document(|d| d.chunks[0].span.characters = (0, 1 << 63)), "chunks[0].characters", "end"),
            (document(|d| d.metadata = metadata(&json!({"a": {"b": ["", "\0"]}}))), "metadata.a.b[1]", "NUL"),
            (document(|d| d.metadata = metadata(&json!({"a": [{"\0": 1}]}))), "metadata.a[0]", "name"),
            (
                document(|d| d.metadata = metadata(&json!({"a": "m".repeat(70_000)}))),
                "metadata",
                "limit is 65536",
            ),
        ] {
            let error = broken.check().unwrap_err();
            assert!(error.field == field && error.message.starts_with(field), "{error:?}");
            assert!(error.message.contains(word), "{error}");
        }
        let mut wrong = document(|_| ()).check().unwrap();
        wrong.set_vector(1, vec![1.0]);
        assert_eq!(wrong.check_vectors(2).unwrap_err().field, "chunks[1].vector");
        assert!(wrong.check_vectors(1).is_ok());
        let lengths = document(|d| {
            d.chunks[0].vector = Some(vec![1e-40, 0.0]);
            d.chunks[1].vector = Some(vec![3.0, 4.0]);
        });
        let mut checked = lengths.check().unwrap();
        assert_eq!(checked.chunks[0].vector, Some(vec![1.0, 0.0]), "f32 cannot hold its squared length");
        assert_eq!(checked.chunks[1].vector, Some(vec![3.0, 4.0]), "ordinary vectors keep their bits");
        checked.set_vector(1, vec![0.0, 3e38]);
        assert_eq!(checked.chunks[1].vector, Some(vec![0.0, 1.0]));
    }

    #[test]
    fn the_names_of_a_binding_are_checked() {
        let binding = |change: fn(&mut ModelBinding)| {
            let mut binding = ModelBinding {
                provider: "huggingface".into(),
                model: "BAAI/bge-small-en-v1.5".into(),
                space: SpaceId::new("bge@1"),
                dim: 384,
                custom_dimensions: false,
            };
            change(&mut binding);
            binding.check().map_err(|error| error.field)
        };
        assert_eq!(binding(|_| ()), Ok(()));
        assert_eq!(binding(|b| b.provider = "a\r\nb".into()), Err("provider".into()));
        assert_eq!(binding(|b| b.space = SpaceId::new("s".repeat(1 << 20))), Err("space".into()));
        assert_eq!(binding(|b| b.model = "m\n".into()), Err("model".into()));
        assert_eq!(binding(|b| b.dim = 0), Err("dimensions".into()));
    }
}
