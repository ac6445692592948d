//! Rates in Redis: one script, one round trip, one number a bucket. Redis' own clock is asked, because the
//! replicas' clocks differ. When Redis is away everything passes: a limit is not worth an outage. The log says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use redis::{
    Client, IntoConnectionInfo as _, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Limited, Measure, Payer, Rate, Standing};

pub(super) struct Shared {
    connection: ConnectionManager,
    script: Script,
    prefix: Arc<str>,
    started: Instant,
    /// Milliseconds after `started` until which Redis is not asked.
    away_until: AtomicU64,
    /// The same for the next warning.
    quiet_until: AtomicU64,
}

/// An answer that takes longer is none: a request must not wait for a limit.
const PATIENCE: Duration = Duration::from_millis(250);
/// So long an absent Redis is left alone, so that not every request waits for it.
const PAUSE: Duration = Duration::from_secs(1);
/// One warning in so long.
const QUIET: Duration = Duration::from_secs(30);

/// KEYS: the bucket. ARGV: microseconds a unit takes, bucket size, amount. All times in microseconds; they fit
/// a double exactly. Answers passed (1 or 0), what remains, the wait, the time until the bucket is full.
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

impl Shared {
    pub(super) fn new(url: &SecretString, prefix: &str) -> Result<Self, String> {
        // The error of a URL that cannot be read is not shown: it may repeat the password.
        let target = url.expose_secret().into_connection_info().map_err(|_| {
            "is not a Redis URL; write redis://HOST:PORT/DB or rediss://USER:PASSWORD@HOST:PORT".to_owned()
        })?;
        // A script of a hundred bytes must not wait for a packet to fill.
        let target = target.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(target).map_err(|error| format!("cannot be used: {error}"))?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(usize::MAX)
            .set_max_delay(Duration::from_secs(1))
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(PATIENCE));
        let connection = ConnectionManager::new_lazy_with_config(client, config)
            .map_err(|error| format!("cannot be used: {error}"))?;
        Ok(Self {
            connection,
            script: Script::new(SCRIPT),
            prefix: prefix.into(),
            started: Instant::now(),
            away_until: AtomicU64::new(0),
            quiet_until: AtomicU64::new(0),
        })
    }

    pub(super) async fn take(
        &self,
        (measure, rate): (Measure, Rate),
        payer: &Payer,
        amount: u32,
    ) -> Result<Option<Standing>, Limited> {
        if self.now() < self.away_until.load(Relaxed) {
            return Ok(None);
        }
        let name = match measure {
            Measure::Requests => "requests",
            Measure::Tokens => "tokens",
            Measure::Failures => "failures",
        };
        let mut call = self.script.key(format!("{}:limit:{name}:{}", self.prefix, payer.0));
        call.arg(rate.period.as_secs_f64() * 1e6).arg(rate.burst).arg(amount);
        let mut connection = self.connection.clone();
        let answered = tokio::time::timeout(PATIENCE, call.invoke_async(&mut connection)).await;
        let (passed, remaining, wait, reset): (u8, u32, u64, u64) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Ok(self.away(&error.to_string())),
            Err(_) => return Ok(self.away("no answer in time")),
        };
        let standing = Standing { limit: rate.burst, remaining, reset: Duration::from_micros(reset) };
        if passed == 1 {
            Ok(Some(standing))
        } else {
            Err(Limited::Wait { wait: Duration::from_micros(wait), standing })
        }
    }

    fn away<T>(&self, reason: &str) -> Option<T> {
        let now = self.now();
        self.away_until.store(now + millis(PAUSE), Relaxed);
        let quiet = self.quiet_until.load(Relaxed);
        let next = now + millis(QUIET);
        if now >= quiet && self.quiet_until.compare_exchange(quiet, next, Relaxed, Relaxed).is_ok() {
            tracing::warn!(
                reason,
                "Redis is away: rate limits let everything pass; look at REDIS_URL and at Redis"
            );
        }
        None
    }

    fn now(&self) -> u64 {
        millis(self.started.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
