//! Rates: requests per second with a burst, tokens per minute. GCRA (a leaky bucket as one number a caller):
//! exact, without windows at whose edges twice the rate passes. In this process, or in Redis so that one budget
//! holds across replicas.

mod local;
mod shared;

use std::{net::IpAddr, sync::Arc, time::Duration};

use secrecy::SecretString;

use crate::UserId;
use local::Local;
use shared::Shared;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Tokens, as estimated before the model has read the text.
    Tokens,
    /// Keys and tokens that were not good, by address.
    Failures,
}

/// So much at once, and so much a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The bucket's size: what may come at once after a pause. Never zero.
    pub burst: u32,
    /// How long it takes until one more may come. Never zero.
    pub period: Duration,
}

impl Rate {
    /// So much a second, so much at once. `None` when either is not above zero, or too much to count.
    pub fn per_second(rate: f64, burst: u32) -> Option<Self> {
        let period = Duration::try_from_secs_f64(1.0 / rate).ok()?;
        (burst > 0 && period >= Duration::from_nanos(1)).then_some(Self { burst, period })
    }

    /// So much a minute, all of it at once if need be.
    pub fn per_minute(amount: u32) -> Option<Self> {
        Self::per_second(f64::from(amount) / 60.0, amount)
    }

    /// How much may come a second in the long run, to three places.
    pub fn a_second(&self) -> f64 {
        (1e3 / self.period.as_secs_f64()).round() / 1e3
    }

    fn full(&self) -> Standing {
        Standing { limit: self.burst, remaining: self.burst, reset: Duration::ZERO }
    }

    /// How long `amount` takes.
    fn time(&self, amount: u32) -> Duration {
        self.period.saturating_mul(amount)
    }
}

/// Which rates hold. `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Embedding, batch and search requests of one caller.
    pub requests: Option<Rate>,
    /// Tokens of one caller.
    pub tokens: Option<Rate>,
    /// Refused keys and tokens from one address.
    pub failures: Option<Rate>,
}

impl Rates {
    fn of(&self, measure: Measure) -> Option<Rate> {
        match measure {
            Measure::Requests => self.requests,
            Measure::Tokens => self.tokens,
            Measure::Failures => self.failures,
        }
    }
}

/// Whose budget is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Payer(Arc<str>);

impl Payer {
    /// A user, whichever of their keys was sent.
    pub fn user(user: &UserId) -> Self {
        Self(format!("user:{user}").into())
    }

    /// A stranger. A person has a whole /64 of IPv6 addresses, so that is what counts as one.
    pub fn address(address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self(format!("address:{address}").into())
    }
}

/// Where a caller stands after a request; `X-RateLimit-*` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The bucket's size.
    pub limit: u32,
    /// What may still come at once.
    pub remaining: u32,
    /// How long until the bucket is full again.
    pub reset: Duration,
}

/// Why something may not pass now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// It may after this long.
    Wait {
        /// Exactly how long.
        wait: Duration,
        /// Where the caller stands.
        standing: Standing,
    },
    /// It never may: it is more than the whole bucket.
    TooMuch {
        /// The bucket's size.
        limit: u32,
    },
}

/// Holds rates.
pub struct Limiter {
    rates: Rates,
    store: Store,
}

enum Store {
    Local(Box<Local>),
    Shared(Box<Shared>),
}

impl Limiter {
    /// In this process.
    pub fn local(rates: Rates) -> Self {
        Self { rates, store: Store::Local(Box::new(Local::new(&rates))) }
    }

    /// In Redis, below `prefix`. Connects when first used, so that a Redis that is away stops no start.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn shared(rates: Rates, url: &SecretString, prefix: &str) -> Result<Self, String> {
        Ok(Self { rates, store: Store::Shared(Box::new(Shared::new(url, prefix)?)) })
    }

    /// Which rates hold.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Takes `amount` out of the payer's bucket. `None`: not limited, or Redis is away and everything passes.
    ///
    /// # Errors
    /// When the bucket does not hold as much.
    pub async fn take(
        &self,
        measure: Measure,
        payer: &Payer,
        amount: u32,
    ) -> Result<Option<Standing>, Limited> {
        let Some(rate) = self.rates.of(measure).filter(|_| amount > 0) else { return Ok(None) };
        if amount > rate.burst {
            return Err(Limited::TooMuch { limit: rate.burst });
        }
        match &self.store {
            Store::Local(local) => local.take(measure, payer, amount),
            Store::Shared(shared) => shared.take((measure, rate), payer, amount).await,
        }
    }

    /// Where a payer stands, without taking anything. `None`: not limited, or Redis is away.
    pub async fn look(&self, measure: Measure, payer: &Payer) -> Option<Standing> {
        let rate = self.rates.of(measure)?;
        match &self.store {
            // Nobody seen yet has a full bucket.
            Store::Local(local) => Some(local.look(measure, payer).unwrap_or(rate.full())),
            Store::Shared(shared) => shared.take((measure, rate), payer, 0).await.ok().flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_numbers_and_nonsense_is_none() {
        assert_eq!(Rate::per_second(5.0, 10).unwrap().period, Duration::from_millis(200));
        assert_eq!(Rate::per_second(5.0, 10).unwrap().a_second(), 5.0);
        assert_eq!(Rate::per_minute(120).unwrap().period, Duration::from_millis(500));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Rate::per_second(rate, 1), None, "{rate}");
        }
        assert_eq!(Rate::per_second(1.0, 0), None);
    }

    #[test]
    fn an_address_block_of_one_person_is_one_payer() {
        let payer = |text: &str| Payer::address(text.parse().unwrap());
        assert_eq!(payer("2001:db8::1"), payer("2001:db8::ffff:1"));
        assert_ne!(payer("2001:db8::1"), payer("2001:db8:0:1::1"));
        assert_eq!(payer("::ffff:10.0.0.1"), payer("10.0.0.1"));
        assert_ne!(payer("10.0.0.1"), Payer::user(&UserId::new("10.0.0.1")));
    }

    #[tokio::test]
    async fn a_burst_passes_then_the_wait_is_told_and_others_are_not_touched() {
        let rate = Rate::per_second(0.01, 3);
        let limiter = Limiter::local(Rates { requests: rate, tokens: rate, ..Rates::default() });
        let (ann, bob) = (Payer::user(&UserId::new("ann")), Payer::user(&UserId::new("bob")));
        for remaining in [2, 1, 0] {
            let standing = limiter.take(Measure::Requests, &ann, 1).await.unwrap().unwrap();
            assert_eq!((standing.limit, standing.remaining), (3, remaining));
            assert_eq!(limiter.look(Measure::Requests, &ann).await.unwrap().remaining, remaining);
        }
        let Err(Limited::Wait { wait, standing }) = limiter.take(Measure::Requests, &ann, 1).await else {
            panic!("passed")
        };
        assert_eq!((wait.as_secs_f64().ceil(), standing.reset.as_secs_f64().ceil()), (100.0, 300.0));
        assert!(limiter.take(Measure::Requests, &bob, 1).await.is_ok());
        assert!(limiter.take(Measure::Tokens, &ann, 3).await.is_ok(), "another bucket");
        assert_eq!(limiter.take(Measure::Tokens, &bob, 4).await, Err(Limited::TooMuch { limit: 3 }));
        assert_eq!(limiter.take(Measure::Failures, &ann, 1).await, Ok(None), "not limited");
    }
}
