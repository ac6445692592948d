//! Rate limits: requests per second with a burst, and tokens per minute. The algorithm is GCRA, a leaky bucket that is
//! one number per key. It is exact: there are no windows at whose edges twice the rate passes. Buckets are in the memory
//! of this process, or in Redis, so that all replicas share them.

mod memory;
mod redis;

use std::{net::IpAddr, sync::Arc, time::Duration};

use embeddery_database::redis::RedisAddress;

use self::{memory::MemoryLimiter, redis::RedisLimiter};
use crate::UserId;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitKind {
    /// Requests.
    Requests,
    /// Tokens, as estimated before the model has read the text.
    Tokens,
    /// Refused keys and tokens, by address.
    Failures,
}

/// A burst, and a rate in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The bucket's size: how much may pass at once after a pause. Never zero.
    pub burst: u32,
    /// The time until one more may pass. Never zero.
    pub period: Duration,
}

impl Rate {
    /// A rate per second with a burst. `None` if either is zero, negative or too large.
    pub fn per_second(rate: f64, burst: u32) -> Option<Self> {
        let period = Duration::try_from_secs_f64(1.0 / rate).ok()?;
        (burst > 0 && period >= Duration::from_nanos(1)).then_some(Self { burst, period })
    }

    /// A rate per minute; the burst is the amount of one minute.
    pub fn per_minute(amount: u32) -> Option<Self> {
        Self::per_second(f64::from(amount) / 60.0, amount)
    }

    /// The rate per second in the long run, rounded to three decimal places.
    pub fn per_second_value(&self) -> f64 {
        (1e3 / self.period.as_secs_f64()).round() / 1e3
    }

    /// The status of a full bucket.
    fn full(&self) -> RateLimitStatus {
        RateLimitStatus { limit: self.burst, remaining: self.burst, reset: Duration::ZERO }
    }

    /// The time in which `amount` may pass in the long run.
    fn duration_for(&self, amount: u32) -> Duration {
        self.period.saturating_mul(amount)
    }
}

/// The rates in force. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Embedding, batch and search requests per key.
    pub requests: Option<Rate>,
    /// Tokens per key.
    pub tokens: Option<Rate>,
    /// Refused keys and tokens from one address.
    pub failures: Option<Rate>,
}

impl Rates {
    fn get(&self, kind: RateLimitKind) -> Option<Rate> {
        match kind {
            RateLimitKind::Requests => self.requests,
            RateLimitKind::Tokens => self.tokens,
            RateLimitKind::Failures => self.failures,
        }
    }
}

/// The owner of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimitKey(Arc<str>);

impl RateLimitKey {
    /// A user, with any of their keys.
    pub fn user(user: &UserId) -> Self {
        Self(format!("user:{user}").into())
    }

    /// An address without a valid key. A /64 of IPv6 addresses counts as one, because one subscriber has all of it.
    pub fn address(address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self(format!("address:{address}").into())
    }
}

/// The state of a bucket; the headers `X-RateLimit-*` report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// The bucket's size.
    pub limit: u32,
    /// How much may pass now.
    pub remaining: u32,
    /// The time until the bucket is full.
    pub reset: Duration,
}

/// Why an amount may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitError {
    /// It may pass later.
    Wait {
        /// The exact time until then.
        wait: Duration,
        /// The state of the bucket.
        status: RateLimitStatus,
    },
    /// It never may pass: it is larger than the bucket.
    TooMuch {
        /// The bucket's size.
        limit: u32,
    },
}

/// Limits rates.
pub struct Limiter {
    rates: Rates,
    backend: Backend,
}

enum Backend {
    Memory(Box<MemoryLimiter>),
    Redis(Box<RedisLimiter>),
}

impl Limiter {
    /// A limiter with its buckets in this process.
    pub fn in_memory(rates: Rates) -> Self {
        Self { rates, backend: Backend::Memory(Box::new(MemoryLimiter::new(&rates))) }
    }

    /// A limiter with its buckets in Redis. It connects at the first use, so the process starts without Redis.
    ///
    /// # Errors
    /// If the address is invalid.
    pub fn in_redis(rates: Rates, redis: &RedisAddress) -> Result<Self, String> {
        Ok(Self { rates, backend: Backend::Redis(Box::new(RedisLimiter::new(redis)?)) })
    }

    /// The rates in force.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Takes `amount` out of a bucket. `None` if there is no limit, or Redis is unreachable and everything passes.
    ///
    /// # Errors
    /// If the bucket does not hold that much.
    pub async fn take(
        &self,
        kind: RateLimitKind,
        key: &RateLimitKey,
        amount: u32,
    ) -> Result<Option<RateLimitStatus>, RateLimitError> {
        let Some(rate) = self.rates.get(kind).filter(|_| amount > 0) else { return Ok(None) };
        if amount > rate.burst {
            return Err(RateLimitError::TooMuch { limit: rate.burst });
        }
        match &self.backend {
            Backend::Memory(memory) => memory.take(kind, key, amount),
            Backend::Redis(redis) => redis.take((kind, rate), key, amount).await,
        }
    }

    /// The state of a bucket, of which nothing is taken. `None` if there is no limit, or Redis is unreachable.
    pub async fn peek(&self, kind: RateLimitKind, key: &RateLimitKey) -> Option<RateLimitStatus> {
        let rate = self.rates.get(kind)?;
        match &self.backend {
            // A key that was never seen has a full bucket.
            Backend::Memory(memory) => Some(memory.peek(kind, key).unwrap_or(rate.full())),
            Backend::Redis(redis) => redis.take((kind, rate), key, 0).await.ok().flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_outside_their_range_are_none() {
        assert_eq!(Rate::per_second(5.0, 10).unwrap().period, Duration::from_millis(200));
        assert_eq!(Rate::per_second(5.0, 10).unwrap().per_second_value(), 5.0);
        assert_eq!(Rate::per_minute(120).unwrap().period, Duration::from_millis(500));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Rate::per_second(rate, 1), None, "{rate}");
        }
        assert_eq!(Rate::per_second(1.0, 0), None);
    }

    #[test]
    fn an_ipv6_block_of_one_subscriber_is_one_key() {
        let key = |text: &str| RateLimitKey::address(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), RateLimitKey::user(&UserId::new("10.0.0.1")));
    }

    #[tokio::test]
    async fn after_a_burst_the_wait_is_reported_and_other_keys_are_unaffected() {
        let rate = Rate::per_second(0.01, 3);
        let limiter = Limiter::in_memory(Rates { requests: rate, tokens: rate, ..Rates::default() });
        let (ann, bob) = (RateLimitKey::user(&UserId::new("ann")), RateLimitKey::user(&UserId::new("bob")));
        for remaining in [2, 1, 0] {
            let status = limiter.take(RateLimitKind::Requests, &ann, 1).await.unwrap().unwrap();
            assert_eq!((status.limit, status.remaining), (3, remaining));
            assert_eq!(limiter.peek(RateLimitKind::Requests, &ann).await.unwrap().remaining, remaining);
        }
        let Err(RateLimitError::Wait { wait, status }) = limiter.take(RateLimitKind::Requests, &ann, 1).await
        else {
            panic!("passed")
        };
        assert_eq!((wait.as_secs_f64().ceil(), status.reset.as_secs_f64().ceil()), (100.0, 300.0));
        assert!(limiter.take(RateLimitKind::Requests, &bob, 1).await.is_ok());
        assert!(limiter.take(RateLimitKind::Tokens, &ann, 3).await.is_ok(), "another bucket");
        assert_eq!(
            limiter.take(RateLimitKind::Tokens, &bob, 4).await,
            Err(RateLimitError::TooMuch { limit: 3 })
        );
        assert_eq!(limiter.take(RateLimitKind::Failures, &ann, 1).await, Ok(None), "not limited");
    }
}
