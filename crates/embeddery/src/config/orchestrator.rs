//! The guide's `embeddings_config.yaml`: the pools of `embeddery orchestrator`, when they grow and shrink, and where
//! Prometheus finds it. Keys that mean nothing here are read past, and named once at the start.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use embeddery_pipeline::Stage;
use secrecy::SecretString;
use serde::{Deserialize, de::IgnoredAny};

use super::resolve::Found;

/// The section `redis`; `url` is what REDIS_URL would say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Redis {
    pub url: Option<SecretString>,
    pub max_connections: Option<IgnoredAny>,
    pub decode_responses: Option<IgnoredAny>,
}

/// One of `worker_pools`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenPool {
    pub worker_type: Option<String>,
    pub num_workers: Option<usize>,
    pub batch_size: Option<usize>,
    pub max_retries: Option<u32>,
    pub shutdown_timeout: Option<f64>,
    pub gpu_allocation: Option<IgnoredAny>,
    // Read by `local`, where models live.
    pub max_model_cache_size: Option<usize>,
    pub model_unload_timeout: Option<f64>,
    // Of the replaced service; `idle` says why they do nothing.
    pub queue_name: Option<IgnoredAny>,
    pub consumer_group: Option<IgnoredAny>,
    pub poll_interval_ms: Option<IgnoredAny>,
    pub heartbeat_interval: Option<IgnoredAny>,
    pub metrics_interval: Option<IgnoredAny>,
    pub default_chunk_size: Option<IgnoredAny>,
    pub default_overlap: Option<IgnoredAny>,
    pub default_model_provider: Option<IgnoredAny>,
    pub default_model_name: Option<IgnoredAny>,
    pub chroma_batch_size: Option<IgnoredAny>,
    pub transaction_timeout: Option<IgnoredAny>,
}

/// The top-level keys, as far as they are the orchestrator's.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub worker_pools: Option<BTreeMap<String, WrittenPool>>,
    pub enable_autoscaling: Option<bool>,
    pub enable_monitoring: Option<bool>,
    pub monitoring_port: Option<u16>,
    pub scale_up_threshold: Option<f64>,
    pub scale_down_threshold: Option<f64>,
    pub scale_check_interval: Option<f64>,
    pub max_total_workers: Option<usize>,
    pub max_memory_gb: Option<f64>,
}

impl Written {
    pub(super) fn take(file: &mut super::file::File) -> Self {
        Self {
            worker_pools: file.worker_pools.take(),
            enable_autoscaling: file.enable_autoscaling,
            enable_monitoring: file.enable_monitoring,
            monitoring_port: file.monitoring_port,
            scale_up_threshold: file.scale_up_threshold,
            scale_down_threshold: file.scale_down_threshold,
            scale_check_interval: file.scale_check_interval,
            max_total_workers: file.max_total_workers,
            max_memory_gb: file.max_memory_gb,
        }
    }
}

/// What `embeddery orchestrator` runs.
#[derive(Clone, Debug)]
pub(crate) struct OrchestratorSettings {
    pub(crate) pools: Vec<PoolSettings>,
    /// `None`: pools stay as large as they are.
    pub(crate) scaling: Option<ScalingSettings>,
    /// Where /metrics and /health are; `None`: nowhere.
    pub(crate) monitoring: Option<SocketAddr>,
}

/// One pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolSettings {
    pub(crate) name: String,
    pub(crate) stage: Stage,
    pub(crate) workers: usize,
    /// Documents that a worker takes together; `None`: as `workers.slots` says.
    pub(crate) slots: Option<usize>,
    /// `None`: as `queue.max_attempts` says.
    pub(crate) max_attempts: Option<u32>,
    /// `None`: as `server.shutdown_grace_seconds` says.
    pub(crate) grace: Option<Duration>,
}

/// When pools grow and shrink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScalingSettings {
    pub(crate) up: f64,
    pub(crate) down: f64,
    pub(crate) every: Duration,
    pub(crate) max_workers: usize,
    pub(crate) max_memory: Option<u64>,
}

/// Checks the sections. Pools that are written replace the built-in ones, all of them.
pub(super) fn resolve(
    found: &mut Found<'_>,
    written: Written,
    fallback: Written,
    listen: SocketAddr,
) -> OrchestratorSettings {
    let pools = written.worker_pools.or(fallback.worker_pools).unwrap_or_default();
    let pools: Vec<PoolSettings> =
        pools.into_iter().filter_map(|(name, written)| pool(found, name, &written)).collect();
    let max_workers =
        found.size("max_total_workers", written.max_total_workers.or(fallback.max_total_workers));
    let first: usize = pools.iter().map(|pool| pool.workers).sum();
    if first > max_workers {
        found.problem(format!(
            "max_total_workers: is {max_workers}, but the pools begin with {first} workers; raise it, or lower \
             num_workers"
        ));
    }
    let (up, down) = (
        written.scale_up_threshold.or(fallback.scale_up_threshold).unwrap_or(0.0),
        written.scale_down_threshold.or(fallback.scale_down_threshold).unwrap_or(0.0),
    );
    for (key, value) in [("scale_up_threshold", up), ("scale_down_threshold", down)] {
        if !(0.001..=1.0).contains(&value) {
            found.problem(format!("{key}: must be above 0 and at most 1, for example 0.8"));
        }
    }
    if down >= up {
        found.problem("scale_down_threshold: must be below scale_up_threshold".into());
    }
    let every = found.seconds(
        "scale_check_interval",
        None,
        written.scale_check_interval.or(fallback.scale_check_interval),
    );
    let memory = written.max_memory_gb.or(fallback.max_memory_gb);
    if memory.is_some_and(|memory| !(0.0..=1e6).contains(&memory)) {
        found.problem("max_memory_gb: must be a number of gigabytes, for example 32; 0 is no limit".into());
    }
    let max_memory = memory.filter(|memory| *memory > 0.0).map(|memory| (memory * 1e9) as u64);
    let scaling = ScalingSettings { up, down, every, max_workers, max_memory };
    let autoscaling = written.enable_autoscaling.or(fallback.enable_autoscaling).unwrap_or(false);
    let port = port(found, written.monitoring_port.or(fallback.monitoring_port));
    let monitoring = written.enable_monitoring.or(fallback.enable_monitoring).unwrap_or(true);
    OrchestratorSettings {
        pools,
        scaling: autoscaling.then_some(scaling),
        monitoring: monitoring.then(|| SocketAddr::new(listen.ip(), port)),
    }
}

fn pool(found: &mut Found<'_>, name: String, written: &WrittenPool) -> Option<PoolSettings> {
    let key = format!("worker_pools.{name}");
    let kind = written.worker_type.as_deref().unwrap_or(&name);
    let Some(stage) = Stage::ALL.into_iter().find(|stage| stage.as_str() == kind) else {
        let known = Stage::ALL.map(Stage::as_str).join(", ");
        found.problem(format!("{key}.worker_type: '{kind}' is not a stage; known are {known}"));
        return None;
    };
    Some(PoolSettings {
        workers: found.size(&format!("{key}.num_workers"), written.num_workers.or(Some(1))),
        slots: written.batch_size.map(|size| found.size(&format!("{key}.batch_size"), Some(size))),
        max_attempts: written.max_retries.map(|retries| retries.saturating_add(1)),
        grace: written
            .shutdown_timeout
            .map(|seconds| found.seconds(&format!("{key}.shutdown_timeout"), None, Some(seconds))),
        name,
        stage,
    })
}

fn port(found: &mut Found<'_>, written: Option<u16>) -> u16 {
    let Some(text) = found.variable("PROMETHEUS_PORT") else { return written.unwrap_or(9090) };
    text.trim().parse().unwrap_or_else(|_| {
        found.problem(format!("PROMETHEUS_PORT: '{text}' is not a port; write for example 9090"));
        0
    })
}

const RETIRED: &str = "of the replaced service, where it did nothing";

/// Keys that are written and do nothing here, each with the reason.
pub(super) fn idle(file: &super::file::File) -> Vec<(String, &'static str)> {
    let mut idle = Vec::new();
    let redis = &file.redis;
    for (key, there) in [
        ("redis.max_connections", redis.max_connections.is_some()),
        ("redis.decode_responses", redis.decode_responses.is_some()),
    ] {
        idle.extend(there.then(|| (key.to_owned(), "one connection carries all commands")));
    }
    for (name, pool) in file.worker_pools.iter().flatten() {
        let keys = [
            ("queue_name", pool.queue_name.is_some(), "queues are named by queue.prefix"),
            ("consumer_group", pool.consumer_group.is_some(), "queues are named by queue.prefix"),
            ("poll_interval_ms", pool.poll_interval_ms.is_some(), "workers are woken, they do not poll"),
            (
                "heartbeat_interval",
                pool.heartbeat_interval.is_some(),
                "a worker beats three times a queue.lease_seconds",
            ),
            ("metrics_interval", pool.metrics_interval.is_some(), "metrics are read when Prometheus asks"),
            ("default_chunk_size", pool.default_chunk_size.is_some(), "a job says how its texts are cut"),
            ("default_overlap", pool.default_overlap.is_some(), "a job says how its texts are cut"),
            (
                "default_model_provider",
                pool.default_model_provider.is_some(),
                "a job says its model, or has default_model_id",
            ),
            (
                "default_model_name",
                pool.default_model_name.is_some(),
                "a job says its model, or has default_model_id",
            ),
            ("chroma_batch_size", pool.chroma_batch_size.is_some(), RETIRED),
            ("transaction_timeout", pool.transaction_timeout.is_some(), RETIRED),
            ("gpu_allocation", pool.gpu_allocation.is_some(), "there is no GPU path in this version"),
        ];
        let there = keys.into_iter().filter(|(_, there, _)| *there);
        idle.extend(there.map(|(key, _, why)| (format!("worker_pools.{name}.{key}"), why)));
    }
    idle
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    const GUIDE: &str = r#"
redis: {url: "redis://localhost:6379", max_connections: 50}
worker_pools:
  chunking: {worker_type: chunking, num_workers: 4, queue_name: "embeddings:chunking", batch_size: 1, poll_interval_ms: 100}
  embedding: {num_workers: 8, batch_size: 32, max_retries: 5, gpu_allocation: [0, 1], default_model_provider: huggingface}
  storage: {num_workers: 2, batch_size: 100, shutdown_timeout: 7}
enable_autoscaling: true
max_total_workers: 20
monitoring_port: 9100
"#;

    #[test]
    fn the_guides_file_is_understood() {
        let config = resolved(GUIDE, &[]).unwrap();
        let pools = &config.orchestrator.pools;
        assert_eq!(pools.iter().map(|pool| pool.workers).collect::<Vec<_>>(), [4, 8, 2]);
        assert_eq!((pools[1].slots, pools[1].max_attempts), (Some(32), Some(6)));
        assert_eq!(pools[2].grace, Some(Duration::from_secs(7)));
        assert_eq!(config.orchestrator.monitoring.unwrap().port(), 9100);
        let scaling = config.orchestrator.scaling.unwrap();
        assert_eq!((scaling.up, scaling.down, scaling.max_workers), (0.8, 0.2, 20));
        let notices = config.notices.join("\n");
        assert!(
            notices.contains("worker_pools.embedding.gpu_allocation")
                && notices.contains("redis.max_connections")
        );
    }

    #[test]
    fn without_a_file_there_are_two_three_and_one() {
        let config = resolved("", &[("PROMETHEUS_PORT", "0")]).unwrap().orchestrator;
        let sizes: BTreeMap<_, _> = config.pools.iter().map(|pool| (pool.stage, pool.workers)).collect();
        let due = [(Stage::Chunking, 2), (Stage::Embedding, 3), (Stage::Storage, 1)];
        assert_eq!(sizes, BTreeMap::from(due));
        assert_eq!(config.monitoring.unwrap().port(), 0);
    }

    #[test]
    fn nonsense_is_named() {
        for (text, key) in [
            ("worker_pools: {cooking: {num_workers: 1}}", "worker_pools.cooking.worker_type"),
            ("worker_pools: {storage: {num_workers: 0}}", "worker_pools.storage.num_workers"),
            ("scale_up_threshold: 7", "scale_up_threshold"),
            ("scale_up_threshold: 0.1", "scale_down_threshold"),
            ("max_total_workers: 2", "max_total_workers"),
            ("max_memory_gb: -1", "max_memory_gb"),
        ] {
            let problems = resolved(text, &[]).err().unwrap().0;
            assert!(problems[0].starts_with(key), "{problems:?}");
        }
        assert!(resolved("", &[("PROMETHEUS_PORT", "many")]).is_err());
    }
}
