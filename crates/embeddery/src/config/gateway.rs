//! The sections `cache`, `retry`, `breaker`, `upstream` and `policy`. Fallbacks are in `models`.

use std::time::Duration;

use embeddery_core::ProviderKind;
use embeddery_gateway::{
    BreakerConfig, CacheConfig, Policy, RetryConfig, Scope, TokenEncoding, UpstreamLimiterConfig,
};
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    reader::SettingReader,
    units::{Bytes, Parsed, Positive, Seconds},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheSection {
    #[serde(default = "yes")]
    enabled: bool,
    max_size: usize,
    max_bytes: Bytes,
    ttl_seconds: Seconds,
    scope: ScopeSetting,
    second_level: SecondLevelSetting,
    second_level_bytes: Bytes,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ScopeSetting {
    Auto,
    Shared,
    Tenant,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum SecondLevelSetting {
    None,
    Sqlite,
    Redis,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetrySection {
    max_retries: u32,
    base_delay_seconds: Seconds,
    max_delay_seconds: Seconds,
    max_wait_seconds: Seconds,
    attempt_timeout_seconds: Seconds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerSection {
    failures: Positive,
    open_seconds: Seconds,
    trials: Positive,
    successes: Positive,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamSection {
    concurrency: Positive,
    #[serde(with = "TokenEncodingName")]
    token_encoding: TokenEncoding,
}

#[derive(Deserialize)]
#[serde(remote = "TokenEncoding")]
enum TokenEncodingName {
    #[serde(rename = "cl100k_base")]
    Cl100k,
    #[serde(rename = "o200k_base")]
    O200k,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicySection {
    enforce: Option<bool>,
    allowed_providers: Option<Vec<Parsed<ProviderKind>>>,
    allowed_models: Option<Vec<String>>,
}

/// All sections about the gateway.
#[derive(Deserialize)]
pub(super) struct GatewaySections {
    cache: CacheSection,
    retry: RetrySection,
    breaker: BreakerSection,
    upstream: UpstreamSection,
    policy: PolicySection,
}

/// What the gateway is built from.
pub(crate) struct GatewayConfig {
    /// `None`: no cache.
    pub(crate) cache: Option<CacheConfig>,
    /// Which callers share cached vectors and requests in flight; also set where there is no cache.
    pub(crate) scope: Scope,
    /// Where vectors outlive the process.
    pub(crate) second_level: Option<SecondLevelConfig>,
    pub(crate) retry: RetryConfig,
    pub(crate) breaker: BreakerConfig,
    pub(crate) governor: UpstreamLimiterConfig,
    pub(crate) attempt_timeout: Duration,
    pub(crate) token_encoding: TokenEncoding,
    pub(crate) policy: Policy,
}

/// Where vectors outlive the process.
#[derive(Debug)]
pub(crate) enum SecondLevelConfig {
    /// In a file of the state directory, which may take so many bytes.
    Sqlite(u64),
    /// In the Redis at this address, which may hold a password.
    Redis(SecretString),
}

/// Checks the sections. `redis_url`: the Redis that everything shares.
pub(super) fn resolve(
    reader: &mut SettingReader,
    sections: GatewaySections,
    has_several_users: bool,
    redis_url: Option<SecretString>,
) -> GatewayConfig {
    let GatewaySections { cache, retry, breaker, upstream, policy } = sections;
    let scope = match cache.scope {
        ScopeSetting::Auto if has_several_users => Scope::Tenant,
        ScopeSetting::Auto | ScopeSetting::Shared => Scope::Shared,
        ScopeSetting::Tenant => Scope::Tenant,
    };
    let second_level = match cache.second_level {
        SecondLevelSetting::None => None,
        SecondLevelSetting::Sqlite => Some(SecondLevelConfig::Sqlite(cache.second_level_bytes.0)),
        SecondLevelSetting::Redis => {
            if redis_url.is_none() {
                reader.problem_at("cache.second_level", "redis needs REDIS_URL; set it, or write sqlite");
            }
            redis_url.map(SecondLevelConfig::Redis)
        }
    };
    let bytes = cache.max_bytes.as_usize();
    let is_on = cache.enabled && cache.max_size > 0 && bytes > 0;
    let longest_wait = retry.max_wait_seconds.0;
    GatewayConfig {
        second_level,
        cache: is_on.then_some(CacheConfig {
            entries: cache.max_size,
            bytes,
            ttl: cache.ttl_seconds.0,
            scope,
        }),
        scope,
        retry: RetryConfig {
            retries: retry.max_retries,
            initial_backoff: retry.base_delay_seconds.0,
            max_backoff: retry.max_delay_seconds.0,
            max_retry_after: longest_wait,
            ..RetryConfig::default()
        },
        breaker: BreakerConfig {
            failures: breaker.failures.get_u32(),
            half_open_probes: breaker.trials.get_u32(),
            successes: breaker.successes.get_u32(),
            open: breaker.open_seconds.0,
        },
        governor: UpstreamLimiterConfig { concurrency: upstream.concurrency.get(), max_wait: longest_wait },
        attempt_timeout: retry.attempt_timeout_seconds.0,
        token_encoding: upstream.token_encoding,
        policy: Policy {
            enforced: policy
                .enforce
                .unwrap_or(policy.allowed_models.is_some() || policy.allowed_providers.is_some()),
            providers: policy.allowed_providers.map(|list| list.into_iter().map(|kind| kind.0).collect()),
            models: policy.allowed_models,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = resolved("", &[]).unwrap().gateway;
        let cache = config.cache.unwrap();
        assert_eq!((cache.entries, cache.bytes, cache.ttl), (5000, 64 << 20, Duration::from_secs(3600)));
        assert_eq!((cache.scope, config.second_level.is_none()), (Scope::Shared, true));
        assert_eq!(config.breaker, BreakerConfig::default());
        assert_eq!((config.retry.retries, config.retry.max_retry_after), (3, Duration::from_secs(30)));
        assert_eq!(config.policy, Policy::default());
        assert_eq!(config.token_encoding, TokenEncoding::Cl100k);
    }

    #[test]
    fn variables_beat_the_file() {
        let file = "cache: {max_size: 7, ttl: 60}\nretry: {max_retries: 1}\npolicy: {allowed_models: [a]}\n";
        let config = resolved(file, &[]).unwrap().gateway;
        let cache = config.cache.unwrap();
        assert_eq!((cache.entries, cache.ttl, config.retry.retries), (7, Duration::from_secs(60), 1));
        assert!(config.policy.enforced, "a list that is written holds");
        let variables = [
            ("EMBEDDINGS_CACHE_MAX_SIZE", "0"),
            ("EMBEDDINGS_MAX_RETRIES", "0"),
            ("ALLOWED_EMBEDDING_PROVIDERS", "openai, voyage"),
            ("EMBEDDINGS_ENFORCE_POLICY", "false"),
        ];
        let config = resolved(file, &variables).unwrap().gateway;
        assert!(config.cache.is_none(), "0 is off");
        assert_eq!((config.retry.retries, config.policy.enforced), (0, false));
        assert_eq!(config.policy.providers, Some(vec![ProviderKind::OpenAi, ProviderKind::Voyage]));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_fix() {
        for (file, due) in [
            ("cache: {scope: everybody}", "cache.scope: 'everybody' is unknown"),
            ("cache: {second_level: redis}", "redis needs REDIS_URL"),
            ("cache: {second_level: disk}", "write none, sqlite or redis"),
            ("breaker: {failures: 0}", "breaker.failures: must be above zero"),
            ("upstream: {token_encoding: gpt2}", "write cl100k_base or o200k_base"),
            ("policy: {allowed_providers: [nobody]}", "policy.allowed_providers: 'nobody'"),
            (
                "models: {a: {provider: openai, model_name_or_path: x, fallback: [a]}}",
                "models.a.fallback: 'a'",
            ),
        ] {
            let problems = resolved(file, &[]).err().expect(file).0.join("\n");
            assert!(problems.contains(due), "{file}: {problems}");
        }
        let problems = resolved("", &[("EMBEDDINGS_CACHE_MAX_SIZE", "many")]).err().unwrap().0.join("\n");
        assert!(problems.contains("EMBEDDINGS_CACHE_MAX_SIZE: 'many' is not a whole number"), "{problems}");
    }

    #[test]
    fn a_fallback_is_a_name_or_several() {
        let file = "models:\n  a: {provider: voyage, model_name_or_path: voyage-4, fallback: b, allow_space_change: true}\n  b: {provider: voyage, model_name_or_path: voyage-4-lite, fallback: [a, x]}\n";
        let models = resolved(file, &[]).unwrap().models;
        assert_eq!((models[0].fallback.clone(), models[0].allow_space_change), (vec!["b".to_owned()], true));
        assert_eq!((models[1].fallback.len(), models[1].allow_space_change), (2, false));
    }
}
