//! Where the queue of jobs is, and what holds there.

use std::{path::PathBuf, time::Duration};

use embeddery_pipeline::{QueueOptions, RedisConfig};
use secrecy::SecretString;
use serde::Deserialize;

use super::resolve::Found;

/// The section `queue` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Queue {
    pub redis_url: Option<SecretString>,
    pub ca_file: Option<PathBuf>,
    pub prefix: Option<String>,
    pub require_durable: Option<bool>,
    pub lease_seconds: Option<f64>,
    pub max_attempts: Option<usize>,
    pub in_flight_per_user: Option<usize>,
    pub dead_letters: Option<usize>,
    pub dead_letter_days: Option<f64>,
}

/// Where the queue is, and what holds there.
#[derive(Clone, Debug)]
pub(crate) struct QueueConfig {
    /// Redis; `None`: an SQLite file in the state directory, worked on by `serve` itself.
    pub(crate) redis: Option<RedisConfig>,
    /// What holds for every queue.
    pub(crate) options: QueueOptions,
    /// How long a document is a worker's without a sign of life.
    pub(crate) lease: Duration,
    /// Charged failures after which a document fails.
    pub(crate) max_attempts: u32,
}

/// Checks the section. `queue.redis_url` beats EMBEDDINGS_REDIS_URL, which beats REDIS_URL.
pub(super) fn resolve(found: &mut Found<'_>, written: Queue, fallback: &Queue) -> QueueConfig {
    let lease = found.seconds("queue.lease_seconds", None, written.lease_seconds.or(fallback.lease_seconds));
    let mut number = |key, written: Option<usize>, fallback: Option<usize>| {
        u32::try_from(found.size(key, written.or(fallback))).unwrap_or(u32::MAX)
    };
    let max_attempts = number("queue.max_attempts", written.max_attempts, fallback.max_attempts);
    let dead_letters = number("queue.dead_letters", written.dead_letters, fallback.dead_letters);
    let days = written.dead_letter_days.or(fallback.dead_letter_days).unwrap_or(0.0);
    if !(1e-6..=36_500.0).contains(&days) {
        found.problem("queue.dead_letter_days: must be a number of days above zero, for example 30".into());
    }
    let in_flight = written.in_flight_per_user.or(fallback.in_flight_per_user).filter(|most| *most > 0);
    let options = QueueOptions {
        in_flight_per_tenant: in_flight.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        dead_letters,
        dead_letter_age: Duration::from_secs_f64(days.clamp(0.0, 36_500.0) * 86_400.0),
    };
    let url = written.redis_url.or_else(|| {
        let (_, url) = found.environment.first(&["EMBEDDINGS_REDIS_URL", "REDIS_URL"])?;
        Some(SecretString::from(url.trim().to_owned()))
    });
    let redis = url.map(|url| RedisConfig {
        url,
        ca: written.ca_file.and_then(|path| {
            let read = std::fs::read(&path);
            read.map_err(|error| {
                found.problem(format!("queue.ca_file: {} cannot be read ({error})", path.display()));
            })
            .ok()
        }),
        prefix: written.prefix.or_else(|| fallback.prefix.clone()).unwrap_or_default(),
        require_durable: written.require_durable.or(fallback.require_durable).unwrap_or(false),
        dead_letter_key: found
            .variable("EMBEDDINGS_DLQ_ENCRYPTION_KEY")
            .map(|key| SecretString::from(key.to_owned())),
        options,
    });
    QueueConfig { redis, options, lease, max_attempts }
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    #[test]
    fn without_a_redis_the_queue_is_a_file() {
        let queue = resolved("", &[]).unwrap().queue;
        assert!(queue.redis.is_none());
        assert_eq!((queue.lease, queue.max_attempts), (Duration::from_secs(60), 3));
        assert_eq!(queue.options.in_flight_per_tenant, None);
    }

    #[test]
    fn a_redis_is_named_by_file_or_environment_and_its_password_is_not_shown() {
        let variables = [("REDIS_URL", "redis://:hunter2@a/0")];
        let queue = resolved("queue: {prefix: p, lease_seconds: 2}", &variables).unwrap().queue;
        assert!(!format!("{queue:?}").contains("hunter2"));
        assert_eq!((queue.redis.unwrap().prefix.as_str(), queue.lease), ("p", Duration::from_secs(2)));
        let problems = resolved("queue: {max_attempts: 0, dead_letter_days: -1}", &[]).err().unwrap().0;
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
