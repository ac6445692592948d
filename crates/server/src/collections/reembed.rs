//! Migration of a collection to another model, in the background. Chunks are embedded in batches until none is missing,
//! then the collection is switched in one step. A migration that is interrupted can be started again; the vectors that
//! it has stored are kept.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use embeddery_core::{Backoff, InputType};
use embeddery_ingest::MAX_TEXTS_PER_CALL;
use embeddery_store::{MissingVector, ModelBinding};

use super::{CollectionService, Model, embed::BoundCollection};
use crate::error::ApiError;

/// The migrations that run in this process, by tenant and collection.
#[derive(Clone, Default)]
pub(crate) struct ReembedTasks(Arc<Mutex<HashSet<(String, String)>>>);

/// A running migration. It ends when this is dropped.
struct RunningTask {
    tasks: ReembedTasks,
    key: (String, String),
}

impl ReembedTasks {
    /// Registers a migration; `None` if the collection is already being migrated.
    fn begin(&self, tenant: &str, collection: &str) -> Option<RunningTask> {
        let key = (tenant.to_owned(), collection.to_owned());
        let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        is_new.then(|| RunningTask { tasks: self.clone(), key })
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Failures in a row after which a migration stops.
const MAX_FAILURES: u32 = 8;

impl CollectionService {
    /// Starts a migration, or continues one that was stopped. Returns the bindings before and after it.
    pub(crate) async fn reembed(
        &self,
        collection: &str,
        model: &Model,
    ) -> Result<(ModelBinding, ModelBinding), ApiError> {
        let from = self.store().get(self.collection_ref(collection)).await?.binding;
        let Some(running) = self.app.collections.migrations.begin(&self.tenant, collection) else {
            return Err(ApiError::already_moving(collection));
        };
        let to = self.bind(model).await?;
        let generation = self.store().begin_migration(self.collection_ref(collection), to.clone()).await?;
        let (service, target, collection) = (self.without_deadline(), to.clone(), collection.to_owned());
        tokio::spawn(async move {
            let _running = running;
            match service.migrate(&collection, generation, &target).await {
                Ok(0) => {
                    tracing::info!(collection, model = target.model, "the collection was migrated");
                }
                Ok(truncated) => {
                    tracing::warn!(
                        collection,
                        model = target.model,
                        truncated,
                        "the collection was migrated; the model did not read the end of some chunks"
                    );
                }
                Err(error) => {
                    tracing::warn!(
                        collection,
                        model = target.model,
                        %error,
                        "the migration of the collection stopped; POST reembed continues it"
                    );
                }
            }
        });
        Ok((from, to))
    }

    /// Returns the number of chunks that the new model does not read whole: the chunks stay as they are.
    async fn migrate(&self, collection: &str, generation: i64, to: &ModelBinding) -> Result<u64, ApiError> {
        let target = self.collection_ref(collection);
        let bound = BoundCollection { name: collection, binding: to };
        let (mut failures, mut truncated) = (0, 0);
        loop {
            let missing = self.store().missing_vectors(target, generation, MAX_TEXTS_PER_CALL).await?;
            // When a document was written after the query, the activation is refused and the loop continues.
            if missing.is_empty() && self.store().activate_generation(target, generation).await? {
                return Ok(truncated);
            }
            let texts: Vec<Arc<str>> = missing.iter().map(|chunk| chunk.text.as_str().into()).collect();
            match self.embed_texts(bound, &texts, InputType::Document, None, |_, error| error.into()).await {
                Ok(embedded) => {
                    failures = 0;
                    truncated += embedded.truncated;
                    let chunks = missing.iter().map(|MissingVector { chunk, .. }| *chunk);
                    let vectors = chunks.zip(embedded.vectors).collect();
                    self.store().insert_vectors(target, generation, vectors).await?;
                }
                Err(error) => {
                    failures += 1;
                    let Some(delay) = retry_delay(&error, failures) else {
                        return Err(error);
                    };
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }
}

/// The delay before the next attempt; `None` if the failure is permanent or the limit of failures is reached.
fn retry_delay(error: &ApiError, failures: u32) -> Option<Duration> {
    let backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(64)).ceiling(failures - 1);
    (failures < MAX_FAILURES && error.is_transient()).then(|| error.retry_after().unwrap_or(backoff))
}
