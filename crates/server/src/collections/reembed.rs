//! The move of a collection to another model, in the background: chunk by chunk until none is missing, then one
//! switch. It may be stopped at any instruction and begun again: what has been made is kept.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use embeddery_core::{Backoff, InputType};
use embeddery_store::{MissingVector, ModelBinding};

use super::{CollectionService, Model};
use crate::error::ApiError;

/// The moves that run in this process.
#[derive(Clone, Default)]
pub(crate) struct ReembedTasks(Arc<Mutex<HashSet<(String, String)>>>);

/// One running move; ends when dropped.
struct Running(ReembedTasks, (String, String));

impl ReembedTasks {
    fn begin(&self, tenant: &str, collection: &str) -> Option<Running> {
        let key = (tenant.to_owned(), collection.to_owned());
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        fresh.then(|| Running(self.clone(), key))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Chunks that are read, embedded and stored together.
const BATCH: usize = 256;

/// Failures in a row after which a move rests until somebody asks for it again.
const TIMEOUT: u32 = 8;

impl CollectionService {
    /// Begins a move and returns what it moves from and to. Asking again goes on with it.
    pub(crate) async fn reembed(
        &self,
        collection: &str,
        model: &Model,
    ) -> Result<(ModelBinding, ModelBinding), ApiError> {
        let from = self.store().get(self.collection_ref(collection)).await?.binding;
        let Some(running) = self.app.collections.moving.begin(&self.tenant, collection) else {
            return Err(ApiError::already_moving(collection));
        };
        let to = self.bind(model).await?;
        let generation = self.store().begin_migration(self.collection_ref(collection), to.clone()).await?;
        let (desk, target, collection) = (self.without_deadline(), to.clone(), collection.to_owned());
        tokio::spawn(async move {
            let _running = running;
            match desk.move_all(&collection, generation, &target).await {
                Ok(()) => {
                    tracing::info!(collection, model = target.model, "a collection has moved");
                }
                Err(error) => {
                    tracing::warn!(collection, model = target.model, %error, "a move has stopped; POST reembed goes on with it");
                }
            }
        });
        Ok((from, to))
    }

    async fn move_all(&self, collection: &str, generation: i64, to: &ModelBinding) -> Result<(), ApiError> {
        let place = self.collection_ref(collection);
        let mut failures = 0;
        loop {
            let pending = self.store().missing_vectors(place, generation, BATCH).await?;
            // Also empty when somebody wrote in between: then the switch says no, and there is more to do.
            if pending.is_empty() && self.store().activate_generation(place, generation).await? {
                return Ok(());
            }
            let texts: Vec<Arc<str>> = pending.iter().map(|chunk| chunk.text.as_str().into()).collect();
            match self.vectors((collection, to), &texts, InputType::Document).await {
                Ok(vectors) => {
                    failures = 0;
                    let made =
                        pending.iter().map(|MissingVector { chunk, .. }| *chunk).zip(vectors).collect();
                    self.store().insert_vectors(place, generation, made).await?;
                }
                Err(error) => {
                    failures += 1;
                    let Some(pause) = pause(&error, failures) else {
                        return Err(error);
                    };
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// How long to wait before the same may succeed; `None` when it will not.
fn pause(error: &ApiError, failures: u32) -> Option<Duration> {
    let backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(64)).ceiling(failures - 1);
    (failures < TIMEOUT && error.is_transient()).then(|| error.retry_after().unwrap_or(backoff))
}
