//! Errors of a store. The code that sees the failure chooses its kind; the HTTP layer maps the kind to a status.

use std::{fmt, time::Duration};

use embeddery_core::SpaceId;

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// The cause, for decisions in code.
    pub kind: StoreErrorKind,
    /// Explanation and remedy. It may be shown to the client, except for [`StoreErrorKind::Internal`].
    pub message: String,
}

/// The cause of a failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The value cannot be stored or searched for.
    Invalid,
    /// The collection or document does not exist.
    NotFound,
    /// A collection of this name exists.
    Exists,
    /// The vectors are of another space than those of the collection, so the two must not be compared.
    SpaceMismatch {
        /// Space of the collection.
        bound: SpaceId,
        /// Space of the vectors that were sent.
        offered: SpaceId,
    },
    /// A chunk was sent without its vector, and the store does not hold the vector, because the document was changed
    /// since [`existing_chunks`](crate::VectorStore::existing_chunks). The caller sends the vector.
    VectorMissing,
    /// The state of the migration does not allow the operation.
    Migration,
    /// The disk is full or has less than the reserve free.
    Full,
    /// The database is unreachable or busy. A retry may succeed.
    Unavailable {
        /// Delay before a retry.
        after: Duration,
    },
    /// The data was written by a newer version.
    TooNew,
    /// This store does not implement the operation.
    Unsupported,
    /// A defect or a damaged database. The message is for the log only.
    Internal,
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// An error of the kind [`StoreErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid, message)
    }

    /// The collection does not exist.
    pub fn no_collection(name: &str) -> Self {
        Self::new(StoreErrorKind::NotFound, format!("collection '{name}' is not there"))
    }

    /// The document does not exist.
    pub fn no_document(collection: &str, id: &str) -> Self {
        Self::new(StoreErrorKind::NotFound, format!("document '{id}' is not in collection '{collection}'"))
    }

    /// A collection of this name exists.
    pub fn collection_exists(name: &str) -> Self {
        let message = format!("collection '{name}' exists; delete it first or choose another name");
        Self::new(StoreErrorKind::Exists, message)
    }

    /// The vectors sent to a collection are of another space.
    pub fn space_mismatch(name: &str, bound: &SpaceId, offered: &SpaceId) -> Self {
        let message = format!(
            "collection '{name}' holds vectors of space '{bound}', these are of space '{offered}'; use the collection's model, or migrate the collection with POST …/{name}/reembed"
        );
        Self::new(StoreErrorKind::SpaceMismatch { bound: bound.clone(), offered: offered.clone() }, message)
    }

    pub(crate) fn same_space(name: &str, space: &SpaceId) -> Self {
        let message = format!("collection '{name}' is already in space '{space}'; no migration is needed");
        Self::new(StoreErrorKind::Migration, message)
    }

    pub(crate) fn migration_ended(name: &str) -> Self {
        let message =
            format!("the migration of collection '{name}' has ended or was replaced by another one");
        Self::new(StoreErrorKind::Migration, message)
    }

    /// A chunk came without its vector, and the store does not hold the vector.
    pub(crate) fn vector_missing(document: &str) -> Self {
        let message = format!("document '{document}' was changed by another request; send it again");
        Self::new(StoreErrorKind::VectorMissing, message)
    }

    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self::new(StoreErrorKind::Internal, message.to_string())
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unavailable { after: Duration::from_secs(5) }, message)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}
