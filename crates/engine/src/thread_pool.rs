//! The threads that compute: one pool for a whole process, however many models it runs. One batch at a time has
//! all of them, because two batches at once would only take turns on the same cores. Idle threads sleep.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// A pool of computing threads. The thread that asks for vectors is one of them.
pub struct Threads {
    /// All but the asking thread; `None` for one thread.
    others: Option<rayon::ThreadPool>,
    count: usize,
    turn: Mutex<()>,
}

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the computing threads could not be started: {0}")]
pub struct ThreadsError(#[from] rayon::ThreadPoolBuildError);

impl Threads {
    /// Starts `count` threads, less the one that will ask.
    ///
    /// # Errors
    /// The system refuses to start them.
    pub fn new(count: NonZeroUsize) -> Result<Self, ThreadsError> {
        let others = NonZeroUsize::new(count.get() - 1).map(|others| {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(others.get());
            builder.thread_name(|index| format!("compute-{index}")).build()
        });
        Ok(Self { others: others.transpose()?, count: count.get(), turn: Mutex::default() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs work that has threads of its own, in turn with the batches of this pool's models, so that no more threads
    /// compute at a time than there are.
    pub fn run_alongside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.acquire();
        work()
    }

    /// Waits until nobody else computes. Buffers of a computation are made after this, so that there are no more
    /// than are in use.
    pub(crate) fn acquire(&self) -> PoolGuard<'_> {
        PoolGuard { threads: self, _guard: self.turn.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// All threads are its holder's.
pub(crate) struct PoolGuard<'a> {
    threads: &'a Threads,
    _guard: MutexGuard<'a, ()>,
}

impl PoolGuard<'_> {
    /// How many threads there are.
    pub(crate) fn count(&self) -> usize {
        self.threads.count
    }

    /// Runs `work` on `members` threads at once (no more than there are), this one among them, and returns when
    /// all have ended. A panic of one ends those who wait for it, and is passed on when the others have ended.
    pub(crate) fn run_on(&self, members: usize, work: impl Fn(&ThreadCtx<'_>) + Sync) {
        let barrier = Barrier::new(members.clamp(1, self.threads.count));
        let run = |index| {
            let broken = BrokenByPanic(&barrier);
            work(&ThreadCtx { index, barrier: &barrier });
            std::mem::forget(broken);
        };
        match &self.threads.others {
            Some(others) if barrier.members > 1 => others.in_place_scope(|scope| {
                // To every thread its own job: members wait for each other, so no job may wait for another to end.
                scope.spawn_broadcast(|_, context| {
                    let index = context.index() + 1;
                    if index < barrier.members {
                        run(index);
                    }
                });
                run(0);
            }),
            _ => run(0),
        }
    }
}

/// One thread of a team.
pub(crate) struct ThreadCtx<'a> {
    pub(crate) index: usize,
    barrier: &'a Barrier,
}

impl ThreadCtx<'_> {
    /// Waits until every member has come here. What any of them wrote before, all see after.
    pub(crate) fn wait(&self) {
        self.barrier.wait();
    }
}

/// Meets in a few hundred nanoseconds when all come at about the same time, as members do, who have equal work;
/// the standard library's barrier puts every thread to sleep, which takes longer than a short text's whole layer.
struct Barrier {
    members: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

/// Looks at the round before a thread lets others run: some tens of microseconds.
const SPINS: u32 = 2000;

impl Barrier {
    fn new(members: usize) -> Self {
        Self {
            members,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == round {
            if self.broken.load(Ordering::Relaxed) {
                // Without the panic hook: the member at fault has told its story.
                std::panic::resume_unwind(Box::new("another thread of the team panicked"));
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Dropped while a member panics: releases those who wait for it.
struct BrokenByPanic<'a>(&'a Barrier);

impl Drop for BrokenByPanic<'_> {
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
    fn everyone_comes_to_every_barrier() {
        for count in [1, 2, 5] {
            let (threads, steps) = (threads(count), AtomicUsize::new(0));
            threads.acquire().run_on(count, |member| {
                for step in 1..200 {
                    steps.fetch_add(1, Ordering::Relaxed);
                    member.wait();
                    assert_eq!(steps.load(Ordering::Relaxed), step * count);
                    member.wait();
                }
            });
        }
    }

    #[test]
    fn a_panic_of_one_ends_all_and_the_next_team_works() {
        let threads = threads(3);
        for at_fault in 0..3 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                threads.acquire().run_on(3, |member| {
                    assert_ne!(member.index, at_fault, "told to");
                    member.wait();
                });
            }));
            assert!(panicked.is_err());
        }
        threads.acquire().run_on(3, |member| member.wait());
    }
}
