//! The computing threads: one pool per process, shared by all models. One batch at a time has all threads, because two
//! batches at once would only compete for the same cores. Idle threads sleep.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// A pool of computing threads. The calling thread is one of them.
pub struct Threads {
    /// All threads except the calling one; `None` for a pool of one thread.
    workers: Option<rayon::ThreadPool>,
    count: usize,
    in_use: Mutex<()>,
}

/// The computing threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the computing threads could not be started: {0}")]
pub struct ThreadsError(#[from] rayon::ThreadPoolBuildError);

impl Threads {
    /// Starts `count - 1` threads; the calling thread is the last one.
    ///
    /// # Errors
    /// The system cannot start the threads.
    pub fn new(count: NonZeroUsize) -> Result<Self, ThreadsError> {
        let workers = NonZeroUsize::new(count.get() - 1).map(|workers| {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(workers.get());
            builder.thread_name(|index| format!("compute-{index}")).build()
        });
        Ok(Self { workers: workers.transpose()?, count: count.get(), in_use: Mutex::default() })
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs work that has its own threads while no batch runs on this pool, so that the number of computing threads
    /// does not exceed the pool's.
    pub fn run_alongside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.acquire();
        work()
    }

    /// Waits until the pool is free and reserves it. Callers allocate buffers only after this, so that waiting calls
    /// hold none.
    pub(crate) fn acquire(&self) -> PoolGuard<'_> {
        PoolGuard { threads: self, _guard: self.in_use.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// Exclusive use of all threads of a pool.
pub(crate) struct PoolGuard<'a> {
    threads: &'a Threads,
    _guard: MutexGuard<'a, ()>,
}

impl PoolGuard<'_> {
    /// Number of threads.
    pub(crate) fn count(&self) -> usize {
        self.threads.count
    }

    /// Runs `work` on `count` threads at the same time, including the calling thread, and returns when all have ended.
    /// `count` is clamped to the size of the pool. If one thread panics, threads that wait at a barrier end as well,
    /// and the panic is propagated.
    pub(crate) fn run_on(&self, count: usize, work: impl Fn(&ThreadCtx<'_>) + Sync) {
        let barrier = Barrier::new(count.clamp(1, self.threads.count));
        let run = |index| {
            let guard = BreakOnPanic(&barrier);
            work(&ThreadCtx { index, barrier: &barrier });
            std::mem::forget(guard);
        };
        match &self.threads.workers {
            Some(workers) if barrier.threads > 1 => workers.in_place_scope(|scope| {
                // `spawn_broadcast` gives every thread its own job. The threads wait for each other, so two jobs must
                // never queue for the same thread.
                scope.spawn_broadcast(|_, context| {
                    let index = context.index() + 1;
                    if index < barrier.threads {
                        run(index);
                    }
                });
                run(0);
            }),
            _ => run(0),
        }
    }
}

/// The context of one thread in [`PoolGuard::run_on`].
pub(crate) struct ThreadCtx<'a> {
    /// Index of the thread, from 0.
    pub(crate) index: usize,
    barrier: &'a Barrier,
}

impl ThreadCtx<'_> {
    /// Waits until every thread of the call has reached this barrier. All writes before it are visible to all threads
    /// after it.
    pub(crate) fn wait(&self) {
        self.barrier.wait();
    }
}

/// A spinning barrier. It takes a few hundred nanoseconds if all threads arrive at about the same time, which is usual
/// because they have equal work. The standard library's barrier puts threads to sleep, which takes longer than a whole
/// layer of a short text.
struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    /// Set when a thread panics.
    broken: AtomicBool,
}

/// Checks of the round before a thread yields: some tens of microseconds.
const SPINS_BEFORE_YIELD: u32 = 2000;

impl Barrier {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == round {
            if self.broken.load(Ordering::Relaxed) {
                // `resume_unwind` skips the panic hook, because the first panic was already reported.
                std::panic::resume_unwind(Box::new("another thread of the pool panicked"));
            }
            if spins < SPINS_BEFORE_YIELD {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Breaks the barrier when a panic drops it, and so releases the waiting threads.
struct BreakOnPanic<'a>(&'a Barrier);

impl Drop for BreakOnPanic<'_> {
    fn drop(&mut self) {
        self.0.broken.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("count", &self.count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn threads(count: usize) -> Threads {
        Threads::new(NonZeroUsize::new(count).unwrap()).unwrap()
    }

    #[test]
    fn all_threads_reach_every_barrier() {
        for count in [1, 2, 5] {
            let (threads, steps) = (threads(count), AtomicUsize::new(0));
            threads.acquire().run_on(count, |thread| {
                for step in 1..200 {
                    steps.fetch_add(1, Ordering::Relaxed);
                    thread.wait();
                    assert_eq!(steps.load(Ordering::Relaxed), step * count);
                    thread.wait();
                }
            });
        }
    }

    #[test]
    fn a_panic_in_one_thread_ends_all_and_the_next_run_works() {
        let threads = threads(3);
        for panicking in 0..3 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                threads.acquire().run_on(3, |thread| {
                    assert_ne!(thread.index, panicking, "deliberate panic");
                    thread.wait();
                });
            }));
            assert!(panicked.is_err());
        }
        threads.acquire().run_on(3, |thread| thread.wait());
    }
}
