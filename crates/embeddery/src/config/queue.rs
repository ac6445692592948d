//! Where the queue of jobs is, and what holds there.

use std::{path::PathBuf, time::Duration};

use embeddery_database::redis::{KeyPrefix, RedisAddress};
use embeddery_pipeline::{QueueOptions, RedisConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    reader::SettingReader,
    units::{Days, Positive, Seconds},
};

/// The section `queue`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueSection {
    redis_url: Option<SecretString>,
    ca_file: Option<PathBuf>,
    prefix: String,
    require_durable: bool,
    dead_letter_key: Option<SecretString>,
    lease_seconds: Seconds,
    max_attempts: Positive,
    in_flight_per_user: usize,
    dead_letters: Positive,
    dead_letter_days: Days,
}

/// The section `redis`; its URL is REDIS_URL's.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedisSection {
    pub(super) url: Option<SecretString>,
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

/// Checks the section. EMBEDDINGS_QUEUE_REDIS_URL beats `queue.redis_url`, which beats the Redis that everything shares,
/// `redis`. `ca`: certificates that are trusted everywhere, in PEM.
pub(super) fn resolve(
    reader: &mut SettingReader,
    section: QueueSection,
    redis: RedisSection,
    ca: Option<&[u8]>,
) -> QueueConfig {
    let lease = section.lease_seconds.0;
    if lease < Duration::from_secs(1) {
        reader.problem_at(
            "queue.lease_seconds",
            "must be 1 or more; a lease is renewed several times while it holds",
        );
    }
    let in_flight = Some(section.in_flight_per_user).filter(|most| *most > 0);
    let options = QueueOptions {
        in_flight_per_tenant: in_flight.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        dead_letters: section.dead_letters.get_u32(),
        dead_letter_age: section.dead_letter_days.0,
        outage_threshold: lease / 2,
    };
    let prefix = &section.prefix;
    // A Cluster keeps together what is in braces.
    let tag = prefix.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(prefix);
    if tag.is_empty() || tag.contains(['{', '}', ' ']) {
        reader.problem_at(
            "queue.prefix",
            format_args!("'{prefix}' cannot be used; write a word, for example embeddings"),
        );
    }
    let ca = match &section.ca_file {
        Some(path) => reader.file_at("queue.ca_file", path),
        None => ca.map(<[u8]>::to_vec),
    };
    let nearest = section.redis_url.map(|url| ("queue.redis_url", url));
    let redis = nearest.or(redis.url.map(|url| ("redis.url", url))).map(|(key, url)| {
        let redis = RedisConfig {
            address: RedisAddress { url: url.expose_secret().trim().into(), ca, prefix: KeyPrefix::new(tag) },
            require_durable: section.require_durable,
            dead_letter_key: section.dead_letter_key,
            options,
        };
        if let Err(problem) = redis.check() {
            reader.problem_at(key, problem);
        }
        redis
    });
    QueueConfig { redis, options, lease, max_attempts: section.max_attempts.get_u32() }
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
