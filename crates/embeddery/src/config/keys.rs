//! The table of keys: environment variables, other names, keys without effect, and what a reload takes up.
//!
//! The defaults file lists every plain key with its value; a key needs a row here only if something else is to be
//! said of it. A key that has neither a default nor a row is unknown and stops the start.

use embeddery_core::ProviderKind::{
    self, Cohere, Google, HuggingFace, LocalApi, Mistral, Onnx, OpenAi, Voyage,
};

use super::key::{Key, Relation, alias, environment_only, ignored, key};

/// Every key with its default value and a comment.
pub(crate) const DEFAULTS: &str = include_str!("../../embeddery.default.yaml");

const RETIRED: &str = "of the replaced service, where it did nothing";
const CHUNKING: &str = "a job says how its texts are cut";
const MODEL: &str = "a job says its model, or has default_model_id";
const PREFIX: &str = "queues are named by queue.prefix";

/// Providers whose models run in this process.
const IN_PROCESS: &[ProviderKind] = &[HuggingFace, Onnx];
/// Providers whose models run elsewhere.
const REMOTE: &[ProviderKind] = &[OpenAi, Cohere, Google, Mistral, Voyage, LocalApi];
/// Providers whose models are not ONNX graphs.
const NOT_ONNX: &[ProviderKind] = &[OpenAi, Cohere, Google, Mistral, Voyage, LocalApi, HuggingFace];

/// One row for each key that is more than a default value and a field.
pub(super) const KEYS: &[Key] = &[
    // The process.
    environment_only("", &["EMBEDDINGS_CONFIG_PATH"]),
    environment_only("", &["EMBEDDINGS_MODE"]),
    environment_only("notify_socket", &["NOTIFY_SOCKET"]),
    key("listen").variables(&["EMBEDDINGS_LISTEN"]),
    key("user_db_base_dir").variables(&["USER_DB_BASE_DIR"]),
    key("state_dir").variables(&["EMBEDDINGS_STATE_DIR"]),
    key("log.level").variables(&["LOG_LEVEL"]).live(),
    alias("log_level", "log.level").live(),
    key("log.format").variables(&["LOG_FORMAT"]),
    environment_only("log.json", &["LOG_JSON", "ENABLE_JSON_LOGS"]),
    environment_only("traces.endpoint", &["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    environment_only("traces.traces_endpoint", &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]),
    environment_only("traces.protocol", &["OTEL_EXPORTER_OTLP_PROTOCOL"]),
    environment_only("traces.headers", &["OTEL_EXPORTER_OTLP_HEADERS"]).secret(),
    environment_only("traces.service", &["OTEL_SERVICE_NAME"]),
    // Callers.
    key("auth").live(),
    key("auth.mode").variables(&["AUTH_MODE"]).restart(),
    environment_only("auth.api_key", &["SINGLE_USER_API_KEY", "API_KEY"]).secret(),
    environment_only("auth.secret", &["JWT_SECRET_KEY"]).secret(),
    environment_only("auth.previous_secret", &["JWT_SECONDARY_SECRET"]).secret(),
    environment_only("auth.public_key", &["JWT_PUBLIC_KEY"]),
    key("auth.algorithm").variables(&["JWT_ALGORITHM"]),
    key("auth.public_key_file").variables(&["JWT_PUBLIC_KEY_FILE"]),
    key("auth.jwks_file").variables(&["JWT_JWKS_FILE"]),
    key("auth.issuer").variables(&["JWT_ISSUER"]),
    key("auth.audience").variables(&["JWT_AUDIENCE"]),
    key("auth.revoked_file").variables(&["JWT_REVOKED_FILE"]),
    key("limits").live(),
    key("limits.enabled").variables(&["EMBEDDINGS_RATE_LIMIT"]),
    environment_only("limits.tenant_rps", &["EMBEDDINGS_TENANT_RPS"]),
    key("quotas").live(),
    key("tls").live(),
    key("tls.certificate_file").variables(&["EMBEDDINGS_TLS_CERT_FILE"]),
    key("tls.key_file").variables(&["EMBEDDINGS_TLS_KEY_FILE"]),
    key("server").live(),
    key("server.request_timeout_seconds").variables(&["EMBEDDINGS_REQUEST_TIMEOUT"]),
    key("server.shutdown_grace_seconds").restart(),
    key("server.max_connections").restart(),
    key("dimension_policy").variables(&["EMBEDDINGS_DIMENSION_POLICY"]).live(),
    // Models.
    key("default_model_id").live(),
    key("model_storage_base_dir").variables(&["EMBEDDINGS_MODEL_STORAGE_DIR"]),
    key("model_unload_timeout").variables(&["EMBEDDINGS_UNLOAD_TIMEOUT_SECONDS"]),
    alias("worker_pools.embedding.model_unload_timeout", "model_unload_timeout"),
    key("models").live(),
    key("models.auto_download").restart(),
    key("models.*.provider"),
    key("models.*.model_name_or_path"),
    key("models.*.revision"),
    key("models.*.fallback"),
    key("models.*.allow_space_change"),
    key("models.*.max_length").restart(),
    key("models.*.prompts").restart(),
    key("models.*.matryoshka").restart(),
    key("models.*.hf_cache_dir_subpath").unused_by(&ProviderKind::ALL),
    key("models.*.onnx_storage_dir_subpath").unused_by(&ProviderKind::ALL),
    key("models.*.precision").restart().unused_by(&[Onnx]),
    key("models.*.unload_timeout_seconds").restart().unused_by(REMOTE),
    key("models.*.onnx_file").restart().unused_by(NOT_ONNX),
    key("models.*.onnx_providers").unused_by(NOT_ONNX),
    key("models.*.api_url").unused_by(IN_PROCESS),
    key("models.*.api_dialect").unused_by(IN_PROCESS),
    key("models.*.api_key").unused_by(IN_PROCESS).secret(),
    key("models.*.api_keys").unused_by(IN_PROCESS).secret(),
    key("models.*.base_url").unused_by(IN_PROCESS),
    key("models.*.headers").unused_by(IN_PROCESS).secret(),
    key("models.*.dimensions").unused_by(IN_PROCESS),
    key("models.*.truncate").unused_by(&ProviderKind::ALL),
    ignored("models.*.trust_remote_code", ""), // No foreign code is ever run.
    key("engine.threads").variables(&["OMP_NUM_THREADS"]),
    key("engine.precision").variables(&["EMBEDDINGS_PRECISION"]),
    alias("worker_pools.embedding.max_model_cache_size", "engine.max_models"),
    key("onnx.library").variables(&["ORT_DYLIB_PATH"]),
    environment_only("onnx.allow_tf32", &["CUDA_ALLOW_TF32"]),
    key("hub.endpoint").variables(&["HF_ENDPOINT"]),
    key("hub.offline").variables(&["HF_HUB_OFFLINE"]),
    environment_only("hub.token", &["HF_TOKEN", "HUGGINGFACE_API_KEY"]).secret(),
    environment_only("hub.token_file", &["HF_TOKEN_PATH"]),
    environment_only("hub.cache_dir", &["HF_HUB_CACHE"]),
    environment_only("hub.home", &["HF_HOME"]),
    environment_only("hub.user_cache_dir", &["XDG_CACHE_HOME"]),
    environment_only("hub.user_home", &["HOME"]),
    // Requests to providers.
    key("cache.enabled"),
    key("cache.max_size").variables(&["EMBEDDINGS_CACHE_MAX_SIZE"]),
    alias("cache.max_entries", "cache.max_size"),
    key("cache.ttl_seconds").variables(&["EMBEDDINGS_CACHE_TTL_SECONDS"]),
    alias("cache.ttl", "cache.ttl_seconds"),
    ignored("cache.cleanup", ""), // Cached vectors end by themselves.
    ignored("cache.cleanup_interval", ""),
    key("retry").live(),
    key("retry.max_retries").variables(&["EMBEDDINGS_MAX_RETRIES"]),
    key("retry.max_wait_seconds").restart(),
    key("upstream.concurrency").variables(&["EMBEDDINGS_CONNECTION_POOL_SIZE"]),
    key("policy").live(),
    key("policy.enforce").variables(&["EMBEDDINGS_ENFORCE_POLICY"]),
    key("policy.allowed_providers").variables(&["ALLOWED_EMBEDDING_PROVIDERS"]),
    key("policy.allowed_models").variables(&["ALLOWED_EMBEDDING_MODELS"]),
    key("providers").live().ignored_list("list models under `models`, each with its provider"),
    environment_only("providers.openai.environment_keys", &["OPENAI_API_KEY"]).secret(),
    environment_only("providers.cohere.environment_keys", &["COHERE_API_KEY"]).secret(),
    environment_only("providers.google.environment_keys", &["GOOGLE_API_KEY"]).secret(),
    environment_only("providers.mistral.environment_keys", &["MISTRAL_API_KEY"]).secret(),
    environment_only("providers.voyage.environment_keys", &["VOYAGE_API_KEY"]).secret(),
    environment_only("providers.local_api.environment_keys", &["LOCAL_API_KEY"]).secret(),
    // The second and third are the replaced service's.
    key("providers.openai.base_url").variables(&[
        "OPENAI_BASE_URL",
        "OPENAI_API_BASE_URL",
        "OPENAI_API_BASE",
    ]),
    key("providers.cohere.base_url").variables(&["COHERE_BASE_URL"]),
    key("providers.google.base_url").variables(&["GOOGLE_BASE_URL"]),
    key("providers.mistral.base_url").variables(&["MISTRAL_BASE_URL"]),
    key("providers.voyage.base_url").variables(&["VOYAGE_BASE_URL"]),
    key("providers.local_api.base_url").variables(&["LOCAL_API_BASE_URL", "LOCAL_API_URL"]),
    key("providers.*.api_dialect"),
    key("providers.*.api_key").secret(),
    key("providers.*.api_keys").secret(),
    key("providers.*.headers").secret(),
    key("providers.*.limits"),
    key("providers.*.models"),
    key("outbound").live(),
    key("outbound.proxy").variables(&["EMBEDDINGS_PROXY"]).secret(),
    key("outbound.no_proxy").variables(&["EMBEDDINGS_NO_PROXY"]),
    key("outbound.ca_file").variables(&["EMBEDDINGS_CA_FILE"]),
    // Collections, jobs, workers.
    environment_only("collections.database_url", &["DATABASE_URL"]).secret(),
    key("redis.url").variables(&["EMBEDDINGS_REDIS_URL", "REDIS_URL"]).secret(),
    ignored("redis.max_connections", "one connection carries all commands"),
    ignored("redis.decode_responses", "one connection carries all commands"),
    key("queue.redis_url").variables(&["EMBEDDINGS_QUEUE_REDIS_URL"]).secret(),
    key("queue.ca_file"),
    environment_only("queue.dead_letter_key", &["EMBEDDINGS_DLQ_ENCRYPTION_KEY"]).secret(),
    key("monitoring_port").variables(&["PROMETHEUS_PORT"]),
    key("max_memory_gb"),
    key("worker_pools").replaces_default(),
    key("worker_pools.*.worker_type"),
    key("worker_pools.*.num_workers"),
    key("worker_pools.*.batch_size"),
    key("worker_pools.*.max_retries"),
    key("worker_pools.*.shutdown_timeout"),
    ignored("worker_pools.*.max_model_cache_size", ""),
    ignored("worker_pools.*.model_unload_timeout", ""),
    // Of the replaced service.
    ignored("worker_pools.*.queue_name", PREFIX),
    ignored("worker_pools.*.consumer_group", PREFIX),
    ignored("worker_pools.*.poll_interval_ms", "workers are woken, they do not poll"),
    ignored("worker_pools.*.heartbeat_interval", "a worker beats three times a queue.lease_seconds"),
    ignored("worker_pools.*.metrics_interval", "metrics are read when Prometheus asks"),
    ignored("worker_pools.*.default_chunk_size", CHUNKING),
    ignored("worker_pools.*.default_overlap", CHUNKING),
    ignored("worker_pools.*.default_model_provider", MODEL),
    ignored("worker_pools.*.default_model_name", MODEL),
    ignored("worker_pools.*.chroma_batch_size", RETIRED),
    ignored("worker_pools.*.transaction_timeout", RETIRED),
    ignored("worker_pools.*.gpu_allocation", "there is no GPU path in this version"),
    ignored("rate_limiter", RETIRED),
    ignored("retry_config", RETIRED),
    ignored("resources", RETIRED),
    ignored("batching", "batches form by themselves"),
    ignored("security", RETIRED),
    ignored("monitoring", RETIRED),
    ignored("default_provider", "set default_model_id"),
    ignored("default_model", "set default_model_id"),
    ignored("chunk_size", CHUNKING),
    ignored("chunk_overlap", CHUNKING),
    ignored("", "calls are as large as each provider allows").variables(&["EMBEDDINGS_MAX_BATCH_SIZE"]),
    ignored("", "cached vectors end by themselves").variables(&["EMBEDDINGS_CACHE_CLEANUP_INTERVAL"]),
    ignored("", "a request that names a provider means it")
        .variables(&["EMBEDDINGS_ALLOW_FALLBACK_WITH_HEADER"]),
];

/// The row of exactly this path. A row that names it comes before one with `*`.
pub(super) fn find(path: &[&str]) -> Option<&'static Key> {
    let is_general = |key: &&Key| key.path.contains('*');
    KEYS.iter().filter(|key| key.relation(path) == Relation::Same).min_by_key(is_general)
}

/// Whether a running process takes up a change of this key: what its row says, or the nearest above it.
pub(super) fn is_live(path: &[&str]) -> bool {
    KEYS.iter()
        .filter(|key| key.live.is_some() && matches!(key.relation(path), Relation::Same | Relation::Below))
        .max_by_key(|key| key.names().len())
        .and_then(|key| key.live)
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_more_special_than_its_section() {
        for path in [["auth", "issuer"], ["server", "max_inputs"], ["log", "level"], ["limits", "burst"]] {
            assert!(is_live(&path), "{path:?}");
        }
        for path in
            [["auth", "mode"], ["models", "auto_download"], ["log", "format"], ["retry", "max_wait_seconds"]]
        {
            assert!(!is_live(&path), "{path:?}");
        }
        assert!(is_live(&["models", "a", "fallback"]) && is_live(&["providers", "openai", "api_key"]));
        assert!(!is_live(&["models", "x.y", "prompts", "query"]) && !is_live(&["limitsx"]));
    }

    #[test]
    fn a_path_and_a_variable_have_one_row() {
        for (index, key) in KEYS.iter().enumerate() {
            let others = &KEYS[index + 1..];
            assert!(key.path.is_empty() || others.iter().all(|other| other.path != key.path), "{}", key.path);
            for variable in key.variables {
                assert!(others.iter().all(|other| !other.variables.contains(variable)), "{variable}");
            }
            if let super::super::key::Usage::Alias(target) = key.usage {
                assert!(
                    find(&target.split('.').collect::<Vec<_>>()).is_some() || target == "engine.max_models"
                );
            }
        }
    }
}
