//! Metrics of the memory that local models use.

use std::{fmt, sync::Arc};

use embeddery_providers::local::MemoryBudget;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};

/// A collector that reads the memory budget of the local models at each scrape.
pub(crate) struct ModelMemory(pub(crate) Arc<MemoryBudget>);

impl fmt::Debug for ModelMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelMemory")
    }
}

impl Collector for ModelMemory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, bytes: u64| {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "embeddery_model_memory_bytes",
            "Memory of local models in bytes, including models that are being loaded or unloaded",
            self.0.reserved_bytes(),
        )?;
        let limit = self.0.limits().bytes.unwrap_or(0);
        gauge(
            "embeddery_model_memory_limit_bytes",
            "Maximum memory of local models in bytes (engine.max_memory); 0: no limit",
            limit,
        )
    }
}
