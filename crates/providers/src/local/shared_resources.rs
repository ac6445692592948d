//! Resources and defaults that all local providers of a process share: engine threads, the memory budget, limits.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use embeddery_engine::Threads;
use tokio::sync::Semaphore;

use super::{MemoryBudget, batcher::BATCH_TOKENS_PER_THREAD, model_instance::InstanceSettings};

/// Threads, memory budget and defaults of all local models.
pub struct SharedResources {
    threads: Arc<Threads>,
    memory: Arc<MemoryBudget>,
    /// Limits concurrent tokenizing to the number of engine threads. Tokenizing runs outside of the engine's pool.
    tokenizing: Arc<Semaphore>,
    queue_tokens: usize,
    unload_after: Duration,
}

/// The configuration of [`SharedResources`].
pub struct ResourcesConfig {
    /// Engine threads, shared by all models.
    pub threads: NonZeroUsize,
    /// The memory budget of all models.
    pub memory: Arc<MemoryBudget>,
    /// Maximum tokens that wait in one model's queue. A request beyond that is refused, unless the queue is empty.
    pub queue_tokens: usize,
    /// How long an unused model stays in memory if it has no option of its own; zero is for ever.
    pub unload_after: Duration,
}

impl SharedResources {
    /// Starts the thread pool.
    ///
    /// # Errors
    /// The operating system refuses to start the threads.
    pub fn new(config: ResourcesConfig) -> Result<Arc<Self>, String> {
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

    /// The memory budget of all models.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    pub(crate) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    pub(super) fn tokenizing(&self) -> Arc<Semaphore> {
        Arc::clone(&self.tokenizing)
    }

    pub(super) fn instance_settings(&self, unload_after: Option<Duration>) -> InstanceSettings {
        let unload_after = unload_after.unwrap_or(self.unload_after);
        InstanceSettings {
            budget: Arc::clone(&self.memory),
            queue_tokens: self.queue_tokens,
            batch_tokens: BATCH_TOKENS_PER_THREAD * self.threads.count(),
            unload_after: Some(unload_after).filter(|timeout| !timeout.is_zero()),
        }
    }
}
