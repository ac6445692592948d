//! Which chunks of documents have a vector in the collection.

use embeddery_store::{CheckedDocument, CollectionRef, ModelBinding, StoreError, StoreErrorKind};

use super::Ingest;

/// What a collection has of some documents.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The collection's model; `None` when the collection does not exist.
    pub binding: Option<ModelBinding>,
    /// For each document and each of its chunks, whether its vector is stored.
    pub stored: Vec<Vec<bool>>,
}

impl Ingest {
    /// Looks documents up in their collection. A collection that does not exist has none of them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look_up(
        &self,
        collection: CollectionRef<'_>,
        documents: &[CheckedDocument],
    ) -> Result<Lookup, StoreError> {
        let nothing = || Lookup {
            binding: None,
            stored: documents.iter().map(|document| vec![false; document.chunks.len()]).collect(),
        };
        let binding = match self.store.get(collection).await {
            Ok(found) => found.binding,
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(nothing()),
            Err(error) => return Err(error),
        };
        match self.store.existing_chunks(collection, documents).await {
            Ok(stored) => Ok(Lookup { binding: Some(binding), stored }),
            // The collection was deleted between the two queries.
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(nothing()),
            Err(error) => Err(error),
        }
    }
}
