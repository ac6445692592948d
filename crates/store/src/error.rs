//! What can go wrong in a store. Whoever sees a failure decides its kind; the edge decides the status.

use std::{fmt, time::Duration};

use embeddery_core::SpaceId;

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What happened, for decisions.
    pub kind: StoreErrorKind,
    /// What was wrong and what to do, in words the caller may see.
    pub message: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// A value that cannot be stored or searched with.
    Invalid,
    /// No such collection or document.
    NotFound,
    /// A collection of this name is there.
    Exists,
    /// Vectors that must not be compared with the collection's.
    SpaceMismatch {
        /// The collection's space.
        bound: SpaceId,
        /// The offered one.
        offered: SpaceId,
    },
    /// A vector that was said to be stored is not: somebody changed the document meanwhile. Send it.
    VectorMissing,
    /// A migration cannot end or begin as things are.
    Migration,
    /// The disk is full, or close to it.
    Full,
    /// The database is out of reach or busy; later may help.
    Unavailable {
        /// When to come back.
        after: Duration,
    },
    /// The data were written by a newer version.
    TooNew,
    /// This store cannot do it.
    Unsupported,
    /// A defect, or a damaged database. The message is for the log.
    Internal,
}

impl StoreError {
    /// A failure with its explanation.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A value that cannot be stored or searched with.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid, message)
    }

    /// No such collection.
    pub fn no_collection(name: &str) -> Self {
        Self::new(StoreErrorKind::NotFound, format!("collection '{name}' is not there"))
    }

    /// No such document.
    pub fn no_document(collection: &str, id: &str) -> Self {
        Self::new(StoreErrorKind::NotFound, format!("document '{id}' is not in collection '{collection}'"))
    }

    pub(crate) fn exists(name: &str) -> Self {
        let message =
            format!("collection '{name}' is there already; delete it first, or choose another name");
        Self::new(StoreErrorKind::Exists, message)
    }

    /// Vectors that must not be compared with the collection's.
    pub fn space_mismatch(name: &str, bound: &SpaceId, offered: &SpaceId) -> Self {
        let message = format!(
            "collection '{name}' holds vectors of space '{bound}', these are of space '{offered}'; use the collection's model, or move it with POST …/{name}/reembed"
        );
        Self::new(StoreErrorKind::SpaceMismatch { bound: bound.clone(), offered: offered.clone() }, message)
    }

    pub(crate) fn already_there(name: &str, space: &SpaceId) -> Self {
        let message = format!("collection '{name}' is in space '{space}' already; there is nothing to move");
        Self::new(StoreErrorKind::Migration, message)
    }

    pub(crate) fn replaced(name: &str) -> Self {
        let message =
            format!("the migration of collection '{name}' has ended, or was replaced by another one");
        Self::new(StoreErrorKind::Migration, message)
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
