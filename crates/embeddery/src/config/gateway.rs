//! How embedding is made dependable: cache, retries, circuit breakers, what goes to upstreams at a time, and
//! which models may be used. Fallbacks stand with their models.

use std::time::Duration;

use embeddery_core::ProviderKind;
use embeddery_gateway::{
    BreakerConfig, CacheConfig, Policy, RetryConfig, Scope, TokenEncoding, UpstreamLimiterConfig,
};
use secrecy::SecretString;
use serde::{Deserialize, de::IgnoredAny};

use super::{file::File, resolve::Found};

/// The sections as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cache {
    #[serde(alias = "max_entries")]
    max_size: Option<usize>,
    max_bytes: Option<usize>,
    #[serde(alias = "ttl")]
    ttl_seconds: Option<f64>,
    scope: Option<String>,
    second_level: Option<String>,
    second_level_bytes: Option<u64>,
    enabled: Option<bool>,
    // The replaced service swept its cache by a clock; here nothing is to be swept.
    #[serde(alias = "cleanup_interval")]
    #[serde(rename = "cleanup")]
    _cleanup: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    max_retries: Option<u32>,
    base_delay_seconds: Option<f64>,
    max_delay_seconds: Option<f64>,
    max_wait_seconds: Option<f64>,
    attempt_timeout_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Breaker {
    failures: Option<usize>,
    open_seconds: Option<f64>,
    trials: Option<usize>,
    successes: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upstream {
    concurrency: Option<usize>,
    token_encoding: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PolicySection {
    enforce: Option<bool>,
    allowed_providers: Option<Vec<String>>,
    allowed_models: Option<Vec<String>>,
}

/// All of it, as one file has it.
pub(super) struct Sections {
    pub cache: Cache,
    pub retry: Retry,
    pub breaker: Breaker,
    pub upstream: Upstream,
    pub policy: PolicySection,
}

impl Sections {
    /// Out of a file.
    pub(super) fn take(file: &mut File) -> Self {
        Self {
            cache: std::mem::take(&mut file.cache),
            retry: std::mem::take(&mut file.retry),
            breaker: std::mem::take(&mut file.breaker),
            upstream: std::mem::take(&mut file.upstream),
            policy: std::mem::take(&mut file.policy),
        }
    }
}

/// What the gateway is built from.
pub(crate) struct GatewayConfig {
    /// `None`: no cache.
    pub(crate) cache: Option<CacheConfig>,
    /// Who may share what was computed; also where there is no cache.
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

pub(super) fn resolve(
    found: &mut Found<'_>,
    (file, defaults): (Sections, Sections),
    several_users: bool,
) -> GatewayConfig {
    let scope = scope(found, file.cache.scope.as_ref().or(defaults.cache.scope.as_ref()), several_users);
    let max_wait = seconds(
        found,
        "retry.max_wait_seconds",
        (file.retry.max_wait_seconds, defaults.retry.max_wait_seconds),
    );
    let concurrency = count(
        found,
        ("upstream.concurrency", "EMBEDDINGS_CONNECTION_POOL_SIZE"),
        (file.upstream.concurrency, defaults.upstream.concurrency),
    );
    GatewayConfig {
        second_level: second_level(found, &file.cache, &defaults.cache),
        cache: cache(found, (&file.cache, &defaults.cache), scope),
        scope,
        retry: RetryConfig { max_retry_after: max_wait, ..retry(found, &file.retry, &defaults.retry) },
        breaker: breaker(found, &file.breaker, &defaults.breaker),
        governor: UpstreamLimiterConfig { concurrency, max_wait: max_wait },
        attempt_timeout: seconds(
            found,
            "retry.attempt_timeout_seconds",
            (file.retry.attempt_timeout_seconds, defaults.retry.attempt_timeout_seconds),
        ),
        token_encoding: token_encoding(
            found,
            file.upstream.token_encoding.or(defaults.upstream.token_encoding),
        ),
        policy: policy(found, file.policy),
    }
}

fn cache(found: &mut Found<'_>, (file, defaults): (&Cache, &Cache), scope: Scope) -> Option<CacheConfig> {
    let entries = found.number("EMBEDDINGS_CACHE_MAX_SIZE").or(file.max_size).or(defaults.max_size)?;
    let ttl = found.seconds(
        "cache.ttl_seconds",
        Some("EMBEDDINGS_CACHE_TTL_SECONDS"),
        file.ttl_seconds.or(defaults.ttl_seconds),
    );
    let bytes = file.max_bytes.or(defaults.max_bytes)?;
    let on = file.enabled.unwrap_or(true) && entries > 0 && bytes > 0;
    on.then_some(CacheConfig { entries, bytes, ttl, scope })
}

fn scope(found: &mut Found<'_>, written: Option<&String>, several_users: bool) -> Scope {
    match written.map(String::as_str) {
        None | Some("auto") if several_users => Scope::Tenant,
        None | Some("auto" | "shared") => Scope::Shared,
        Some("tenant") => Scope::Tenant,
        Some(other) => {
            found.problem(format!("cache.scope: '{other}' is unknown; write auto, shared or tenant"));
            Scope::Tenant
        }
    }
}

fn second_level(found: &mut Found<'_>, file: &Cache, defaults: &Cache) -> Option<SecondLevelConfig> {
    match file.second_level.as_ref().or(defaults.second_level.as_ref())?.as_str() {
        "none" => None,
        "sqlite" => Some(SecondLevelConfig::Sqlite(file.second_level_bytes.or(defaults.second_level_bytes)?)),
        "redis" => match found.environment.first(&["EMBEDDINGS_REDIS_URL", "REDIS_URL"]) {
            Some((_, url)) => Some(SecondLevelConfig::Redis(url.to_owned().into())),
            None => {
                found.problem("cache.second_level: redis needs REDIS_URL; set it, or write sqlite".into());
                None
            }
        },
        other => {
            found.problem(format!("cache.second_level: '{other}' is unknown; write none, sqlite or redis"));
            None
        }
    }
}

fn retry(found: &mut Found<'_>, file: &Retry, defaults: &Retry) -> RetryConfig {
    let retries = found.number("EMBEDDINGS_MAX_RETRIES").and_then(|retries| u32::try_from(retries).ok());
    RetryConfig {
        retries: retries.or(file.max_retries).or(defaults.max_retries).unwrap_or_default(),
        initial_backoff: seconds(
            found,
            "retry.base_delay_seconds",
            (file.base_delay_seconds, defaults.base_delay_seconds),
        ),
        max_backoff: seconds(
            found,
            "retry.max_delay_seconds",
            (file.max_delay_seconds, defaults.max_delay_seconds),
        ),
        ..RetryConfig::default()
    }
}

fn breaker(found: &mut Found<'_>, file: &Breaker, defaults: &Breaker) -> BreakerConfig {
    let mut count = |key, written: Option<usize>, fallback: Option<usize>| {
        u32::try_from(found.size(key, written.or(fallback))).unwrap_or(u32::MAX)
    };
    BreakerConfig {
        failures: count("breaker.failures", file.failures, defaults.failures),
        half_open_probes: count("breaker.trials", file.trials, defaults.trials),
        successes: count("breaker.successes", file.successes, defaults.successes),
        open: seconds(found, "breaker.open_seconds", (file.open_seconds, defaults.open_seconds)),
    }
}

fn token_encoding(found: &mut Found<'_>, written: Option<String>) -> TokenEncoding {
    let all = [TokenEncoding::Cl100k, TokenEncoding::O200k];
    let Some(written) = written else { return TokenEncoding::Cl100k };
    all.into_iter().find(|encoding| encoding.as_str() == written).unwrap_or_else(|| {
        found.problem(format!(
            "upstream.token_encoding: '{written}' is unknown; write cl100k_base or o200k_base"
        ));
        TokenEncoding::Cl100k
    })
}

fn policy(found: &mut Found<'_>, file: PolicySection) -> Policy {
    let list = |variable, written: Option<Vec<String>>| {
        let from_variable = found.environment.get(variable).map(|text| {
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        });
        from_variable.or(written)
    };
    let models = list("ALLOWED_EMBEDDING_MODELS", file.allowed_models);
    let names = list("ALLOWED_EMBEDDING_PROVIDERS", file.allowed_providers);
    let providers = names.map(|names| {
        names
            .iter()
            .filter_map(|name| {
                let parsed = name.parse::<ProviderKind>();
                parsed.map_err(|error| found.problem(format!("policy.allowed_providers: {error}"))).ok()
            })
            .collect()
    });
    let listed = models.is_some() || providers.is_some();
    let enforced = found.switch("EMBEDDINGS_ENFORCE_POLICY").or(file.enforce).unwrap_or(listed);
    Policy { enforced, providers, models }
}

fn seconds(found: &mut Found<'_>, key: &str, (written, fallback): (Option<f64>, Option<f64>)) -> Duration {
    found.seconds(key, None, written.or(fallback))
}

fn count(
    found: &mut Found<'_>,
    (key, variable): (&str, &'static str),
    (written, fallback): (Option<usize>, Option<usize>),
) -> usize {
    let value = found.number(variable).or(written).or(fallback);
    found.size(key, value)
}

/// The `fallback` of a model's entry must name models that could answer.
pub(super) fn check_fallbacks(found: &mut Found<'_>, id: &str, fallback: &[String]) {
    for name in fallback {
        if name.trim().is_empty() || name == id {
            found.problem(format!(
                "models.{id}.fallback: '{name}' is not another model; name a key of `models`"
            ));
        }
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
