//! What an administrator sees: breakers, cache, providers, counters. The names are those of the replaced service.

use std::{collections::BTreeMap, time::SystemTime};

use embeddery_gateway::{BreakerReport, BreakerState, CacheStats, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::prometheus_json::{Sample, samples};
use crate::App;

/// Circuit breakers by name: `embeddings_<provider>`, for `local_api` `embeddings_<id>`.
pub(crate) type CircuitBreakers = BTreeMap<String, CircuitBreakerView>;

/// The current state of a circuit breaker.
#[derive(Serialize, ToSchema)]
pub(crate) struct CircuitBreakerView {
    name: String,
    /// The server, `scheme://host:port`. Absent for models of this process, for a provider without a configured server,
    /// and in the health of the service, which needs no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// `CLOSED`, `OPEN` or `HALF_OPEN`.
    state: &'static str,
    /// Failures in a row.
    failure_count: u32,
    /// Successful calls while half open.
    success_count: u32,
    /// Seconds since 1970; `null`: it never failed.
    last_failure_time: Option<f64>,
    /// Calls in progress while half open.
    half_open_calls: u32,
    /// Seconds until it becomes half open; `null` unless it is open.
    retry_after: Option<f64>,
    settings: BreakerSettings,
}

/// When a breaker opens and closes.
#[derive(Serialize, ToSchema)]
pub(crate) struct BreakerSettings {
    failure_threshold: u32,
    /// Seconds.
    recovery_timeout: f64,
    success_threshold: u32,
    half_open_max_calls: u32,
}

impl From<BreakerReport> for CircuitBreakerView {
    fn from(report: BreakerReport) -> Self {
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        Self {
            name: report.name,
            address: report.address.map(|address| address.to_string()),
            state: state(report.state),
            failure_count: report.failures,
            success_count: report.successes,
            last_failure_time: report.last_failure.and_then(since).map(|time| time.as_secs_f64()),
            half_open_calls: report.probes,
            retry_after: report.remaining_open.map(|wait| wait.as_secs_f64()),
            settings: BreakerSettings {
                failure_threshold: report.config.failures,
                recovery_timeout: report.config.open.as_secs_f64(),
                success_threshold: report.config.successes,
                half_open_max_calls: report.config.half_open_probes,
            },
        }
    }
}

pub(crate) fn state(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "CLOSED",
        BreakerState::Open => "OPEN",
        BreakerState::HalfOpen => "HALF_OPEN",
    }
}

/// Which of a provider's circuit breakers are reset.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CircuitBreakerQuery {
    /// Only that of the server at this address, as the list has it; all without it.
    pub(crate) address: Option<String>,
}

/// The circuit breakers of all servers, for administrators.
pub(crate) fn breakers(app: &App) -> CircuitBreakers {
    views(app.controls.breakers.report())
}

/// The worst circuit breaker of each provider or `local_api` model, without its address.
pub(crate) fn breakers_by_provider(app: &App) -> CircuitBreakers {
    views(app.controls.breakers.report_by_provider())
}

fn views(reports: Vec<BreakerReport>) -> CircuitBreakers {
    reports.into_iter().map(|report| (report.name.clone(), CircuitBreakerView::from(report))).collect()
}

/// The request succeeded.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageResponse {
    pub(crate) message: String,
}

/// The cache was cleared.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClearCacheResponse {
    pub(crate) message: &'static str,
    pub(crate) entries_removed: u64,
}

/// The size and the hits of the cache.
#[derive(Serialize, ToSchema)]
pub(crate) struct CacheStatsView {
    size: usize,
    /// 0: it is off.
    max_size: usize,
    max_bytes: usize,
    ttl_seconds: f64,
    hits: u64,
    misses: u64,
    /// Hits per looked-up text; 0 before the first.
    hit_rate: f64,
}

impl From<Option<CacheStats>> for CacheStatsView {
    fn from(stats: Option<CacheStats>) -> Self {
        let Some(CacheStats { entries, hits, misses, config }) = stats else {
            return Self {
                size: 0,
                max_size: 0,
                max_bytes: 0,
                ttl_seconds: 0.0,
                hits: 0,
                misses: 0,
                hit_rate: 0.0,
            };
        };
        let texts = hits + misses;
        Self {
            size: entries,
            max_size: config.entries,
            max_bytes: config.bytes,
            ttl_seconds: config.ttl.as_secs_f64(),
            hits,
            misses,
            hit_rate: if texts == 0 { 0.0 } else { hits as f64 / texts as f64 },
        }
    }
}

/// The current statistics of the cache.
pub(crate) fn cache(app: &App) -> CacheStatsView {
    app.controls.cache.as_ref().map(|cache| cache.stats()).into()
}

/// The providers with their models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProvidersConfig {
    default_provider: Option<&'static str>,
    default_model: String,
    providers: Vec<ProviderModels>,
}

/// A provider and its known models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderModels {
    name: &'static str,
    models: Vec<String>,
}

/// The providers with their models.
pub(crate) fn providers(router: &Router) -> ProvidersConfig {
    let models = router.models();
    let of = |provider| {
        models.iter().filter(|model| model.provider == provider).map(|model| model.name.to_string()).collect()
    };
    ProvidersConfig {
        default_provider: models.iter().find(|model| model.default).map(|model| model.provider.as_str()),
        default_model: router.default_model(),
        providers: router
            .providers()
            .into_iter()
            .map(|provider| ProviderModels { name: provider.as_str(), models: of(provider) })
            .collect(),
    }
}

/// The embedding metrics since the start of the process.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingMetrics {
    cache: CacheStatsView,
    active_requests: f64,
    circuit_breakers: CircuitBreakers,
    /// Sums over all labels: `requests_total`, `provider_failures_total`, ….
    counters: BTreeMap<String, f64>,
    /// Every series of those families.
    details: BTreeMap<&'static str, Vec<Sample>>,
    config: MetricsConfig,
}

/// The settings that the metrics depend on.
#[derive(Serialize, ToSchema)]
pub(crate) struct MetricsConfig {
    enforce_policy: bool,
    dimension_policy: &'static str,
}

const FAMILIES: [&str; 6] =
    ["requests", "provider_failures", "fallbacks", "policy_denied", "dimension_adjustments", "token_inputs"];

/// The current embedding metrics.
pub(crate) fn metrics(app: &App, registry: &Registry) -> EmbeddingMetrics {
    let all = samples(registry);
    let details: BTreeMap<&'static str, Vec<Sample>> = FAMILIES
        .into_iter()
        .map(|family| {
            let name = format!("embedding_{family}_total");
            (family, all.iter().filter(|sample| sample.name == name).cloned().collect())
        })
        .collect();
    let counters = details
        .iter()
        .map(|(family, samples)| {
            (format!("{family}_total"), samples.iter().fold(0.0, |sum, sample| sum + sample.value))
        })
        .collect();
    let active = all.iter().find(|sample| sample.name == "active_embedding_requests");
    EmbeddingMetrics {
        cache: cache(app),
        active_requests: active.map_or(0.0, |sample| sample.value),
        circuit_breakers: breakers(app),
        counters,
        details,
        config: MetricsConfig {
            enforce_policy: app.router.policy().enforced,
            dimension_policy: app.settings.dimension_policy.as_str(),
        },
    }
}
