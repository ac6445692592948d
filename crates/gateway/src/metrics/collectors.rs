//! Metrics that are read at scrape time: breakers, cache size and loaded models. A breaker changes its state by time
//! alone, so a gauge that is set on each change would be wrong.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use embeddery_core::ModelState;

use crate::{
    Router,
    breaker::{BreakerRegistry, BreakerReport, BreakerState},
    cache::VectorCache,
};

/// Collects the metrics of breakers and cache.
pub struct GatewayCollector {
    /// The breakers.
    pub breakers: Arc<BreakerRegistry>,
    /// The cache, if it is enabled.
    pub cache: Option<Arc<VectorCache>>,
}

impl fmt::Debug for GatewayCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayCollector")
    }
}

impl Collector for GatewayCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let reports = self.breakers.report_by_service();
        let gauge = ConstGauge::new(0_i64);
        let mut state = encoder.encode_descriptor(
            "circuit_breaker_state",
            "State of the circuit breaker: 0 closed, 1 open, 2 half open; the worst of the service's servers",
            None,
            gauge.metric_type(),
        )?;
        for report in &reports {
            let value = match report.state {
                BreakerState::Closed => 0_i64,
                BreakerState::Open => 1,
                BreakerState::HalfOpen => 2,
            };
            ConstGauge::new(value).encode(state.encode_family(&labels(report))?)?;
        }
        type ReadTotal = fn(&BreakerReport) -> u64;
        let totals: [(&str, &str, ReadTotal); 3] = [
            ("circuit_breaker_failures", "Failed calls to the provider", |report| report.totals.failures),
            ("circuit_breaker_successes", "Successful calls to the provider", |report| {
                report.totals.successes
            }),
            ("circuit_breaker_trips", "Times that the circuit breaker opened", |report| report.totals.trips),
        ];
        for (name, help, read_total) in totals {
            let counter = ConstCounter::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for report in &reports {
                ConstCounter::new(read_total(report)).encode(family.encode_family(&labels(report))?)?;
            }
        }
        let entries = self.cache.as_ref().map_or(0, |cache| cache.stats().entries);
        let size = ConstGauge::new(i64::try_from(entries).unwrap_or(i64::MAX));
        let encoder = encoder.encode_descriptor(
            "embedding_cache_size",
            "Vectors in the in-memory cache",
            None,
            size.metric_type(),
        )?;
        size.encode(encoder)
    }
}

/// Collects the local models that are loaded.
pub struct LoadedModelsCollector(pub Arc<Router>);

impl fmt::Debug for LoadedModelsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoadedModelsCollector")
    }
}

impl Collector for LoadedModelsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let one = ConstGauge::new(1_i64);
        let mut family = encoder.encode_descriptor(
            "active_embedder_instances",
            "Local models in memory",
            None,
            one.metric_type(),
        )?;
        for model in self.0.models().into_iter().filter(|model| model.state == Some(ModelState::Loaded)) {
            let labels = [("provider", model.provider.to_string()), ("model_id", model.name.to_string())];
            one.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn labels(report: &BreakerReport) -> [(&'static str, String); 2] {
    [("service", report.name.clone()), ("operation", "embed".to_owned())]
}
