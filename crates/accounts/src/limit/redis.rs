//! Buckets in Redis: one script, one round trip, one number per bucket. The script uses the clock of Redis, because the
//! clocks of replicas differ. If Redis is unreachable, everything passes and the log says so.

use embeddery_core::to_ms;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use embeddery_database::redis::{
    ConnectionOptions, DurabilityCheck, KeyPrefix, RedisAddress, SharedConnection,
};
use redis::Script;

use super::{Rate, RateLimitError, RateLimitKey, RateLimitKind, RateLimitStatus};

pub(super) struct RedisLimiter {
    connection: SharedConnection,
    script: Script,
    prefix: KeyPrefix,
    started: Instant,
    /// Milliseconds after `started` until which Redis is not used.
    unavailable_until_ms: AtomicU64,
    /// The same for the next warning.
    silent_until_ms: AtomicU64,
}

/// Maximum time that a request waits for its limit.
const TIMEOUT: Duration = Duration::from_millis(250);
/// Maximum time to a response. It is shorter than `TIMEOUT`, so that a broken connection is noticed and dropped.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum time to connect, which happens in the background.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long Redis is not used after a failure, so that not every request waits for it.
const COOLDOWN: Duration = Duration::from_secs(1);
/// Minimum time between two warnings.
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// KEYS: the bucket. ARGV: microseconds per unit, bucket size, amount. All times are microseconds, which a double holds
/// exactly. Returns 1 or 0 (passed), what remains, the wait, and the time until the bucket is full.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local period, burst, amount = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') or 0, now)
local after = full + period * amount
local wait = after - now - period * burst
if wait > 0 then
  local remaining = math.floor((now + period * burst - full) / period)
  return {0, remaining, math.ceil(wait), math.ceil(full - now)}
end
if amount > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
end
return {1, math.floor(-wait / period + 0.000001), 0, math.ceil(after - now)}
";

impl RedisLimiter {
    pub(super) fn new(address: &RedisAddress) -> Result<Self, String> {
        let options = ConnectionOptions {
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            durability: DurabilityCheck::Skip,
        };
        Ok(Self {
            connection: SharedConnection::new(address.topology()?, options),
            script: Script::new(SCRIPT),
            prefix: address.prefix.clone(),
            started: Instant::now(),
            unavailable_until_ms: AtomicU64::new(0),
            silent_until_ms: AtomicU64::new(0),
        })
    }

    pub(super) async fn take(
        &self,
        (kind, rate): (RateLimitKind, Rate),
        key: &RateLimitKey,
        amount: u32,
    ) -> Result<Option<RateLimitStatus>, RateLimitError> {
        if self.now_ms() < self.unavailable_until_ms.load(Relaxed) {
            return Ok(None);
        }
        let name = match kind {
            RateLimitKind::Requests => "requests",
            RateLimitKind::Tokens => "tokens",
            RateLimitKind::Failures => "failures",
        };
        let mut call = self.script.key(self.prefix.key(&["limit", name, &key.0]));
        call.arg(rate.period.as_secs_f64() * 1e6).arg(rate.burst).arg(amount);
        let response = async {
            let response = self.connection.invoke(&call).await.map_err(|error| error.to_string())?;
            response.map_err(|error| self.connection.describe(&error).to_string())
        };
        let (passed, remaining, wait, reset): (u8, u32, u64, u64) =
            match tokio::time::timeout(TIMEOUT, response).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Ok(self.record_outage(&error)),
                Err(_) => {
                    return Ok(self.record_outage(&format!("no response within {} ms", TIMEOUT.as_millis())));
                }
            };
        let status = RateLimitStatus { limit: rate.burst, remaining, reset: Duration::from_micros(reset) };
        if passed == 1 {
            Ok(Some(status))
        } else {
            Err(RateLimitError::Wait { wait: Duration::from_micros(wait), status })
        }
    }

    fn record_outage<T>(&self, reason: &str) -> Option<T> {
        let now = self.now_ms();
        self.unavailable_until_ms.store(now + to_ms(COOLDOWN), Relaxed);
        let silent = self.silent_until_ms.load(Relaxed);
        let next = now + to_ms(WARN_INTERVAL);
        if now >= silent && self.silent_until_ms.compare_exchange(silent, next, Relaxed, Relaxed).is_ok() {
            tracing::warn!(
                error = reason,
                "Redis is unavailable: rate limits let everything pass; check REDIS_URL and Redis"
            );
        }
        None
    }

    fn now_ms(&self) -> u64 {
        to_ms(self.started.elapsed())
    }
}
