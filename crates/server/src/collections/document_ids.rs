//! The ids of the documents of one request, which must differ. A document without an id gets the hash of its text; when
//! an equal document comes again, it is the same document.

use std::collections::{HashMap, hash_map::Entry};

use serde_json::{Map, Value};

/// The id of a document that is sent without one.
pub(crate) fn derived_id(text: &str) -> String {
    blake3::hash(embeddery_core::without_byte_order_mark(text.as_bytes())).to_hex()[..32].to_owned()
}

/// What decides whether two documents are the same.
#[derive(Clone, Copy)]
pub(crate) struct DocumentIdentity<'a> {
    pub(crate) id: &'a str,
    pub(crate) text: &'a str,
    pub(crate) metadata: &'a Map<String, Value>,
    pub(crate) content_type: Option<&'a str>,
}

/// The position of the document of each id.
pub(crate) struct DocumentIds {
    /// The first document by a hash of the id. The ids themselves are not kept, because a request may have very many
    /// documents.
    first: HashMap<u64, FirstDocument>,
    describe: fn(u64) -> String,
}

/// The first document with an id.
struct FirstDocument {
    position: u64,
    /// A hash of all except the id and the text.
    attributes: u64,
    /// Whether the id is that of the text.
    is_derived: bool,
}

/// An earlier document that is equal to one without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EqualDocument {
    pub(crate) position: u64,
    /// What happened to the later document, for its sender.
    pub(crate) message: String,
}

impl DocumentIds {
    /// No ids yet. `describe` names a position in messages.
    pub(crate) fn new(describe: fn(u64) -> String) -> Self {
        Self { first: HashMap::new(), describe }
    }

    /// Records the document at a position. Returns the earlier document that is equal to it, if it was sent without an id.
    ///
    /// # Errors
    /// If an earlier document has the same id and the two are not the same document. The error is a message about
    /// `subject`.
    pub(crate) fn insert(
        &mut self,
        document: DocumentIdentity<'_>,
        position: u64,
        subject: &str,
    ) -> Result<Option<EqualDocument>, String> {
        let DocumentIdentity { id, text, metadata, content_type } = document;
        // Maps of strings and values always serialize.
        let attributes = id_hash(&serde_json::to_vec(&(content_type, metadata)).unwrap_or_default());
        let is_derived = id == derived_id(text);
        let first = match self.first.entry(id_hash(id.as_bytes())) {
            Entry::Vacant(entry) => {
                entry.insert(FirstDocument { position, attributes, is_derived });
                return Ok(None);
            }
            Entry::Occupied(entry) => entry.into_mut(),
        };
        let other = (self.describe)(first.position);
        if !is_derived {
            return Err(format!("{subject} has the id of {other}; send each id once"));
        }
        if !first.is_derived {
            return Err(format!(
                "{subject} has no id, and {other}, whose text differs, has the id that is made from this text; \
                 give both another id"
            ));
        }
        if first.attributes != attributes {
            return Err(format!(
                "{subject} has the text of {other}, no id, and other metadata; give both an id, or send one of them"
            ));
        }
        let message =
            format!("{subject} has the text and the metadata of {other} and no id; it is stored once");
        Ok(Some(EqualDocument { position: first.position, message }))
    }
}

/// The first 64 bits of the BLAKE3 hash.
pub(crate) fn id_hash(bytes: &[u8]) -> u64 {
    blake3::hash(bytes).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_equal_document_without_an_id_is_the_same_and_every_other_repetition_is_an_error() {
        let mut ids = DocumentIds::new(|position| format!("documents[{position}]"));
        let one = derived_id("one");
        let (none, some) = (Map::new(), json!({"a": 1}).as_object().unwrap().clone());
        let document = |id, text, metadata| DocumentIdentity { id, text, metadata, content_type: None };
        assert_eq!(derived_id("\u{feff}one"), one, "a byte order mark is no content");
        assert_eq!(ids.insert(document("a", "one", &none), 0, "documents[0]"), Ok(None));
        assert_eq!(
            ids.insert(document(&one, "one", &none), 1, "documents[1]"),
            Ok(None),
            "ids, not texts, are compared"
        );
        let equal = ids.insert(document(&one, "one", &none), 2, "documents[2]").unwrap().unwrap();
        assert_eq!(equal.position, 1);
        assert!(equal.message.starts_with("documents[2] has the text and the metadata of documents[1]"));
        let other = ids.insert(document(&one, "one", &some), 3, "documents[3]").unwrap_err();
        assert!(other.contains("has the text of documents[1], no id, and other metadata"), "{other}");
        let typed = DocumentIdentity { content_type: Some("text/html"), ..document(&one, "one", &none) };
        assert!(ids.insert(typed, 4, "documents[4]").is_err());
        let two = derived_id("two");
        assert_eq!(ids.insert(document(&two, "another text", &none), 6, "documents[6]"), Ok(None));
        let taken = ids.insert(document(&two, "two", &none), 7, "documents[7]").unwrap_err();
        assert!(taken.starts_with("documents[7] has no id, and documents[6], whose text differs"), "{taken}");
        for text in ["one", "two"] {
            let same = ids.insert(document("a", text, &none), 5, "documents[5]").unwrap_err();
            assert_eq!(same, "documents[5] has the id of documents[0]; send each id once");
        }
    }
}
