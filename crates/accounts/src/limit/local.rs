//! Rates inside this process, by the crate `governor`.

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

use super::{Limited, Measure, Payer, Rate, Rates, Standing};

pub(super) struct Local {
    clock: QuantaClock,
    requests: Option<Buckets>,
    tokens: Option<Buckets>,
    failures: Option<Buckets>,
    taken: AtomicU32,
}

/// After so many requests, buckets that are full again are forgotten: they say nothing, and strangers could
/// fill the memory with them.
const SWEEP_EVERY: u32 = 10_000;

impl Local {
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

    fn buckets(&self, measure: Measure) -> Option<&Buckets> {
        match measure {
            Measure::Requests => &self.requests,
            Measure::Tokens => &self.tokens,
            Measure::Failures => &self.failures,
        }
        .as_ref()
    }

    pub(super) fn take(
        &self,
        measure: Measure,
        payer: &Payer,
        amount: u32,
    ) -> Result<Option<Standing>, Limited> {
        let (Some(buckets), Some(count)) = (self.buckets(measure), NonZeroU32::new(amount)) else {
            return Ok(None);
        };
        let rate = &buckets.rate;
        if self.taken.fetch_add(1, Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            buckets.limiter.retain_recent();
        }
        match buckets.limiter.check_key_n(payer, count) {
            Ok(Ok(snapshot)) => Ok(Some(passed(rate, &snapshot))),
            Ok(Err(not_until)) => Err(self.refused(rate, &not_until, amount)),
            Err(_) => Err(Limited::TooMuch { limit: rate.burst }),
        }
    }

    fn refused(&self, rate: &Rate, not_until: &NotUntil<QuantaInstant>, amount: u32) -> Limited {
        let wait = not_until.wait_time_from(self.clock.now());
        let reset = wait + rate.time(rate.burst - amount);
        Limited::Wait { wait, standing: standing(rate, reset) }
    }

    /// Where a payer stands, without taking anything.
    pub(super) fn look(&self, measure: Measure, payer: &Payer) -> Option<Standing> {
        let buckets = self.buckets(measure)?;
        let since: Duration = self.clock.now().duration_since(buckets.start).into();
        // The store hands out the moment at which the bucket is full; an error leaves it as it is.
        let full = buckets.store.measure_and_replace(payer, Err::<((), Nanos), _>).err()??;
        Some(standing(&buckets.rate, Duration::from(full).saturating_sub(since)))
    }
}

type Limiter = RateLimiter<Payer, Store, QuantaClock, StateInformationMiddleware>;

/// One bucket a payer.
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

/// The buckets' state, shared between the limiter, which takes, and us, who also look.
#[derive(Clone)]
struct Store(Arc<DashMapStateStore<Payer>>);

impl StateStore for Store {
    type Key = Payer;

    fn measure_and_replace<T, F, E>(&self, key: &Payer, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl ShrinkableKeyedStateStore<Payer> for Store {
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

fn passed(rate: &Rate, snapshot: &StateSnapshot) -> Standing {
    let remaining = snapshot.remaining_burst_capacity();
    Standing { limit: rate.burst, remaining, reset: rate.time(rate.burst.saturating_sub(remaining)) }
}

/// From how long it takes until the bucket is full.
fn standing(rate: &Rate, reset: Duration) -> Standing {
    let missing = (reset.as_secs_f64() / rate.period.as_secs_f64()).ceil() as u32;
    Standing { limit: rate.burst, remaining: rate.burst.saturating_sub(missing), reset }
}
