//! Settings that are accepted and have no effect: of the replaced service and meaningless here, or not yet
//! served by this version. Nobody should believe that a limit or a database is in force when it is not, so
//! each is named once at the start.

use embeddery_core::ProviderKind;

use super::{environment::Environment, file::File, providers::Providers};

const RETIRED: &str = "of the replaced service, where it did nothing";

/// One line per setting that is there and does nothing.
pub(super) fn notices(file: &File, environment: &Environment) -> Vec<String> {
    let mut notices: Vec<String> =
        sections(file).into_iter().map(|(key, reason)| format!("'{key}' has no effect: {reason}")).collect();
    let idle = super::orchestrator::idle(file).into_iter();
    notices.extend(idle.map(|(key, reason)| format!("'{key}' has no effect: {reason}")));
    for (id, model) in &file.models.entries {
        let idle: Vec<&str> = model_keys(model);
        if !idle.is_empty() {
            notices.push(format!("models.{id}: this version does not read {}", idle.join(", ")));
        }
    }
    let variables = [
        ("EMBEDDINGS_MAX_BATCH_SIZE", "calls are as large as each provider allows"),
        ("EMBEDDINGS_CACHE_CLEANUP_INTERVAL", "cached vectors end by themselves"),
        ("EMBEDDINGS_ALLOW_FALLBACK_WITH_HEADER", "who names a provider means it"),
    ];
    for (name, reason) in variables {
        if environment.get(name).is_some() {
            notices.push(format!("{name} has no effect: {reason}"));
        }
    }
    notices.extend(misspelt(environment));
    notices
}

fn sections(file: &File) -> Vec<(&'static str, &'static str)> {
    [
        ("rate_limiter", file.rate_limiter.is_some(), RETIRED),
        ("retry_config", file.retry_config.is_some(), RETIRED),
        (
            "providers",
            matches!(file.providers, Providers::OldList),
            "list models under `models`, each with its provider",
        ),
        ("resources", file.resources.is_some(), RETIRED),
        ("batching", file.batching.is_some(), "batches form by themselves"),
        ("security", file.security.is_some(), RETIRED),
        ("monitoring", file.monitoring.is_some(), RETIRED),
        ("default_provider", file.default_provider.is_some(), "set default_model_id"),
        ("default_model", file.default_model.is_some(), "set default_model_id"),
        ("chunk_size", file.chunk_size.is_some(), "a job says how its texts are cut"),
        ("chunk_overlap", file.chunk_overlap.is_some(), "a job says how its texts are cut"),
    ]
    .into_iter()
    .filter_map(|(key, present, reason)| present.then_some((key, reason)))
    .collect()
}

fn model_keys(model: &super::file::Model) -> Vec<&'static str> {
    // Of models on this machine: whatever is about reaching others.
    let here = matches!(model.provider.parse(), Ok(ProviderKind::HuggingFace | ProviderKind::Onnx));
    let graph = matches!(model.provider.parse(), Ok(ProviderKind::Onnx));
    [
        ("hf_cache_dir_subpath", model.hf_cache_dir_subpath.is_some()),
        ("onnx_storage_dir_subpath", model.onnx_storage_dir_subpath.is_some()),
        ("precision", graph && model.precision.is_some()),
        ("unload_timeout_seconds", !here && model.unload_timeout_seconds.is_some()),
        ("onnx_file", !graph && model.onnx_file.is_some()),
        ("onnx_providers", !graph && model.onnx_providers.is_some()),
        ("api_url", here && model.api_url.is_some()),
        ("api_dialect", here && model.api_dialect.is_some()),
        ("api_key", here && model.api_key.is_some()),
        ("api_keys", here && model.api_keys.is_some()),
        ("base_url", here && model.base_url.is_some()),
        ("headers", here && model.headers.is_some()),
        ("dimensions", here && model.dimensions.is_some()),
        ("truncate", model.truncate.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, present)| present.then_some(key))
    .collect()
}

/// Variables that this version reads, or knows and leaves alone.
const KNOWN: [&str; 27] = [
    "EMBEDDINGS_DLQ_ENCRYPTION_KEY",
    "EMBEDDINGS_QUEUE_REDIS_URL",
    "EMBEDDINGS_PRECISION",
    "EMBEDDINGS_PROXY",
    "EMBEDDINGS_NO_PROXY",
    "EMBEDDINGS_CA_FILE",
    "EMBEDDINGS_LISTEN",
    "EMBEDDINGS_CONFIG_PATH",
    "EMBEDDINGS_MODEL_STORAGE_DIR",
    "EMBEDDINGS_STATE_DIR",
    "EMBEDDINGS_REQUEST_TIMEOUT",
    "EMBEDDINGS_DIMENSION_POLICY",
    "EMBEDDINGS_MODE",
    "EMBEDDINGS_REDIS_URL",
    "EMBEDDINGS_RATE_LIMIT",
    "EMBEDDINGS_CACHE_MAX_SIZE",
    "EMBEDDINGS_CACHE_TTL_SECONDS",
    "EMBEDDINGS_MAX_BATCH_SIZE",
    "EMBEDDINGS_UNLOAD_TIMEOUT_SECONDS",
    "EMBEDDINGS_MAX_RETRIES",
    "EMBEDDINGS_ENFORCE_POLICY",
    "EMBEDDINGS_CONNECTION_POOL_SIZE",
    "EMBEDDINGS_CACHE_CLEANUP_INTERVAL",
    "EMBEDDINGS_ALLOW_FALLBACK_WITH_HEADER",
    "EMBEDDINGS_TENANT_RPS",
    "EMBEDDINGS_TLS_CERT_FILE",
    "EMBEDDINGS_TLS_KEY_FILE",
];

/// A variable with our prefix that nobody knows is most likely a typo; others may own the prefix too, so it
/// is not an error.
fn misspelt(environment: &Environment) -> impl Iterator<Item = String> {
    environment.names().filter(|name| name.starts_with("EMBEDDINGS_") && !KNOWN.contains(name)).map(|name| {
        let nearest = KNOWN
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
        format!("{name} is not read; the nearest known variable is {}", nearest.unwrap_or(&""))
    })
}
