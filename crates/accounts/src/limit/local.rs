//! Rates inside this process, by the crate `governor`.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock as _, QuantaClock, QuantaInstant},
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::keyed::DashMapStateStore,
};

use super::{Limited, Measure, Payer, Rate, Rates, Standing};

type Buckets = RateLimiter<Payer, DashMapStateStore<Payer>, QuantaClock, StateInformationMiddleware>;

pub(super) struct Local {
    clock: QuantaClock,
    requests: Option<(Rate, Buckets)>,
    tokens: Option<(Rate, Buckets)>,
    failures: Option<(Rate, Buckets)>,
    taken: AtomicU32,
}

/// After so many requests, buckets that are full again are forgotten: they say nothing, and strangers could
/// fill the memory with them.
const SWEEP_EVERY: u32 = 10_000;

impl Local {
    pub(super) fn new(rates: &Rates) -> Self {
        let clock = QuantaClock::default();
        let buckets = |rate: Option<Rate>| {
            let rate = rate?;
            let quota = Quota::with_period(rate.period)?.allow_burst(NonZeroU32::new(rate.burst)?);
            let limiter = RateLimiter::dashmap_with_clock(quota, clock.clone());
            Some((rate, limiter.with_middleware::<StateInformationMiddleware>()))
        };
        Self {
            requests: buckets(rates.requests),
            tokens: buckets(rates.tokens),
            failures: buckets(rates.failures),
            taken: AtomicU32::new(0),
            clock,
        }
    }

    pub(super) fn take(
        &self,
        measure: Measure,
        payer: &Payer,
        amount: u32,
    ) -> Result<Option<Standing>, Limited> {
        let chosen = match measure {
            Measure::Requests => &self.requests,
            Measure::Tokens => &self.tokens,
            Measure::Failures => &self.failures,
        };
        let (Some((rate, buckets)), Some(count)) = (chosen, NonZeroU32::new(amount)) else { return Ok(None) };
        if self.taken.fetch_add(1, Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            buckets.retain_recent();
        }
        match buckets.check_key_n(payer, count) {
            Ok(Ok(snapshot)) => Ok(Some(passed(rate, &snapshot))),
            Ok(Err(not_until)) => Err(self.refused(rate, &not_until, amount)),
            Err(_) => Err(Limited::TooMuch { limit: rate.burst }),
        }
    }

    fn refused(&self, rate: &Rate, not_until: &NotUntil<QuantaInstant>, amount: u32) -> Limited {
        let wait = not_until.wait_time_from(self.clock.now());
        // The bucket lacks what `wait` brings, less than `amount`; the rest of it is there.
        let missing = (wait.as_secs_f64() / rate.period.as_secs_f64()).ceil() as u32;
        let standing = Standing {
            limit: rate.burst,
            remaining: amount.saturating_sub(missing),
            reset: wait + rate.time(rate.burst - amount),
        };
        Limited::Wait { wait, standing }
    }
}

fn passed(rate: &Rate, snapshot: &StateSnapshot) -> Standing {
    let remaining = snapshot.remaining_burst_capacity();
    Standing { limit: rate.burst, remaining, reset: rate.time(rate.burst.saturating_sub(remaining)) }
}
