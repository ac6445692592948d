//! What the local providers of a process share: threads that compute, memory for models, and habits.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use embeddery_engine::Threads;
use tokio::sync::Semaphore;

use super::{MemoryBudget, batcher::STEP_TOKENS_PER_THREAD, model_instance::SlotSettings};

/// Threads, memory and habits of all local models.
pub struct SharedResources {
    threads: Arc<Threads>,
    memory: Arc<MemoryBudget>,
    /// Tokenizing happens beside the engine's pool; as many at a time as the pool has threads.
    tokenizing: Arc<Semaphore>,
    queue_tokens: usize,
    unload_after: Duration,
}

/// What a machine is made of.
pub struct MachineConfig {
    /// Threads that compute, shared by all models.
    pub threads: NonZeroUsize,
    /// Memory that all models may have together.
    pub memory: Arc<MemoryBudget>,
    /// Tokens that may wait in one model's queue; a request beyond that is refused, unless nothing waits.
    pub queue_tokens: usize,
    /// How long a model stays in memory unused, where it has no setting of its own; zero: for ever.
    pub unload_after: Duration,
}

impl SharedResources {
    /// Starts the thread pool.
    ///
    /// # Errors
    /// The system refuses to start threads.
    pub fn new(config: MachineConfig) -> Result<Arc<Self>, String> {
        let threads = Threads::new(config.threads)
            .map_err(|error| format!("cannot start {} engine threads: {error}", config.threads))?;
        Ok(Arc::new(Self {
            tokenizing: Arc::new(Semaphore::new(threads.count())),
            threads: Arc::new(threads),
            memory: config.memory,
            queue_tokens: config.queue_tokens,
            unload_after: config.unload_after,
        }))
    }

    /// The memory that all models have together.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    pub(crate) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    pub(super) fn tokenizing(&self) -> Arc<Semaphore> {
        Arc::clone(&self.tokenizing)
    }

    pub(super) fn slot_settings(&self, unload_after: Option<Duration>) -> SlotSettings {
        let unload_after = unload_after.unwrap_or(self.unload_after);
        SlotSettings {
            memory: Arc::clone(&self.memory),
            queue_tokens: self.queue_tokens,
            step_tokens: STEP_TOKENS_PER_THREAD * self.threads.count(),
            unload_after: Some(unload_after).filter(|timeout| !timeout.is_zero()),
        }
    }
}
