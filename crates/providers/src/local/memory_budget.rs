//! The memory budget of all loaded models. A model is loaded after it got a [`MemoryReservation`]. If the budget is
//! exhausted, idle models are evicted, the one unused longest first. If all models stay in use for [`IN_USE_GRACE`], the
//! model that was loaded first is evicted: its running requests finish, and its later requests wait for a reservation. So
//! a busy model cannot keep another one out for ever.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use embeddery_core::{EmbedError, ErrorKind, Fault, Retry, megabytes};
use tokio::{sync::Notify, time::Instant};

/// How long a reservation waits before models in use are evicted for it.
const IN_USE_GRACE: Duration = Duration::from_secs(1);

/// The memory budget of all local providers of a process.
pub struct MemoryBudget {
    limits: MemoryLimits,
    /// How long a reservation waits for memory.
    wait_timeout: Duration,
    usage: Mutex<Usage>,
    /// Notified when memory was released or a model became idle.
    changed: Notify,
    /// Held while a reservation waits. Waiting reservations are granted in order, so that small models do not overtake a
    /// large one.
    waiting: tokio::sync::Mutex<()>,
}

/// Limits on all loaded models together; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Maximum bytes.
    pub bytes: Option<u64>,
    /// Maximum number of models.
    pub models: Option<u64>,
}

/// What is reserved, and by which models.
#[derive(Default)]
struct Usage {
    reserved: Footprint,
    /// The part of `reserved` that belongs to models that are being evicted.
    evicting: Footprint,
    models: Vec<Weak<dyn Evictable>>,
}

/// Memory and number of models.
#[derive(Clone, Copy, Default)]
struct Footprint {
    bytes: u64,
    models: u64,
}

impl Footprint {
    fn one_model(bytes: u64) -> Self {
        Self { bytes, models: 1 }
    }

    fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, models: self.models + other.models }
    }

    fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, models: self.models - other.models }
    }
}

impl MemoryLimits {
    fn allow(&self, footprint: Footprint) -> bool {
        self.bytes.is_none_or(|limit| footprint.bytes <= limit)
            && self.models.is_none_or(|limit| footprint.models <= limit)
    }
}

/// A model that may be loaded and can be evicted.
pub(super) trait Evictable: Send + Sync {
    /// When its last request ended; `None` if it is in use or not loaded.
    fn idle_since(&self) -> Option<Instant>;
    /// When it was loaded; `None` if it is not.
    fn loaded_since(&self) -> Option<Instant>;
    /// Evicts the model if no request uses it.
    fn evict_if_idle(&self);
    /// Evicts the model. Running requests finish first; later requests load it again.
    fn evict(&self);
}

/// Which models may be evicted.
#[derive(Clone, Copy)]
enum EvictionScope {
    /// Idle models, the one unused longest first.
    Idle,
    /// Models in use as well, the one loaded first first.
    All,
}

/// Reserved bytes of one model. Dropping the reservation releases them, so it must be dropped after the model.
pub(super) struct MemoryReservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
    evicting: AtomicBool,
}

impl MemoryBudget {
    /// Creates a budget. A reservation waits at most `wait_timeout` for memory.
    pub fn new(limits: MemoryLimits, wait_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            limits,
            wait_timeout,
            usage: Mutex::default(),
            changed: Notify::new(),
            waiting: tokio::sync::Mutex::default(),
        })
    }

    /// The limits.
    pub fn limits(&self) -> MemoryLimits {
        self.limits
    }

    /// Bytes reserved now, including those of models that are being loaded or evicted.
    pub fn reserved_bytes(&self) -> u64 {
        self.usage().reserved.bytes
    }

    /// Registers a model that can be evicted.
    pub(super) fn register(&self, model: Weak<dyn Evictable>) {
        let mut usage = self.usage();
        usage.models.retain(|model| model.strong_count() > 0);
        usage.models.push(model);
    }

    /// Wakes waiting reservations after a model became idle.
    pub(super) fn notify_idle(&self) {
        if self.limits != MemoryLimits::default() {
            self.changed.notify_waiters();
        }
    }

    /// Reserves memory for the model `name`. Waits until there is enough.
    ///
    /// # Errors
    /// The model needs more than the whole budget, or there was not enough memory in time.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        name: &str,
        bytes: u64,
    ) -> Result<MemoryReservation, EmbedError> {
        if let Some(limit) = self.limits.bytes.filter(|limit| bytes > *limit) {
            return Err(too_large(name, bytes, limit));
        }
        if self.limits == MemoryLimits::default()
            && let Some(reservation) = self.try_reserve(bytes)
        {
            return Ok(reservation);
        }
        let waiting = async {
            let _first = self.waiting.lock().await;
            // Notifications do not move this deadline: a model may become idle for a moment again and again.
            let mut next_forced_eviction = Instant::now() + IN_USE_GRACE;
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Enabled before the check below, so that no notification in between is lost.
                changed.as_mut().enable();
                if let Some(reservation) = self.try_reserve(bytes) {
                    return reservation;
                }
                self.evict_until_fits(bytes, EvictionScope::Idle);
                if tokio::time::timeout_at(next_forced_eviction, changed).await.is_err() {
                    self.evict_until_fits(bytes, EvictionScope::All);
                    next_forced_eviction += IN_USE_GRACE;
                }
            }
        };
        tokio::time::timeout(self.wait_timeout, waiting).await.map_err(|_| no_memory(name, bytes))
    }

    fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<MemoryReservation> {
        let mut usage = self.usage();
        let reserved = usage.reserved.plus(Footprint::one_model(bytes));
        if !self.limits.allow(reserved) {
            return None;
        }
        usage.reserved = reserved;
        Some(MemoryReservation { budget: Arc::clone(self), bytes, evicting: AtomicBool::new(false) })
    }

    /// Evicts models until there will be room for `bytes`. Their memory is released when their threads have ended.
    fn evict_until_fits(&self, bytes: u64, scope: EvictionScope) {
        let models: Vec<Arc<dyn Evictable>> = self.usage().models.iter().filter_map(Weak::upgrade).collect();
        let since = |model: &Arc<dyn Evictable>| match scope {
            EvictionScope::Idle => model.idle_since(),
            EvictionScope::All => model.loaded_since(),
        };
        let mut candidates: Vec<_> = models.iter().filter_map(|model| Some((since(model)?, model))).collect();
        candidates.sort_by_key(|(since, _)| *since);
        for (_, model) in candidates {
            let usage = self.usage();
            let remaining = usage.reserved.minus(usage.evicting);
            let fits = self.limits.allow(remaining.plus(Footprint::one_model(bytes)));
            drop(usage);
            match scope {
                _ if fits => return,
                EvictionScope::Idle => model.evict_if_idle(),
                EvictionScope::All => model.evict(),
            }
        }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryReservation {
    /// Marks the reservation as released soon.
    pub(super) fn mark_evicting(&self) {
        if !self.evicting.swap(true, SeqCst) {
            let mut usage = self.budget.usage();
            usage.evicting = usage.evicting.plus(Footprint::one_model(self.bytes));
        }
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        release_free_heap();
        let mut usage = self.budget.usage();
        usage.reserved = usage.reserved.minus(Footprint::one_model(self.bytes));
        if self.evicting.load(SeqCst) {
            usage.evicting = usage.evicting.minus(Footprint::one_model(self.bytes));
        }
        drop(usage);
        self.budget.changed.notify_waiters();
    }
}

/// Returns free heap memory to the operating system. The allocator would keep much of it, and the buffers of the next
/// model rarely fit into the gaps.
fn release_free_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a number and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn too_large(name: &str, bytes: u64, limit: u64) -> EmbedError {
    EmbedError::new(
        ErrorKind::ModelUnusable,
        Fault::Us,
        Retry::Never,
        format!(
            "model '{name}' needs {} of memory and the limit for all models is {} (engine.max_memory); raise the limit, or \
             choose a smaller `precision` for it",
            megabytes(bytes),
            megabytes(limit)
        ),
    )
}

fn no_memory(name: &str, bytes: u64) -> EmbedError {
    EmbedError::new(
        ErrorKind::Unavailable,
        Fault::Us,
        Retry::After(Duration::from_secs(5)),
        format!(
            "model '{name}' needs {} of memory, and all loaded models are in use (engine.max_memory, engine.max_models); \
             retry later",
            megabytes(bytes)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that is loaded or not.
    #[derive(Default)]
    struct TestModel(Mutex<State>);

    #[derive(Default)]
    struct State {
        reservation: Option<Arc<MemoryReservation>>,
        since: Option<Instant>,
        users: Vec<Arc<MemoryReservation>>,
    }

    impl TestModel {
        fn new(budget: &Arc<MemoryBudget>) -> Arc<Self> {
            let model = Arc::new(Self::default());
            let weak: Weak<Self> = Arc::downgrade(&model);
            budget.register(weak);
            model
        }

        async fn load(&self, budget: &Arc<MemoryBudget>, bytes: u64) -> Result<(), EmbedError> {
            let reservation = budget.reserve("m", bytes).await?;
            *self.0.lock().unwrap() = State {
                reservation: Some(Arc::new(reservation)),
                since: Some(Instant::now()),
                users: Vec::new(),
            };
            Ok(())
        }

        fn is_loaded(&self) -> bool {
            self.0.lock().unwrap().reservation.is_some()
        }

        fn begin_use(&self) {
            let mut state = self.0.lock().unwrap();
            let reservation = state.reservation.clone().unwrap();
            state.users.push(reservation);
        }

        fn end_use(&self) {
            let users = std::mem::take(&mut self.0.lock().unwrap().users);
            drop(users);
        }

        fn evict_from(state: &mut State) {
            if let Some(reservation) = state.reservation.take() {
                reservation.mark_evicting();
            }
        }
    }

    impl Evictable for TestModel {
        fn idle_since(&self) -> Option<Instant> {
            let state = self.0.lock().unwrap();
            state.since.filter(|_| state.reservation.is_some() && state.users.is_empty())
        }

        fn loaded_since(&self) -> Option<Instant> {
            let state = self.0.lock().unwrap();
            state.since.filter(|_| state.reservation.is_some())
        }

        fn evict_if_idle(&self) {
            let mut state = self.0.lock().unwrap();
            if state.users.is_empty() {
                Self::evict_from(&mut state);
            }
        }

        fn evict(&self) {
            Self::evict_from(&mut self.0.lock().unwrap());
        }
    }

    fn budget(limit: u64) -> Arc<MemoryBudget> {
        MemoryBudget::new(MemoryLimits { bytes: Some(limit), models: None }, Duration::from_secs(30))
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_model_unused_longest_is_evicted() {
        let budget = budget(30);
        let models: Vec<_> = (0..4).map(|_| TestModel::new(&budget)).collect();
        for model in &models[..3] {
            model.load(&budget, 10).await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        models[0].begin_use();
        models[3].load(&budget, 10).await.unwrap();
        let loaded: Vec<bool> = models.iter().map(|model| model.is_loaded()).collect();
        assert_eq!((loaded, budget.reserved_bytes()), (vec![true, false, true, true], 30));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_models_can_be_limited() {
        let budget =
            MemoryBudget::new(MemoryLimits { bytes: None, models: Some(1) }, Duration::from_secs(30));
        let (a, b) = (TestModel::new(&budget), TestModel::new(&budget));
        a.load(&budget, 1 << 40).await.unwrap();
        b.load(&budget, 1).await.unwrap();
        assert_eq!((a.is_loaded(), b.is_loaded(), budget.reserved_bytes()), (false, true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_model_is_evicted_after_its_running_requests() {
        let budget = budget(10);
        let (busy, next) = (TestModel::new(&budget), TestModel::new(&budget));
        busy.load(&budget, 10).await.unwrap();
        busy.begin_use();
        let (waiter_budget, waiter_model) = (Arc::clone(&budget), Arc::clone(&next));
        let waiter = tokio::spawn(async move { waiter_model.load(&waiter_budget, 10).await });
        tokio::time::sleep(IN_USE_GRACE * 3).await;
        assert!(
            !busy.is_loaded() && !next.is_loaded(),
            "being evicted, but its memory is reserved while a request runs"
        );
        assert_eq!(budget.reserved_bytes(), 10);
        busy.end_use();
        waiter.await.unwrap().unwrap();
        assert_eq!(budget.reserved_bytes(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_is_idle_for_moments_only_is_evicted_too() {
        let budget = budget(10);
        let (busy, next) = (TestModel::new(&budget), TestModel::new(&budget));
        busy.load(&budget, 10).await.unwrap();
        busy.begin_use();
        let (waiter_budget, waiter_model) = (Arc::clone(&budget), Arc::clone(&next));
        let waiter = tokio::spawn(async move { waiter_model.load(&waiter_budget, 10).await });
        for _ in 0..30 {
            // A request ended and the next one began before the budget was checked.
            budget.notify_idle();
            tokio::time::sleep(IN_USE_GRACE / 10).await;
        }
        assert!(!busy.is_loaded(), "being evicted");
        busy.end_use();
        waiter.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_unavailable_and_a_model_over_the_budget_is_unusable() {
        let budget = budget(10);
        let (busy, next) = (TestModel::new(&budget), TestModel::new(&budget));
        busy.load(&budget, 10).await.unwrap();
        busy.begin_use();
        let error = next.load(&budget, 10).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::After(Duration::from_secs(5))));
        let error = next.load(&budget, 11).await.unwrap_err();
        assert!(error.kind == ErrorKind::ModelUnusable && error.message.contains("engine.max_memory"));
        busy.end_use();
        next.load(&budget, 10).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn small_reservations_do_not_overtake_a_large_one() {
        let budget = budget(20);
        let (a, b) = (TestModel::new(&budget), TestModel::new(&budget));
        a.load(&budget, 10).await.unwrap();
        b.load(&budget, 10).await.unwrap();
        a.begin_use();
        b.begin_use();
        let (large, small) = (Arc::clone(&budget), Arc::clone(&budget));
        let first = tokio::spawn(async move { large.reserve("large", 20).await });
        tokio::task::yield_now().await;
        let second = tokio::spawn(async move { small.reserve("small", 10).await });
        tokio::time::sleep(IN_USE_GRACE * 2).await;
        a.end_use();
        tokio::time::sleep(IN_USE_GRACE).await;
        assert!(!first.is_finished() && !second.is_finished());
        b.end_use();
        drop(first.await.unwrap().unwrap());
        second.await.unwrap().unwrap();
    }
}
