//! The guide's `embeddings_config.yaml`: the pools of `embeddery orchestrator`, when they grow and shrink, and where
//! Prometheus finds it.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr, time::Duration};

use embeddery_pipeline::Stage;
use serde::Deserialize;

use super::{
    reader::SettingReader,
    units::{Gigabytes, Parsed, Positive, Seconds, Share},
};

/// The top-level keys, as far as they are the orchestrator's.
#[derive(Deserialize)]
pub(super) struct OrchestratorSection {
    worker_pools: BTreeMap<String, PoolSection>,
    enable_autoscaling: bool,
    enable_monitoring: bool,
    monitoring_port: Parsed<Port>,
    scale_up_threshold: Share,
    scale_down_threshold: Share,
    scale_check_interval: Seconds,
    max_total_workers: Positive,
    /// Also a limit of the models' memory.
    pub(super) max_memory_gb: Option<Gigabytes>,
}

/// One of `worker_pools`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolSection {
    worker_type: Option<String>,
    num_workers: Option<Positive>,
    batch_size: Option<Positive>,
    max_retries: Option<u32>,
    shutdown_timeout: Option<Seconds>,
}

#[derive(Clone, Copy)]
struct Port(u16);

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.trim().parse().map(Self);
        port.map_err(|_| format!("'{text}' is not a port; write for example 9090"))
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

/// Checks the settings. Pools of a file replace the built-in ones, all of them.
pub(super) fn resolve(
    reader: &mut SettingReader,
    section: OrchestratorSection,
    listen: SocketAddr,
) -> OrchestratorSettings {
    let pools = section.worker_pools.into_iter();
    let pools: Vec<PoolSettings> = pools.filter_map(|(name, section)| pool(reader, name, &section)).collect();
    let max_workers = section.max_total_workers.get();
    let first: usize = pools.iter().map(|pool| pool.workers).sum();
    if first > max_workers {
        reader.problem_at(
            "max_total_workers",
            format_args!(
                "is {max_workers}, but the pools begin with {first} workers; raise it, or lower num_workers"
            ),
        );
    }
    let (up, down) = (section.scale_up_threshold.0, section.scale_down_threshold.0);
    if down >= up {
        reader.problem_at("scale_down_threshold", "must be below scale_up_threshold");
    }
    let scaling = ScalingSettings {
        up,
        down,
        every: section.scale_check_interval.0,
        max_workers,
        max_memory: section.max_memory_gb.map(|memory| memory.0).filter(|bytes| *bytes > 0),
    };
    OrchestratorSettings {
        pools,
        scaling: section.enable_autoscaling.then_some(scaling),
        monitoring: section
            .enable_monitoring
            .then(|| SocketAddr::new(listen.ip(), section.monitoring_port.0.0)),
    }
}

fn pool(reader: &mut SettingReader, name: String, section: &PoolSection) -> Option<PoolSettings> {
    let kind = section.worker_type.as_deref().unwrap_or(&name);
    let Some(stage) = Stage::ALL.into_iter().find(|stage| stage.as_str() == kind) else {
        let known = Stage::ALL.map(Stage::as_str).join(", ");
        reader.problem_at(
            &format!("worker_pools.{name}.worker_type"),
            format_args!("'{kind}' is not a stage; known are {known}"),
        );
        return None;
    };
    Some(PoolSettings {
        workers: section.num_workers.map_or(1, Positive::get),
        slots: section.batch_size.map(Positive::get),
        max_attempts: section.max_retries.map(|retries| retries.saturating_add(1)),
        grace: section.shutdown_timeout.map(|seconds| seconds.0),
        name,
        stage,
    })
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
            assert!(format!(": {}", problems[0]).contains(&format!(": {key}")), "{problems:?}");
        }
        assert!(resolved("", &[("PROMETHEUS_PORT", "many")]).is_err());
    }
}
