//! The ids of the documents of one request, which must differ.

use std::collections::HashMap;

/// The position of each id, by a hash of the id: a request may have very many documents.
#[derive(Default)]
pub(crate) struct DocumentIds(HashMap<u64, u64>);

impl DocumentIds {
    /// Records the id of the document at a position. When an earlier document has it, the error is a message about
    /// `subject`; `describe` names the position of the earlier document.
    pub(crate) fn insert(
        &mut self,
        id: &str,
        position: u64,
        subject: &str,
        describe: impl Fn(u64) -> String,
    ) -> Result<(), String> {
        let hash = blake3::hash(id.as_bytes());
        let key = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        match self.0.insert(key, position) {
            None => Ok(()),
            Some(first) => Err(format!("{subject} has the id of {}, or its text and no id", describe(first))),
        }
    }
}
