//! Documents into a collection: reserve the quota, embed what is missing, store.

use std::{panic, sync::Arc, time::Duration};

use embeddery_accounts::{UserId, ledger::QuotaExceeded};
use embeddery_core::SpaceId;
use embeddery_store::{CheckedDocument, CollectionRef, StoreError, StoreErrorKind, UpsertResult};

use tokio::time::Instant;

use super::{Ingest, quota::QuotaReservation};

/// Where documents are written, and how long that may take.
#[derive(Clone, Copy, Debug)]
pub struct WriteTarget<'a> {
    /// The user that owns the collection.
    pub user: &'a UserId,
    /// The name of the collection, which must exist.
    pub collection: &'a str,
    /// The space of the vectors.
    pub space: &'a SpaceId,
    /// Maximum time to wait for vectors that other writes of the user have reserved.
    pub max_quota_wait: Duration,
    /// Maximum time to wait for the store. A write that takes longer is not interrupted.
    pub store_timeout: Option<Duration>,
}

/// Documents to write.
#[derive(Clone, Debug)]
pub struct WriteBatch {
    /// The documents. A chunk may have its vector.
    pub documents: Vec<CheckedDocument>,
    /// For each document and each of its chunks, whether the vector is stored and need not be sent.
    pub stored: Vec<Vec<bool>>,
}

/// A chunk that needs a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingChunk {
    /// The index of its document.
    pub document: usize,
    /// Its index in the document.
    pub chunk: usize,
    /// Its text.
    pub text: Arc<str>,
}

/// Why documents are not written.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteError {
    /// The store failed.
    Store(StoreError),
    /// The store did not answer in time. It may still complete the write.
    StoreTimeout,
    /// The user's quota of vectors is exceeded.
    QuotaExceeded(QuotaExceeded),
    /// The vectors fit only after other writes of the user, which have reserved vectors, have finished.
    QuotaReserved,
    /// The counter does not allow the vectors, but may be too high; the reason is given.
    QuotaUnknown(&'static str),
}

impl Ingest {
    /// Stores documents, all or none.
    ///
    /// `embed` returns the vectors of chunks, in their order. It is called for the chunks that have no vector and are not
    /// stored, and once more when a chunk of `stored` was deleted since.
    ///
    /// # Errors
    /// When the quota is exceeded, or when the store or `embed` fails.
    pub async fn write<E: From<WriteError>, F: Future<Output = Result<Vec<Vec<f32>>, E>>>(
        &self,
        target: &WriteTarget<'_>,
        batch: WriteBatch,
        embed: impl Fn(Vec<MissingChunk>) -> F,
    ) -> Result<UpsertResult, E> {
        let WriteBatch { mut documents, stored } = batch;
        let mut new = new_chunks(&documents, |document, chunk| !stored[document][chunk]);
        let mut is_retry = false;
        let deadline = Instant::now() + target.max_quota_wait;
        loop {
            let reservation = self.reserve_for(target, &documents, new.len() as u64, deadline).await?;
            if let Err(error) = fill(&mut documents, &new, &embed).await {
                reservation.release().await;
                return Err(error);
            }
            // Only a document with a chunk that is left to the store can be refused for a missing vector.
            let retry = (!is_retry && has_gaps(&documents)).then(|| documents.clone());
            match (self.upsert(target, reservation, documents).await, retry) {
                (Err(WriteError::Store(error)), Some(again))
                    if error.kind == StoreErrorKind::VectorMissing =>
                {
                    documents = again;
                    new = new_chunks(&documents, |_, _| true);
                    is_retry = true;
                }
                (result, _) => return result.map_err(E::from),
            }
        }
    }

    /// Reserves `vectors`, or the number of chunks that the collection does not have by now when that is fewer:
    /// another write may have stored some of them since they were looked up.
    async fn reserve_for(
        &self,
        target: &WriteTarget<'_>,
        documents: &[CheckedDocument],
        mut vectors: u64,
        deadline: Instant,
    ) -> Result<QuotaReservation, WriteError> {
        let WriteTarget { user, collection, .. } = *target;
        let tenant = user.directory_name();
        loop {
            let error = match self.reserve(user, vectors, deadline).await {
                Ok(reservation) => return Ok(reservation),
                Err(error) => error,
            };
            let found = self.look_up(CollectionRef { tenant: &tenant, collection }, documents).await?;
            let missing = found.stored.iter().flatten().filter(|stored| !**stored).count() as u64;
            if missing >= vectors {
                return Err(error);
            }
            vectors = missing;
        }
    }

    /// Stores documents in a task of its own, so that a disconnect of the caller does not interrupt the settlement of the
    /// reservation.
    async fn upsert(
        &self,
        target: &WriteTarget<'_>,
        reservation: QuotaReservation,
        documents: Vec<CheckedDocument>,
    ) -> Result<UpsertResult, WriteError> {
        let sends_vectors =
            documents.iter().flat_map(|document| &document.chunks).any(|chunk| chunk.vector.is_some());
        let space = sends_vectors.then(|| target.space.clone());
        let (tenant, collection) = (target.user.directory_name(), target.collection.to_owned());
        let store = Arc::clone(&self.store);
        let task = tokio::spawn(async move {
            let collection = CollectionRef { tenant: &tenant, collection: &collection };
            reservation.commit(store.upsert(collection, space, documents)).await
        });
        let joined = match target.store_timeout {
            Some(timeout) => {
                tokio::time::timeout(timeout, task).await.map_err(|_| WriteError::StoreTimeout)?
            }
            None => task.await,
        };
        match joined {
            Ok(result) => result.map_err(WriteError::Store),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => panic::resume_unwind(panic),
                Err(_) => {
                    let message = "the write was interrupted because the process shuts down";
                    Err(WriteError::Store(StoreError::new(StoreErrorKind::Internal, message)))
                }
            },
        }
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The indices of the chunks that are new.
fn new_chunks(documents: &[CheckedDocument], is_new: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let chunks = documents
        .iter()
        .enumerate()
        .flat_map(|(document, content)| (0..content.chunks.len()).map(move |chunk| (document, chunk)));
    chunks.filter(|&(document, chunk)| is_new(document, chunk)).collect()
}

/// Embeds those of the new chunks that have no vector.
async fn fill<E, F: Future<Output = Result<Vec<Vec<f32>>, E>>>(
    documents: &mut [CheckedDocument],
    new: &[(usize, usize)],
    embed: &impl Fn(Vec<MissingChunk>) -> F,
) -> Result<(), E> {
    let missing = new.iter().filter_map(|&(document, chunk)| {
        let content = &documents[document].chunks[chunk];
        content.vector.is_none().then(|| MissingChunk { document, chunk, text: content.text.as_str().into() })
    });
    let missing: Vec<MissingChunk> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let positions: Vec<_> = missing.iter().map(|at| (at.document, at.chunk)).collect();
    for ((document, chunk), vector) in positions.into_iter().zip(embed(missing).await?) {
        documents[document].set_vector(chunk, vector);
    }
    Ok(())
}

/// Whether a chunk has no vector.
fn has_gaps(documents: &[CheckedDocument]) -> bool {
    documents.iter().flat_map(|document| &document.chunks).any(|chunk| chunk.vector.is_none())
}
