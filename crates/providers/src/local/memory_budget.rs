//! The memory that loaded models may have together. Who wants to load a model asks for a [`MemoryReservation`] first. Where there is
//! no room, models that nobody uses make way, the one unused longest first; a model in use is never taken from those
//! who use it. When all are in use and nobody has made way for a while, the model that has been here longest is asked to
//! leave: who uses it may finish, who comes later waits in line like everybody else. So no model, however busy, keeps
//! another out for ever.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use embeddery_core::{EmbedError, ErrorKind, Fault, Retry};
use tokio::{sync::Notify, time::Instant};

/// How long models that are in use are left in peace when another wants their room.
const IN_USE_GRACE: Duration = Duration::from_secs(1);

/// The memory of all local providers of a process.
pub struct MemoryBudget {
    limits: MemoryLimits,
    /// How long a model waits for room.
    patience: Duration,
    book: Mutex<Usage>,
    /// Somebody left, or nobody uses a model any more.
    changed: Notify,
    /// Who waits is served in the order of coming: a large model is not passed over for small ones.
    turn: tokio::sync::Mutex<()>,
}

/// How much all models may have together; `None`: as much as they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Models.
    pub models: Option<u64>,
}

#[derive(Default)]
struct Usage {
    taken: Footprint,
    /// Of this, what models have that are on their way out.
    leaving: Footprint,
    tenants: Vec<Weak<dyn Evictable>>,
}

/// What models have.
#[derive(Clone, Copy, Default)]
struct Footprint {
    bytes: u64,
    models: u64,
}

impl Footprint {
    fn of_one(bytes: u64) -> Self {
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
    fn hold(&self, room: Footprint) -> bool {
        self.bytes.is_none_or(|limit| room.bytes <= limit)
            && self.models.is_none_or(|limit| room.models <= limit)
    }
}

/// A model that may be in memory.
pub(super) trait Evictable: Send + Sync {
    /// Since when nobody has used it; `None` when it is in use, or not here.
    fn idle_since(&self) -> Option<Instant>;
    /// Since when it has been here; `None` when it is not.
    fn loaded_since(&self) -> Option<Instant>;
    /// Makes way if nobody uses it.
    fn evict_if_idle(&self);
    /// Makes way once those who use it have finished; later comers load it anew.
    fn evict(&self);
}

/// Which models are sent away.
#[derive(Clone, Copy)]
enum EvictionScope {
    /// Those that nobody uses, the one unused longest first.
    Idle,
    /// Also those in use, the one that has been here longest first.
    Anybody,
}

/// Bytes that a model has. They are given back when this is dropped, which must be after the model itself.
pub(super) struct MemoryReservation {
    memory: Arc<MemoryBudget>,
    bytes: u64,
    leaving: AtomicBool,
}

impl MemoryBudget {
    /// Memory for models, for which a model waits as long as `patience`.
    pub fn new(limits: MemoryLimits, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            limits,
            patience,
            book: Mutex::default(),
            changed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// How much there is.
    pub fn limits(&self) -> MemoryLimits {
        self.limits
    }

    /// Bytes that models have now, those on their way in and out included.
    pub fn taken(&self) -> u64 {
        self.book().taken.bytes
    }

    /// Adds a model that may be asked to make way.
    pub(super) fn register(&self, tenant: Weak<dyn Evictable>) {
        let mut book = self.book();
        book.tenants.retain(|tenant| tenant.strong_count() > 0);
        book.tenants.push(tenant);
    }

    /// Nobody uses one of the models any more.
    pub(super) fn notify_idle(&self) {
        if self.limits != MemoryLimits::default() {
            self.changed.notify_waiters();
        }
    }

    /// Room for the model `name`, as soon as there is some.
    ///
    /// # Errors
    /// It needs more than all models may have, or there was no room in time.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        name: &str,
        bytes: u64,
    ) -> Result<MemoryReservation, EmbedError> {
        if let Some(limit) = self.limits.bytes.filter(|limit| bytes > *limit) {
            return Err(too_large(name, bytes, limit));
        }
        if self.limits == MemoryLimits::default()
            && let Some(place) = self.try_place(bytes)
        {
            return Ok(place);
        }
        let waiting = async {
            let _turn = self.turn.lock().await;
            // However often models are idle for a moment: this does not move.
            let mut peace = Instant::now() + IN_USE_GRACE;
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Listened to before looking, so that nothing is missed between.
                changed.as_mut().enable();
                if let Some(place) = self.try_place(bytes) {
                    return place;
                }
                self.evict_until_fits(bytes, EvictionScope::Idle);
                if tokio::time::timeout_at(peace, changed).await.is_err() {
                    self.evict_until_fits(bytes, EvictionScope::Anybody);
                    peace += IN_USE_GRACE;
                }
            }
        };
        tokio::time::timeout(self.patience, waiting).await.map_err(|_| no_room(name, bytes))
    }

    fn try_place(self: &Arc<Self>, bytes: u64) -> Option<MemoryReservation> {
        let mut book = self.book();
        let taken = book.taken.plus(Footprint::of_one(bytes));
        if !self.limits.hold(taken) {
            return None;
        }
        book.taken = taken;
        Some(MemoryReservation { memory: Arc::clone(self), bytes, leaving: AtomicBool::new(false) })
    }

    /// Sends models away, those first that are due first, until there will be room for `bytes`. What they have comes
    /// back a moment later, when their threads have ended.
    fn evict_until_fits(&self, bytes: u64, whom: EvictionScope) {
        let tenants: Vec<Arc<dyn Evictable>> = self.book().tenants.iter().filter_map(Weak::upgrade).collect();
        let since = |tenant: &Arc<dyn Evictable>| match whom {
            EvictionScope::Idle => tenant.idle_since(),
            EvictionScope::Anybody => tenant.loaded_since(),
        };
        let mut candidates: Vec<_> =
            tenants.iter().filter_map(|tenant| Some((since(tenant)?, tenant))).collect();
        candidates.sort_by_key(|(since, _)| *since);
        for (_, tenant) in candidates {
            let book = self.book();
            let enough = self.limits.hold(book.taken.minus(book.leaving).plus(Footprint::of_one(bytes)));
            drop(book);
            match whom {
                _ if enough => return,
                EvictionScope::Idle => tenant.evict_if_idle(),
                EvictionScope::Anybody => tenant.evict(),
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Usage> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryReservation {
    /// The model is on its way out.
    pub(super) fn leaves(&self) {
        if !self.leaving.swap(true, SeqCst) {
            let mut book = self.memory.book();
            book.leaving = book.leaving.plus(Footprint::of_one(self.bytes));
        }
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        give_back_to_the_system();
        let mut book = self.memory.book();
        book.taken = book.taken.minus(Footprint::of_one(self.bytes));
        if self.leaving.load(SeqCst) {
            book.leaving = book.leaving.minus(Footprint::of_one(self.bytes));
        }
        drop(book);
        self.memory.changed.notify_waiters();
    }
}

/// What was freed goes back to the system now: the allocator would keep much of it for this process, and another model's
/// pieces rarely fit where the last one's were.
fn give_back_to_the_system() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes a number and may be called at any time from any thread.
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
            "model '{name}' needs {} of memory and all models together may have {} (engine.max_memory); allow more, or \
             choose a smaller `precision` for it",
            megabytes(bytes),
            megabytes(limit)
        ),
    )
}

fn no_room(name: &str, bytes: u64) -> EmbedError {
    EmbedError::new(
        ErrorKind::Unavailable,
        Fault::Us,
        Retry::After(Duration::from_secs(5)),
        format!(
            "model '{name}' needs {} of memory, and the models that have what there is (engine.max_memory, \
             engine.max_models) are all in use; ask again later",
            megabytes(bytes)
        ),
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", (bytes as f64 / 1e6).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that is in memory or not.
    #[derive(Default)]
    struct Guest(Mutex<State>);

    #[derive(Default)]
    struct State {
        place: Option<Arc<MemoryReservation>>,
        since: Option<Instant>,
        users: Vec<Arc<MemoryReservation>>,
    }

    impl Guest {
        fn new(memory: &Arc<MemoryBudget>) -> Arc<Self> {
            let guest = Arc::new(Self::default());
            let weak: Weak<Self> = Arc::downgrade(&guest);
            memory.register(weak);
            guest
        }

        async fn load(&self, memory: &Arc<MemoryBudget>, bytes: u64) -> Result<(), EmbedError> {
            let place = memory.reserve("m", bytes).await?;
            *self.0.lock().unwrap() =
                State { place: Some(Arc::new(place)), since: Some(Instant::now()), users: Vec::new() };
            Ok(())
        }

        fn is_here(&self) -> bool {
            self.0.lock().unwrap().place.is_some()
        }

        fn begin_use(&self) {
            let mut state = self.0.lock().unwrap();
            let place = state.place.clone().unwrap();
            state.users.push(place);
        }

        fn end_use(&self) {
            let users = std::mem::take(&mut self.0.lock().unwrap().users);
            drop(users);
        }

        fn go(state: &mut State) {
            if let Some(place) = state.place.take() {
                place.leaves();
            }
        }
    }

    impl Evictable for Guest {
        fn idle_since(&self) -> Option<Instant> {
            let state = self.0.lock().unwrap();
            state.since.filter(|_| state.place.is_some() && state.users.is_empty())
        }

        fn loaded_since(&self) -> Option<Instant> {
            let state = self.0.lock().unwrap();
            state.since.filter(|_| state.place.is_some())
        }

        fn evict_if_idle(&self) {
            let mut state = self.0.lock().unwrap();
            if state.users.is_empty() {
                Self::go(&mut state);
            }
        }

        fn evict(&self) {
            Self::go(&mut self.0.lock().unwrap());
        }
    }

    fn memory(limit: u64) -> Arc<MemoryBudget> {
        MemoryBudget::new(MemoryLimits { bytes: Some(limit), models: None }, Duration::from_secs(30))
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_unused_longest_makes_way_and_no_more_than_needed() {
        let memory = memory(30);
        let guests: Vec<_> = (0..4).map(|_| Guest::new(&memory)).collect();
        for guest in &guests[..3] {
            guest.load(&memory, 10).await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        guests[0].begin_use();
        guests[3].load(&memory, 10).await.unwrap();
        let here: Vec<bool> = guests.iter().map(|guest| guest.is_here()).collect();
        assert_eq!((here, memory.taken()), (vec![true, false, true, true], 30));
    }

    #[tokio::test(start_paused = true)]
    async fn models_can_be_counted_instead_of_weighed() {
        let memory =
            MemoryBudget::new(MemoryLimits { bytes: None, models: Some(1) }, Duration::from_secs(30));
        let (a, b) = (Guest::new(&memory), Guest::new(&memory));
        a.load(&memory, 1 << 40).await.unwrap();
        b.load(&memory, 1).await.unwrap();
        assert_eq!((a.is_here(), b.is_here(), memory.taken()), (false, true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_model_leaves_after_a_while_but_only_when_its_users_have_finished() {
        let memory = memory(10);
        let (busy, next) = (Guest::new(&memory), Guest::new(&memory));
        busy.load(&memory, 10).await.unwrap();
        busy.begin_use();
        let (waiting, wanted) = (Arc::clone(&memory), Arc::clone(&next));
        let waiter = tokio::spawn(async move { wanted.load(&waiting, 10).await });
        tokio::time::sleep(IN_USE_GRACE * 3).await;
        assert!(!busy.is_here() && !next.is_here(), "asked to leave; not gone while somebody uses it");
        assert_eq!(memory.taken(), 10);
        busy.end_use();
        waiter.await.unwrap().unwrap();
        assert_eq!(memory.taken(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_is_idle_for_moments_only_keeps_nobody_out() {
        let memory = memory(10);
        let (busy, next) = (Guest::new(&memory), Guest::new(&memory));
        busy.load(&memory, 10).await.unwrap();
        busy.begin_use();
        let (waiting, wanted) = (Arc::clone(&memory), Arc::clone(&next));
        let waiter = tokio::spawn(async move { wanted.load(&waiting, 10).await });
        for _ in 0..30 {
            // A request ended and the next one began before anybody could look.
            memory.notify_idle();
            tokio::time::sleep(IN_USE_GRACE / 10).await;
        }
        assert!(!busy.is_here(), "asked to leave");
        busy.end_use();
        waiter.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn no_room_in_time_is_a_503_with_a_time_and_too_large_is_told_at_once() {
        let memory = memory(10);
        let (busy, next) = (Guest::new(&memory), Guest::new(&memory));
        busy.load(&memory, 10).await.unwrap();
        busy.begin_use();
        let error = next.load(&memory, 10).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::After(Duration::from_secs(5))));
        let error = next.load(&memory, 11).await.unwrap_err();
        assert!(error.kind == ErrorKind::ModelUnusable && error.message.contains("engine.max_memory"));
        busy.end_use();
        next.load(&memory, 10).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_much_is_not_passed_over() {
        let memory = memory(20);
        let (a, b) = (Guest::new(&memory), Guest::new(&memory));
        a.load(&memory, 10).await.unwrap();
        b.load(&memory, 10).await.unwrap();
        a.begin_use();
        b.begin_use();
        let (large, small) = (Arc::clone(&memory), Arc::clone(&memory));
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
