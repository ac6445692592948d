//! The ids of the documents of one request, which must differ.

use std::collections::HashMap;

/// The position of the document of each id.
pub(crate) struct DocumentIds {
    /// The position by a hash of the id. The ids themselves are not kept, because a request may have very many documents.
    positions: HashMap<u64, u64>,
    describe: fn(u64) -> String,
}

impl DocumentIds {
    /// No ids yet. `describe` names a position in errors.
    pub(crate) fn new(describe: fn(u64) -> String) -> Self {
        Self { positions: HashMap::new(), describe }
    }

    /// Records the id of the document at a position.
    ///
    /// # Errors
    /// If an earlier document has the same id. The error is a message about `subject`.
    pub(crate) fn insert(&mut self, id: &str, position: u64, subject: &str) -> Result<(), String> {
        let hash = blake3::hash(id.as_bytes());
        let key = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let Some(first) = self.positions.insert(key, position) else { return Ok(()) };
        Err(format!("{subject} has the id of {}, or its text and no id", (self.describe)(first)))
    }
}
