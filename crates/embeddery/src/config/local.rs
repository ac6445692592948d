//! How models of this machine live in memory: how much they may have, how long they stay unused. The deployment guide's
//! files say it in several places; all of them are read, the nearest to the models first.

use std::time::Duration;

use embeddery_model_store::DiskLimits;
use embeddery_providers::local::MemoryLimits;
use serde::{Deserialize, Deserializer, de};

use super::{
    file::{File, Hub},
    resolve::Found,
};

/// What is said of it in a file.
#[derive(Debug, Default)]
pub(super) struct Written {
    max_memory: Option<Bytes>,
    max_models: Option<usize>,
    memory_wait_seconds: Option<f64>,
    unload_timeout: Option<f64>,
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

/// A number of bytes, or a text with a unit: 8GB, 512 MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bytes(pub(super) u64);

impl Written {
    pub(super) fn take(file: &mut File) -> Self {
        let pool = file.worker_pools.as_ref().and_then(|pools| pools.get("embedding"));
        let gigabytes = file.max_memory_gb.filter(|gigabytes| gigabytes.is_finite() && *gigabytes >= 0.0);
        Self {
            max_memory: file.engine.max_memory.or(gigabytes.map(|gigabytes| Bytes((gigabytes * 1e9) as u64))),
            max_models: file.engine.max_models.or(pool.and_then(|pool| pool.max_model_cache_size)),
            memory_wait_seconds: file.engine.memory_wait_seconds,
            unload_timeout: file.model_unload_timeout.or(pool.and_then(|pool| pool.model_unload_timeout)),
        }
    }
}

pub(super) fn resolve(found: &mut Found<'_>, (written, fallback): (Written, Written)) -> LocalSettings {
    let most = |number: u64| Some(number).filter(|number| *number > 0);
    let bytes = written.max_memory.or(fallback.max_memory).map_or(0, |bytes| bytes.0);
    let models = written.max_models.or(fallback.max_models).unwrap_or(0);
    let variable = "EMBEDDINGS_UNLOAD_TIMEOUT_SECONDS";
    let (key, unload_after) = match found.variable(variable) {
        Some(text) => (variable, text.trim().parse().ok()),
        None => ("model_unload_timeout", written.unload_timeout.or(fallback.unload_timeout)),
    };
    LocalSettings {
        limits: MemoryLimits { bytes: most(bytes), models: most(models as u64) },
        patience: found.seconds(
            "engine.memory_wait_seconds",
            None,
            written.memory_wait_seconds.or(fallback.memory_wait_seconds),
        ),
        unload_after: timeout(found, key, unload_after),
    }
}

/// How much of the disk downloads may take.
pub(super) fn disk(written: &Hub, fallback: &Hub) -> DiskLimits {
    let bytes =
        |written: Option<Bytes>, fallback: Option<Bytes>| written.or(fallback).map_or(0, |bytes| bytes.0);
    let most = bytes(written.max_bytes, fallback.max_bytes);
    DiskLimits {
        min_free_bytes: bytes(written.min_free_bytes, fallback.min_free_bytes),
        max_bytes: Some(most).filter(|most| *most > 0),
    }
}

/// Seconds, of which zero means for ever, and so does a negative number: the replaced service took both.
pub(super) fn timeout(found: &mut Found<'_>, key: &str, seconds: Option<f64>) -> Duration {
    match seconds.filter(|seconds| *seconds <= 31_536_000.0) {
        Some(seconds) => Duration::from_secs_f64(seconds.max(0.0)),
        None => {
            found.problem(format!("{key}: must be a number of seconds; 0 keeps unused models for ever"));
            Duration::ZERO
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of bytes, or a text like 8GB or 512MiB")
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Bytes, E> {
                u64::try_from(bytes).map(Bytes).map_err(|_| E::custom("a number of bytes is not negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                parse_bytes(text).ok_or_else(|| {
                    E::custom(format!("'{text}' is no number of bytes; write for example 8GB or 512MiB"))
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn parse_bytes(text: &str) -> Option<Bytes> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1024.0 * 1024.0,
        "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "ti" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some(Bytes((number * factor) as u64))
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
    fn bytes_are_written_in_many_ways() {
        for (text, bytes) in [("7", 7), ("8GB", 8_000_000_000), (" 1.5 KiB", 1536), ("2m", 2_000_000)] {
            assert_eq!(parse_bytes(text), Some(Bytes(bytes)), "{text}");
        }
        for text in ["", "GB", "1 parsec", "1.2.3", "-1"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
        let problem = resolved("engine: {max_memory: much}\n", &[]).err().map(|error| error.to_string());
        assert!(problem.is_some_and(|problem| problem.contains("8GB")));
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
