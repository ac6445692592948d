//! Buckets in the memory of this process, by the crate `governor`.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock as _, QuantaClock, QuantaInstant, Reference as _},
    middleware::{StateInformationMiddleware, StateSnapshot},
    nanos::Nanos,
    state::{
        StateStore,
        keyed::{DashMapStateStore, ShrinkableKeyedStateStore},
    },
};

use super::{Rate, RateLimitError, RateLimitKey, RateLimitKind, RateLimitStatus, Rates};

pub(super) struct MemoryLimiter {
    clock: QuantaClock,
    requests: Option<Buckets>,
    tokens: Option<Buckets>,
    failures: Option<Buckets>,
    taken: AtomicU32,
}

/// Requests between two sweeps. A sweep removes full buckets, which are the same as none; without it, requests from many
/// addresses could fill the memory.
const SWEEP_INTERVAL: u32 = 10_000;

impl MemoryLimiter {
    pub(super) fn new(rates: &Rates) -> Self {
        let clock = QuantaClock::default();
        let buckets = |rate: Option<Rate>| Buckets::new(rate?, &clock);
        Self {
            requests: buckets(rates.requests),
            tokens: buckets(rates.tokens),
            failures: buckets(rates.failures),
            taken: AtomicU32::new(0),
            clock,
        }
    }

    fn buckets(&self, kind: RateLimitKind) -> Option<&Buckets> {
        match kind {
            RateLimitKind::Requests => &self.requests,
            RateLimitKind::Tokens => &self.tokens,
            RateLimitKind::Failures => &self.failures,
        }
        .as_ref()
    }

    pub(super) fn take(
        &self,
        kind: RateLimitKind,
        key: &RateLimitKey,
        amount: u32,
    ) -> Result<Option<RateLimitStatus>, RateLimitError> {
        let (Some(buckets), Some(count)) = (self.buckets(kind), NonZeroU32::new(amount)) else {
            return Ok(None);
        };
        let rate = &buckets.rate;
        if self.taken.fetch_add(1, Relaxed) % SWEEP_INTERVAL == SWEEP_INTERVAL - 1 {
            buckets.limiter.retain_recent();
        }
        match buckets.limiter.check_key_n(key, count) {
            Ok(Ok(snapshot)) => Ok(Some(passed(rate, &snapshot))),
            Ok(Err(not_until)) => Err(self.refused(rate, &not_until, amount)),
            Err(_) => Err(RateLimitError::TooMuch { limit: rate.burst }),
        }
    }

    fn refused(&self, rate: &Rate, not_until: &NotUntil<QuantaInstant>, amount: u32) -> RateLimitError {
        let wait = not_until.wait_time_from(self.clock.now());
        let reset = wait + rate.duration_for(rate.burst - amount);
        RateLimitError::Wait { wait, status: status(rate, reset) }
    }

    /// The state of a bucket, of which nothing is taken.
    pub(super) fn peek(&self, kind: RateLimitKind, key: &RateLimitKey) -> Option<RateLimitStatus> {
        let buckets = self.buckets(kind)?;
        let since: Duration = self.clock.now().duration_since(buckets.start).into();
        // The store passes the time at which the bucket is full. An error leaves it unchanged.
        let full = buckets.store.measure_and_replace(key, Err::<((), Nanos), _>).err()??;
        Some(status(&buckets.rate, Duration::from(full).saturating_sub(since)))
    }
}

type Limiter = RateLimiter<RateLimitKey, Store, QuantaClock, StateInformationMiddleware>;

/// One bucket per key.
struct Buckets {
    rate: Rate,
    store: Store,
    start: QuantaInstant,
    limiter: Limiter,
}

impl Buckets {
    fn new(rate: Rate, clock: &QuantaClock) -> Option<Self> {
        let quota = Quota::with_period(rate.period)?.allow_burst(NonZeroU32::new(rate.burst)?);
        let store = Store(Arc::default());
        let start = clock.now();
        let limiter = Limiter::new(quota, store.clone(), clock.clone());
        Some(Self { rate, store, start, limiter })
    }
}

/// The state of the buckets, shared by the limiter, which takes, and [`MemoryLimiter::peek`].
#[derive(Clone)]
struct Store(Arc<DashMapStateStore<RateLimitKey>>);

impl StateStore for Store {
    type Key = RateLimitKey;

    fn measure_and_replace<T, F, E>(&self, key: &RateLimitKey, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl ShrinkableKeyedStateStore<RateLimitKey> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The status after an amount has passed.
fn passed(rate: &Rate, snapshot: &StateSnapshot) -> RateLimitStatus {
    let remaining = snapshot.remaining_burst_capacity();
    RateLimitStatus {
        limit: rate.burst,
        remaining,
        reset: rate.duration_for(rate.burst.saturating_sub(remaining)),
    }
}

/// The status of a bucket that is full after `reset`.
fn status(rate: &Rate, reset: Duration) -> RateLimitStatus {
    let missing = (reset.as_secs_f64() / rate.period.as_secs_f64()).ceil() as u32;
    RateLimitStatus { limit: rate.burst, remaining: rate.burst.saturating_sub(missing), reset }
}
