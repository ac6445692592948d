//! The threads that compute. One pool for a whole process, however many models it runs: more threads than
//! cores only take turns. Idle threads sleep.

use std::num::NonZeroUsize;

/// A pool of computing threads.
pub struct Threads {
    pool: rayon::ThreadPool,
}

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the computing threads could not be started: {0}")]
pub struct ThreadsError(#[from] rayon::ThreadPoolBuildError);

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system refuses to start them.
    pub fn new(count: NonZeroUsize) -> Result<Self, ThreadsError> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(count.get());
        Ok(Self { pool: builder.thread_name(|index| format!("compute-{index}")).build()? })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("count", &self.count()).finish()
    }
}
