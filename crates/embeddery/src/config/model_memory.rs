//! How models of this machine live in memory: how much they may have, how long they stay unused.

use std::{num::NonZeroUsize, str::FromStr, time::Duration};

use embeddery_engine::Precision;
use embeddery_providers::local::MemoryLimits;
use serde::Deserialize;

use super::{
    reader::SettingReader,
    units::{Bytes, Gigabytes, Parsed, Positive, Seconds, UnusedSeconds},
};

/// The section `engine`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineSection {
    pub(super) threads: Parsed<Threads>,
    pub(super) precision: Parsed<Precision>,
    pub(super) queue_tokens: Positive,
    max_memory: Bytes,
    max_models: u64,
    memory_wait_seconds: Seconds,
}

/// More would only be a typo.
const MAX_THREADS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Threads that compute.
#[derive(Clone, Copy)]
pub(super) struct Threads(pub(super) NonZeroUsize);

impl FromStr for Threads {
    type Err = String;

    /// OpenMP allows a list, one number per nesting level; the first is ours. 0: as many as this process may use.
    fn from_str(text: &str) -> Result<Self, String> {
        let first = text.split(',').next().unwrap_or(text).trim();
        let count = first.parse().map_err(|_| format!("'{text}' is not a number of threads"))?;
        // What is available respects the cgroup's CPU quota and the process' affinity.
        let available = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Self(NonZeroUsize::new(count).unwrap_or_else(available).min(MAX_THREADS)))
    }
}

/// How models of this machine live in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LocalSettings {
    /// How much all models may have.
    pub(crate) limits: MemoryLimits,
    /// How long a model waits for room.
    pub(crate) patience: Duration,
    /// How long an unused model stays; zero: for ever.
    pub(crate) unload_after: Duration,
}

/// Checks the settings. `max_memory_gb` of the deployment guide's files holds where `engine.max_memory` is not set.
pub(super) fn resolve(
    reader: &SettingReader,
    engine: &EngineSection,
    max_memory_gb: Option<Gigabytes>,
    unload_timeout: UnusedSeconds,
) -> LocalSettings {
    let limit = |number: u64| Some(number).filter(|number| *number > 0);
    let bytes = match max_memory_gb {
        Some(gigabytes) if !reader.is_set("engine.max_memory") => gigabytes.0,
        _ => engine.max_memory.0,
    };
    LocalSettings {
        limits: MemoryLimits { bytes: limit(bytes), models: limit(engine.max_models) },
        patience: engine.memory_wait_seconds.0,
        unload_after: unload_timeout.0,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    fn local(text: &str, variables: &[(&str, &str)]) -> LocalSettings {
        let key = [("SINGLE_USER_API_KEY", "a-key-for-tests-only")];
        resolved(text, &[variables, &key].concat()).map_err(|error| error.to_string()).unwrap().local
    }

    #[test]
    fn the_guides_places_are_all_read() {
        let settings = local("", &[]);
        assert_eq!(settings.unload_after, Duration::from_secs(300));
        assert_eq!(settings.limits, MemoryLimits { bytes: None, models: None });
        let pool = "worker_pools:\n  embedding: {num_workers: 3, max_model_cache_size: 5, model_unload_timeout: 60}\n";
        let settings = local(&format!("{pool}max_memory_gb: 32\n"), &[]);
        assert_eq!(settings.unload_after, Duration::from_secs(60));
        assert_eq!(settings.limits, MemoryLimits { bytes: Some(32_000_000_000), models: Some(5) });
        let nearer = format!(
            "{pool}max_memory_gb: 32\nmodel_unload_timeout: 0\nengine: {{max_memory: 1.5GiB, max_models: 0}}\n"
        );
        let settings = local(&nearer, &[]);
        assert_eq!(settings.unload_after, Duration::ZERO);
        assert_eq!(settings.limits, MemoryLimits { bytes: Some(3 << 29), models: None });
        let settings = local(&nearer, &[("EMBEDDINGS_UNLOAD_TIMEOUT_SECONDS", "-1")]);
        assert_eq!(settings.unload_after, Duration::ZERO);
    }

    #[test]
    fn nonsense_is_told() {
        let told =
            |text: &str, variables: &[(&str, &str)]| resolved(text, variables).err().unwrap().to_string();
        assert!(told("", &[("EMBEDDINGS_UNLOAD_TIMEOUT_SECONDS", "soon")]).contains("EMBEDDINGS_UNLOAD"));
        let model =
            "models: {a: {provider: huggingface, model_name_or_path: x/y, unload_timeout_seconds: 1e12}}\n";
        assert!(told(model, &[]).contains("models.a.unload_timeout_seconds"));
    }
}
