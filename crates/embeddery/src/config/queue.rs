//! Where the queue of jobs is, and what holds there.

use std::{path::PathBuf, time::Duration};

use embeddery_database::redis::{KeyPrefix, RedisAddress};
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

/// Checks the section. EMBEDDINGS_QUEUE_REDIS_URL beats `queue.redis_url`, which beats EMBEDDINGS_REDIS_URL, which
/// beats REDIS_URL. `ca`: certificates that are trusted everywhere, in PEM.
pub(super) fn resolve(
    found: &mut Found<'_>,
    written: Queue,
    fallback: &Queue,
    ca: Option<&[u8]>,
) -> QueueConfig {
    let lease = found.seconds("queue.lease_seconds", None, written.lease_seconds.or(fallback.lease_seconds));
    if lease < Duration::from_secs(1) && !lease.is_zero() {
        found.problem(
            "queue.lease_seconds: must be 1 or more; a lease is renewed several times while it holds".into(),
        );
    }
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
        outage_threshold: lease / 2,
    };
    let prefix = written.prefix.or_else(|| fallback.prefix.clone()).unwrap_or_default();
    // A Cluster keeps together what is in braces.
    let tag = prefix.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(&prefix);
    if tag.is_empty() || tag.contains(['{', '}', ' ']) {
        found.problem(format!(
            "queue.prefix: '{prefix}' cannot be used; write a word, for example embeddings"
        ));
    }
    let ca = match written.ca_file {
        Some(path) => std::fs::read(&path)
            .map_err(|error| {
                found.problem(format!("queue.ca_file: {} cannot be read ({error})", path.display()));
            })
            .ok(),
        None => ca.map(<[u8]>::to_vec),
    };
    let variable = |names: &[&'static str]| {
        let (name, url) = found.environment.first(names)?;
        Some((name, SecretString::from(url.trim().to_owned())))
    };
    let url = variable(&["EMBEDDINGS_QUEUE_REDIS_URL"])
        .or_else(|| written.redis_url.map(|url| ("queue.redis_url", url)))
        .or_else(|| variable(&["EMBEDDINGS_REDIS_URL", "REDIS_URL"]));
    let redis = url.map(|(setting, url)| {
        let redis = RedisConfig {
            address: RedisAddress { url, ca, prefix: KeyPrefix::new(tag) },
            require_durable: written.require_durable.or(fallback.require_durable).unwrap_or(false),
            dead_letter_key: found
                .variable("EMBEDDINGS_DLQ_ENCRYPTION_KEY")
                .map(|key| SecretString::from(key.to_owned())),
            options,
        };
        if let Err(problem) = redis.check() {
            found.problem(format!("{setting}: {problem}"));
        }
        redis
    });
    QueueConfig { redis, options, lease, max_attempts }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::{super::tests_support::resolved, *};

    #[test]
    fn without_a_redis_the_queue_is_a_file() {
        let queue = resolved("", &[]).unwrap().queue;
        assert!(queue.redis.is_none());
        assert_eq!((queue.lease, queue.max_attempts), (Duration::from_secs(60), 3));
        assert_eq!(queue.options.in_flight_per_tenant, None);
        assert_eq!(queue.options.outage_threshold, Duration::from_secs(30));
    }

    #[test]
    fn the_nearest_address_wins_and_is_not_shown() {
        let url = |file: &str, variables: &[(&str, &str)]| {
            let redis = resolved(file, variables).unwrap().queue.redis.unwrap();
            assert!(!format!("{redis:?}").contains("hunter2"));
            redis.address.url.expose_secret().to_owned()
        };
        let general = ("REDIS_URL", "redis://:hunter2@general");
        assert_eq!(url("", &[general]), general.1);
        let ours = ("EMBEDDINGS_REDIS_URL", "redis://ours");
        assert_eq!(url("", &[general, ours]), ours.1);
        assert_eq!(url("queue: {redis_url: 'redis://queue'}", &[general, ours]), "redis://queue");
        let nearest = ("EMBEDDINGS_QUEUE_REDIS_URL", "redis+sentinel://a,b/main");
        assert_eq!(url("queue: {redis_url: 'redis://queue'}", &[general, nearest]), nearest.1);
    }

    #[test]
    fn what_is_written_holds() {
        let file = "queue: {prefix: mine, require_durable: true, in_flight_per_user: 4, dead_letter_days: 1}";
        let variables = [("REDIS_URL", "redis://h"), ("EMBEDDINGS_DLQ_ENCRYPTION_KEY", "secret")];
        let redis = resolved(file, &variables).unwrap().queue.redis.unwrap();
        assert_eq!((redis.address.prefix.as_str(), redis.require_durable), ("{mine}", true));
        assert!(redis.dead_letter_key.is_some());
        assert_eq!(redis.options.in_flight_per_tenant, Some(4));
        assert_eq!(redis.options.dead_letter_age, Duration::from_secs(86_400));
    }

    #[test]
    fn nonsense_is_named() {
        for (file, due) in [
            ("queue: {lease_seconds: 0.1}", "queue.lease_seconds: must be 1 or more"),
            ("queue: {max_attempts: 0}", "queue.max_attempts"),
            ("queue: {dead_letter_days: -1}", "queue.dead_letter_days"),
            ("queue: {prefix: 'a{b}'}", "queue.prefix: 'a{b}'"),
            ("queue: {redis_url: 'http://h'}", "queue.redis_url: is not a Redis URL"),
        ] {
            let problems = resolved(file, &[]).err().expect(file).0.join("\n");
            assert!(problems.contains(due), "{file}: {problems}");
        }
    }
}
