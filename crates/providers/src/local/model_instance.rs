//! A model's place in memory: loaded by the first request that needs it, once at a time, kept while it is used, and let
//! go when nobody has used it for a while, when another model needs its room, or when an administrator says so. A request
//! holds a [`ModelGuard`] until its answer is there; what it uses stays until then, whatever happens to the slot.

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

/// A model that may be in memory.
pub(super) struct ModelInstance {
    pub(super) name: Arc<str>,
    pub(super) files: Box<dyn ModelOnDisk>,
    /// What configuration puts in place of the model's own prompts.
    pub(super) prompts: BTreeMap<String, String>,
    settings: SlotSettings,
    state: Mutex<State>,
    /// Held by whoever loads.
    loading: Arc<tokio::sync::Mutex<()>>,
}

/// How a slot behaves.
pub(super) struct SlotSettings {
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) queue_tokens: usize,
    /// Tokens of one step.
    pub(super) step_tokens: usize,
    /// How long an unused model stays; `None`: for ever.
    pub(super) unload_after: Option<Duration>,
}

#[derive(Default)]
struct State {
    resident: Option<Resident>,
    /// Why it could not be loaded the last time.
    failure: Option<String>,
    /// Whether it has ever been in memory.
    was_here: bool,
    /// The space of its vectors, as the weights said when they were last read.
    space: Option<SpaceId>,
}

struct Resident {
    loaded: Arc<LoadedModel>,
    users: usize,
    since: Instant,
    idle_since: Instant,
}

/// A model in memory, with its thread.
pub(super) struct LoadedModel {
    // In this order: the thread outlives what is dropped here, so that memory is given back there and not by a request.
    weights: Arc<Weights>,
    pub(super) queue: QueueOwner,
    pub(super) space: SpaceId,
}

impl LoadedModel {
    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.weights.backend
    }
}

/// What takes the memory, and the place that it takes.
struct Weights {
    backend: Box<dyn Backend>,
    // Dropped after the above: the place is free when the model is gone.
    place: MemoryReservation,
}

impl Compute for Weights {
    fn encode(&self, batch: &[&embeddery_engine::Tokens]) -> Result<Vec<f32>, String> {
        self.backend.encode(batch)
    }
}

/// Ends the thread when the model is let go.
pub(super) struct QueueOwner(Arc<Batcher>);

impl std::ops::Deref for QueueOwner {
    type Target = Batcher;

    fn deref(&self) -> &Batcher {
        &self.0
    }
}

impl Drop for QueueOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The right to use a model that is in memory.
pub(super) struct ModelGuard {
    slot: Arc<ModelInstance>,
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
        self.slot.release(&self.loaded);
    }
}

impl ModelInstance {
    pub(super) fn new(
        name: Arc<str>,
        files: Box<dyn ModelOnDisk>,
        prompts: BTreeMap<String, String>,
        settings: SlotSettings,
    ) -> Arc<Self> {
        let slot = Arc::new(Self {
            name,
            files,
            prompts,
            settings,
            state: Mutex::default(),
            loading: Arc::default(),
        });
        let tenant: Weak<Self> = Arc::downgrade(&slot);
        slot.settings.memory.register(tenant);
        slot
    }

    /// The model, loaded now if it is not in memory: by one task at a time, which goes on when its caller hangs up. Who
    /// hangs up before there was room for it takes the wish along.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<ModelGuard, EmbedError> {
        if let Some(lease) = self.lease_now() {
            return Ok(lease);
        }
        let loading = Arc::clone(&self.loading).lock_owned().await;
        if let Some(lease) = self.lease_now() {
            return Ok(lease);
        }
        let place = self.settings.memory.reserve(&self.name, self.files.facts().memory_bytes).await?;
        let slot = Arc::clone(self);
        let task = tokio::spawn(async move {
            let lease = slot.load(place).await;
            drop(loading);
            lease
        });
        task.await.unwrap_or_else(|_| Err(EmbedError::internal("loading the model failed")))
    }

    /// The model if it is in memory.
    pub(super) fn lease_now(self: &Arc<Self>) -> Option<ModelGuard> {
        let mut state = self.state();
        let resident = state.resident.as_mut()?;
        resident.users += 1;
        Some(ModelGuard { loaded: Arc::clone(&resident.loaded), slot: Arc::clone(self) })
    }

    pub(super) fn model_state(&self) -> ModelState {
        let state = self.state();
        match (&state.resident, &state.failure) {
            (Some(_), _) => ModelState::Loaded,
            (None, Some(reason)) => ModelState::Failed { reason: reason.clone() },
            (None, None) if state.was_here => ModelState::Unloaded,
            (None, None) => ModelState::OnDisk,
        }
    }

    /// Which vectors its own are, once the weights have been read for the first time.
    pub(super) fn identity(&self) -> Option<EmbeddingIdentity> {
        let space = self.state().space.clone()?;
        Some(EmbeddingIdentity { space, precision: Some(self.files.facts().precision) })
    }

    /// The space of its vectors; reads the weights if nobody has. Blocks.
    pub(super) fn space(&self) -> Result<SpaceId, String> {
        if let Some(space) = &self.state().space {
            return Ok(space.clone());
        }
        let space = self.space_of(&self.files.fingerprint()?);
        Ok(self.state().space.get_or_insert(space).clone())
    }

    /// Lets the model go, used or not; says whether it was in memory.
    pub(super) fn unload(&self, why: &str) -> bool {
        let taken = self.state().resident.take();
        self.evict(taken, why)
    }

    fn space_of(&self, fingerprint: &str) -> SpaceId {
        SpaceId::new(format!("{fingerprint}:{}", self.files.facts().dimensions))
    }

    /// Loads the weights and starts the thread.
    async fn load(self: &Arc<Self>, place: MemoryReservation) -> Result<ModelGuard, EmbedError> {
        let (task, began) = (Arc::clone(self), Instant::now());
        let result = tokio::task::spawn_blocking(move || {
            // The place comes along: whatever was loaded is gone before it is free.
            Ok(Weights { backend: task.files.load()?, place })
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
        let facts = self.files.facts();
        tracing::info!(
            model = %self.name, computes_with = weights.backend.computes_with(), precision = facts.precision,
            dimensions = facts.dimensions, max_tokens = facts.max_tokens, memory_bytes = facts.memory_bytes,
            elapsed_ms = began.elapsed().as_millis() as u64, "model loaded"
        );
        let compute: Arc<dyn Compute> = Arc::<Weights>::clone(&weights);
        let queue = Batcher::start(compute, self.settings.step_tokens, self.settings.queue_tokens);
        let queue = QueueOwner(queue.map_err(|error| {
            tracing::error!(model = %self.name, %error, "the engine thread did not start");
            EmbedError::internal("the engine thread could not be started")
        })?);
        let space = self.space_of(weights.backend.fingerprint());
        let loaded = Arc::new(LoadedModel { weights, queue, space: space.clone() });
        let now = Instant::now();
        let resident = Resident { loaded: Arc::clone(&loaded), users: 1, since: now, idle_since: now };
        *self.state() = State { resident: Some(resident), failure: None, was_here: true, space: Some(space) };
        self.unload_when_idle(&loaded);
        Ok(ModelGuard { slot: Arc::clone(self), loaded })
    }

    fn release(&self, loaded: &Arc<LoadedModel>) {
        let mut state = self.state();
        let Some(resident) = state.resident.as_mut().filter(|now| Arc::ptr_eq(&now.loaded, loaded)) else {
            return;
        };
        resident.users -= 1;
        resident.idle_since = Instant::now();
        let idle = resident.users == 0;
        drop(state);
        if idle {
            self.settings.memory.notify_idle();
        }
    }

    /// Watches one load of the model until it has been idle for as long as it may.
    fn unload_when_idle(self: &Arc<Self>, loaded: &Arc<LoadedModel>) {
        let Some(timeout) = self.settings.unload_after else { return };
        let (slot, loaded) = (Arc::downgrade(self), Arc::downgrade(loaded));
        tokio::spawn(async move {
            loop {
                let due = {
                    let Some(slot) = slot.upgrade() else { return };
                    match slot.evict_if_idle(&loaded, timeout) {
                        Some(due) => due,
                        None => return,
                    }
                };
                tokio::time::sleep_until(due).await;
            }
        });
    }

    /// Lets the model go if its time is over; else when to look again. `None`: it is gone.
    fn evict_if_idle(&self, loaded: &Weak<LoadedModel>, timeout: Duration) -> Option<Instant> {
        let mut state = self.state();
        let resident =
            state.resident.as_ref().filter(|now| std::ptr::eq(Arc::as_ptr(&now.loaded), loaded.as_ptr()))?;
        let now = Instant::now();
        let due = if resident.users > 0 { now + timeout } else { resident.idle_since + timeout };
        if due > now {
            return Some(due);
        }
        let taken = state.resident.take();
        drop(state);
        self.evict(taken, "nobody used it");
        None
    }

    fn evict(&self, taken: Option<Resident>, why: &str) -> bool {
        let Some(resident) = taken else { return false };
        resident.loaded.weights.place.leaves();
        tracing::info!(model = %self.name, why, in_use = resident.users > 0, "model unloaded");
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
        self.state().resident.as_ref().map(|resident| resident.since)
    }

    fn evict_if_idle(&self) {
        let mut state = self.state();
        if state.resident.as_ref().is_some_and(|resident| resident.users == 0) {
            let taken = state.resident.take();
            drop(state);
            self.evict(taken, "another model needs its room");
        }
    }

    fn evict(&self) {
        self.unload("another model needs its room");
    }
}

pub(super) fn unusable(name: &str, reason: &str) -> EmbedError {
    EmbedError::new(
        ErrorKind::ModelUnusable,
        Fault::Us,
        Retry::Never,
        format!("model '{name}' cannot be used: {reason}"),
    )
}
