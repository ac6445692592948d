//! The life cycle of a model in memory. The first request that needs the model loads it. It is unloaded when it was idle
//! for the configured time, when another model needs its memory, or when an administrator unloads it. A request holds a
//! [`ModelGuard`] until it is complete. The model that the guard refers to stays in memory until then, even if it is
//! unloaded meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use embeddery_core::{EmbedError, EmbeddingIdentity, ErrorKind, Fault, ModelState, Retry, SpaceId};
use tokio::time::Instant;

use super::{
    backend::{Backend, ModelOnDisk},
    batcher::{Batcher, Compute},
    memory_budget::{Evictable, MemoryBudget, MemoryReservation},
};

/// A model that may be loaded.
pub(super) struct ModelInstance {
    pub(super) name: Arc<str>,
    pub(super) files: Box<dyn ModelOnDisk>,
    /// Configured prompts, which override the model's own.
    pub(super) prompts: BTreeMap<String, String>,
    settings: InstanceSettings,
    state: Mutex<State>,
    /// Held by the task that loads the model.
    loading: Arc<tokio::sync::Mutex<()>>,
}

/// Settings of a [`ModelInstance`].
pub(super) struct InstanceSettings {
    pub(super) budget: Arc<MemoryBudget>,
    /// Maximum tokens that wait in the queue.
    pub(super) queue_tokens: usize,
    /// Maximum tokens of one batch.
    pub(super) batch_tokens: usize,
    /// How long an unused model stays loaded; `None` is for ever.
    pub(super) unload_after: Option<Duration>,
}

#[derive(Default)]
struct State {
    resident: Option<Resident>,
    /// Why the last attempt to load it failed.
    failure: Option<String>,
    /// Whether it was loaded before.
    was_loaded: bool,
    /// The space of its vectors, once the weights were read.
    space: Option<SpaceId>,
}

/// The loaded model and its use.
struct Resident {
    loaded: Arc<LoadedModel>,
    /// The number of guards.
    users: usize,
    loaded_since: Instant,
    idle_since: Instant,
}

/// A loaded model with its batcher.
pub(super) struct LoadedModel {
    // Fields are dropped in this order: `weights`, then `batcher`, which ends its thread. So the thread drops the last
    // reference to the weights, and the memory is freed there instead of in a request.
    weights: Arc<Weights>,
    pub(super) batcher: BatcherOwner,
    pub(super) space: SpaceId,
}

impl LoadedModel {
    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.weights.backend
    }
}

/// The weights and their memory reservation.
struct Weights {
    backend: Box<dyn Backend>,
    // Dropped after `backend`: the memory must be free before the reservation is released.
    reservation: MemoryReservation,
}

impl Compute for Weights {
    fn encode(&self, batch: &[&embeddery_engine::Tokens]) -> Result<Vec<f32>, String> {
        self.backend.encode(batch)
    }
}

/// Closes the batcher on drop.
pub(super) struct BatcherOwner(Arc<Batcher>);

impl std::ops::Deref for BatcherOwner {
    type Target = Batcher;

    fn deref(&self) -> &Batcher {
        &self.0
    }
}

impl Drop for BatcherOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Keeps a loaded model in memory. The model counts as in use until the guard is dropped.
pub(super) struct ModelGuard {
    instance: Arc<ModelInstance>,
    loaded: Arc<LoadedModel>,
}

impl std::ops::Deref for ModelGuard {
    type Target = LoadedModel;

    fn deref(&self) -> &LoadedModel {
        &self.loaded
    }
}

impl Drop for ModelGuard {
    fn drop(&mut self) {
        self.instance.release(&self.loaded);
    }
}

impl ModelInstance {
    pub(super) fn new(
        name: Arc<str>,
        files: Box<dyn ModelOnDisk>,
        prompts: BTreeMap<String, String>,
        settings: InstanceSettings,
    ) -> Arc<Self> {
        let instance = Arc::new(Self {
            name,
            files,
            prompts,
            settings,
            state: Mutex::default(),
            loading: Arc::default(),
        });
        let evictable: Weak<Self> = Arc::downgrade(&instance);
        instance.settings.budget.register(evictable);
        instance
    }

    /// The model, which is loaded if necessary. One task loads at a time, and it continues if the caller is cancelled. If the
    /// caller is cancelled while it waits for memory, nothing is loaded.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<ModelGuard, EmbedError> {
        if let Some(guard) = self.acquire_if_loaded() {
            return Ok(guard);
        }
        let loading = Arc::clone(&self.loading).lock_owned().await;
        if let Some(guard) = self.acquire_if_loaded() {
            return Ok(guard);
        }
        let reservation = self.settings.budget.reserve(&self.name, self.files.info().memory_bytes).await?;
        let instance = Arc::clone(self);
        let task = tokio::spawn(async move {
            let guard = instance.load(reservation).await;
            drop(loading);
            guard
        });
        task.await.unwrap_or_else(|_| Err(EmbedError::internal("loading the model failed")))
    }

    /// The model if it is loaded.
    pub(super) fn acquire_if_loaded(self: &Arc<Self>) -> Option<ModelGuard> {
        let mut state = self.state();
        let resident = state.resident.as_mut()?;
        resident.users += 1;
        Some(ModelGuard { loaded: Arc::clone(&resident.loaded), instance: Arc::clone(self) })
    }

    pub(super) fn model_state(&self) -> ModelState {
        let state = self.state();
        match (&state.resident, &state.failure) {
            (Some(_), _) => ModelState::Loaded,
            (None, Some(reason)) => ModelState::Failed { reason: reason.clone() },
            (None, None) if state.was_loaded => ModelState::Unloaded,
            (None, None) => ModelState::OnDisk,
        }
    }

    /// The identity of its vectors, once the weights were read.
    pub(super) fn identity(&self) -> Option<EmbeddingIdentity> {
        let space = self.state().space.clone()?;
        Some(EmbeddingIdentity { space, precision: Some(self.files.info().precision) })
    }

    /// The space of its vectors. Reads the weights the first time, and blocks on the disk.
    pub(super) fn space(&self) -> Result<SpaceId, String> {
        if let Some(space) = &self.state().space {
            return Ok(space.clone());
        }
        let space = self.space_for(&self.files.fingerprint()?);
        Ok(self.state().space.get_or_insert(space).clone())
    }

    /// Unloads the model, in use or not, and returns whether it was loaded.
    pub(super) fn unload(&self, reason: &str) -> bool {
        let resident = self.state().resident.take();
        self.release_resident(resident, reason)
    }

    fn space_for(&self, fingerprint: &str) -> SpaceId {
        SpaceId::new(format!("{fingerprint}:{}", self.files.info().dimensions))
    }

    /// Loads the weights and starts the thread.
    async fn load(self: &Arc<Self>, reservation: MemoryReservation) -> Result<ModelGuard, EmbedError> {
        let (instance, started_at) = (Arc::clone(self), Instant::now());
        let result = tokio::task::spawn_blocking(move || {
            // The reservation moves into this task, so that a failed load frees its memory before it is released.
            Ok(Weights { backend: instance.files.load()?, reservation })
        });
        let result: Result<_, String> =
            result.await.map_err(|_| EmbedError::internal("loading the model failed"))?;
        let weights = match result {
            Ok(weights) => Arc::new(weights),
            Err(reason) => {
                self.state().failure = Some(reason.clone());
                return Err(unusable(&self.name, &reason));
            }
        };
        let info = self.files.info();
        tracing::info!(
            model = %self.name, computes_with = weights.backend.computes_with(), precision = info.precision,
            dimensions = info.dimensions, max_tokens = info.max_tokens, memory_bytes = info.memory_bytes,
            elapsed_ms = started_at.elapsed().as_millis() as u64, "model loaded"
        );
        let compute: Arc<dyn Compute> = Arc::<Weights>::clone(&weights);
        let batcher = Batcher::start(compute, self.settings.batch_tokens, self.settings.queue_tokens);
        let batcher = BatcherOwner(batcher.map_err(|error| {
            tracing::error!(model = %self.name, %error, "engine thread did not start");
            EmbedError::internal("the engine thread could not be started")
        })?);
        let space = self.space_for(weights.backend.fingerprint());
        let loaded = Arc::new(LoadedModel { weights, batcher, space: space.clone() });
        let now = Instant::now();
        let resident = Resident { loaded: Arc::clone(&loaded), users: 1, loaded_since: now, idle_since: now };
        *self.state() =
            State { resident: Some(resident), failure: None, was_loaded: true, space: Some(space) };
        self.unload_when_idle(&loaded);
        Ok(ModelGuard { instance: Arc::clone(self), loaded })
    }

    /// Ends the use by one guard. Does nothing if the guard's model was unloaded meanwhile.
    fn release(&self, loaded: &Arc<LoadedModel>) {
        let mut state = self.state();
        let Some(resident) = state.resident.as_mut().filter(|current| Arc::ptr_eq(&current.loaded, loaded))
        else {
            return;
        };
        resident.users -= 1;
        resident.idle_since = Instant::now();
        let is_idle = resident.users == 0;
        drop(state);
        if is_idle {
            self.settings.budget.notify_idle();
        }
    }

    /// Spawns a task that unloads this load of the model when it has been idle for the configured time.
    fn unload_when_idle(self: &Arc<Self>, loaded: &Arc<LoadedModel>) {
        let Some(timeout) = self.settings.unload_after else { return };
        let (instance, loaded) = (Arc::downgrade(self), Arc::downgrade(loaded));
        tokio::spawn(async move {
            loop {
                let deadline = {
                    let Some(instance) = instance.upgrade() else { return };
                    match instance.unload_if_expired(&loaded, timeout) {
                        Some(deadline) => deadline,
                        None => return,
                    }
                };
                tokio::time::sleep_until(deadline).await;
            }
        });
    }

    /// Unloads the model if it has been idle for `timeout`. Otherwise returns when to check again; `None` means that it is
    /// unloaded.
    fn unload_if_expired(&self, loaded: &Weak<LoadedModel>, timeout: Duration) -> Option<Instant> {
        let mut state = self.state();
        let resident = state
            .resident
            .as_ref()
            .filter(|current| std::ptr::eq(Arc::as_ptr(&current.loaded), loaded.as_ptr()))?;
        let now = Instant::now();
        let deadline = if resident.users > 0 { now + timeout } else { resident.idle_since + timeout };
        if deadline > now {
            return Some(deadline);
        }
        let resident = state.resident.take();
        drop(state);
        self.release_resident(resident, "it was idle");
        None
    }

    /// Drops a model that was taken out of the state, and returns whether there was one.
    fn release_resident(&self, resident: Option<Resident>, reason: &str) -> bool {
        let Some(resident) = resident else { return false };
        resident.loaded.weights.reservation.mark_evicting();
        tracing::info!(model = %self.name, reason, in_use = resident.users > 0, "model unloaded");
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evictable for ModelInstance {
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        state.resident.as_ref().filter(|resident| resident.users == 0).map(|resident| resident.idle_since)
    }

    fn loaded_since(&self) -> Option<Instant> {
        self.state().resident.as_ref().map(|resident| resident.loaded_since)
    }

    fn evict_if_idle(&self) {
        let mut state = self.state();
        if state.resident.as_ref().is_some_and(|resident| resident.users == 0) {
            let resident = state.resident.take();
            drop(state);
            self.release_resident(resident, "another model needs its memory");
        }
    }

    fn evict(&self) {
        self.unload("another model needs its memory");
    }
}

/// The error of a request for a model that cannot be loaded.
pub(super) fn unusable(name: &str, reason: &str) -> EmbedError {
    EmbedError::new(
        ErrorKind::ModelUnusable,
        Fault::Us,
        Retry::Never,
        format!("model '{name}' cannot be used: {reason}"),
    )
}
