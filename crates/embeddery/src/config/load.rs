//! From what was written to what the program needs: defaults, file, environment and flags become one tree, each
//! section is read from it once, and every problem is reported together.

use std::path::{Path, PathBuf};

use embeddery_core::DimensionPolicy;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    AuthConfig, Config, ConfigError, Flags,
    accounts::{self, AccountsSections},
    collections::{self, CollectionsSection},
    diff::KeyFingerprints,
    environment::Environment,
    gateway::{self, GatewaySections},
    hub::HubSection,
    ignored,
    jobs::{self, JobsSection},
    keys::{self, DEFAULTS},
    model_memory::{self, EngineSection},
    models::{self, ModelsSection},
    onnx::{self, OnnxSection},
    orchestrator::{self, OrchestratorSection},
    providers::{self, OutboundSection, ProvidersSection},
    queue::{self, QueueSection, RedisSection},
    reader::SettingReader,
    server::{DimensionPolicyName, ListenAddress, LogSection, ServerSection},
    traces::{self, TracesSection},
    tree::{Node, Source},
    units::{Parsed, UnusedSeconds, filled},
    workers::WorkersSection,
    yaml,
};

/// Where a file is looked for when none is named.
const SEARCH: [&str; 3] = ["embeddery.yaml", "embeddings_config.yaml", "config/embeddings.yaml"];

/// Every key, except those of [`AccountsSections`], [`GatewaySections`] and [`OrchestratorSection`].
#[derive(Deserialize)]
struct Sections {
    default_model_id: String,
    model_storage_base_dir: PathBuf,
    models: ModelsSection,
    model_unload_timeout: UnusedSeconds,
    listen: Parsed<ListenAddress>,
    user_db_base_dir: PathBuf,
    #[serde(deserialize_with = "filled")]
    state_dir: Option<PathBuf>,
    #[serde(with = "DimensionPolicyName")]
    dimension_policy: DimensionPolicy,
    log: LogSection,
    server: ServerSection,
    engine: EngineSection,
    onnx: OnnxSection,
    hub: HubSection,
    providers: ProvidersSection,
    outbound: OutboundSection,
    collections: CollectionsSection,
    queue: QueueSection,
    workers: WorkersSection,
    jobs: JobsSection,
    #[serde(default)]
    redis: RedisSection,
    #[serde(default)]
    traces: TracesSection,
    notify_socket: Option<PathBuf>,
}

/// Finds the file and reads everything.
pub(super) fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigError> {
    let named = flags.config.clone().or_else(|| environment.get("EMBEDDINGS_CONFIG_PATH").map(PathBuf::from));
    let path = named.or_else(|| SEARCH.iter().map(PathBuf::from).find(|path| path.is_file()));
    let text = path.as_deref().map(read).transpose()?.unwrap_or_default();
    resolve(flags, environment, path, &text)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        ConfigError(vec![format!(
            "{}: cannot be read ({error}); name an existing file with --config",
            path.display()
        )])
    })
}

/// A file's values; `name` is what a problem calls the file.
pub(super) fn parse_file(text: &str, name: &str) -> Result<Node, ConfigError> {
    yaml::parse(text, |line, column| Source::File { line, column })
        .map_err(|problem| ConfigError(vec![format!("{name}{problem}")]))
}

/// The values that hold where nothing else sets them.
pub(super) fn defaults() -> Result<Node, ConfigError> {
    yaml::parse(DEFAULTS, |line, _| Source::Default { line })
        .map_err(|problem| ConfigError(vec![format!("the embedded defaults{problem}")]))
}

/// Reads the text of a file with the environment and the flags over it, and the defaults under it.
pub(super) fn resolve(
    flags: &Flags,
    environment: &Environment,
    path: Option<PathBuf>,
    text: &str,
) -> Result<Config, ConfigError> {
    let name = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let mut file = parse_file(text, &name)?;
    let fingerprints = KeyFingerprints::from_file(&file);
    let defaults = defaults()?;
    let screened = ignored::screen(&mut file, &defaults, &name);
    let mut notices = screened.notices;
    notices.extend(ignored::variables(environment));

    let mut tree = defaults.clone();
    tree.merge(file, &|path: &[&str]| keys::find(path).is_some_and(|key| key.replaces_default));
    ignored::insert_variables(&mut tree, environment);
    if let Some(listen) = &flags.listen {
        tree.insert(&["listen"], Node::scalar(listen.as_str(), Source::Flag("--listen")));
    }

    let mut reader = SettingReader::new(tree, defaults, name, screened.problems);
    let sections: Sections = reader.read()?;
    let accounts: AccountsSections = reader.read()?;
    let gateway: GatewaySections = reader.read()?;
    let orchestrator: OrchestratorSection = reader.read()?;

    let listen = sections.listen.0.0;
    // Limits and the cache know the Redis of the environment only.
    let redis_url = sections.redis.url.as_ref().filter(|_| reader.is_from_variable("redis.url"));
    let redis_url = redis_url.map(|url| SecretString::from(url.expose_secret().trim()));
    let accounts = accounts::resolve(&mut reader, accounts, listen, redis_url.clone());
    let has_several_users = matches!(accounts.auth, AuthConfig::MultiUser(_));
    let gateway = gateway::resolve(&mut reader, gateway, has_several_users, redis_url);
    let auto_download = sections.models.auto_download;
    let mut upstreams = providers::resolve(&mut reader, sections.providers, sections.outbound);
    let models = models::resolve(&mut reader, sections.models, &mut upstreams);
    let onnx = onnx::resolve(&mut reader, sections.onnx, models.graphs);
    notices.extend(onnx::warn_unused_tf32(&onnx));
    let engine = sections.engine;
    let local =
        model_memory::resolve(&reader, &engine, orchestrator.max_memory_gb, sections.model_unload_timeout);
    let user_dir = sections.user_db_base_dir;
    let threads = engine.threads.0.0;
    let collections =
        collections::resolve(&mut reader, sections.collections, (user_dir.clone(), threads.get()));
    let certificates = upstreams.outbound.certificates.as_deref();
    let queue = queue::resolve(&mut reader, sections.queue, sections.redis, certificates);
    let config = Config {
        listen,
        accounts,
        shutdown_grace: sections.server.shutdown_grace_seconds.0,
        server: sections.server.settings(sections.dimension_policy),
        log: sections.log.into(),
        state_dir: sections.state_dir.unwrap_or_else(|| user_dir.join(".embeddery")),
        user_dir,
        store: sections.hub.store(sections.model_storage_base_dir),
        models: models.configured,
        model_options: models.engine,
        onnx,
        local,
        upstreams,
        default_model: sections.default_model_id,
        auto_download,
        gateway,
        threads,
        queue_tokens: engine.queue_tokens.get(),
        precision: engine.precision.0,
        collections,
        workers: sections.workers.into(),
        jobs: jobs::resolve(&mut reader, &sections.jobs),
        queue,
        orchestrator: orchestrator::resolve(&mut reader, orchestrator, listen),
        file: path,
        fingerprints,
        traces: traces::resolve(&mut reader, sections.traces),
        notify_socket: sections.notify_socket,
        notices,
    };
    reader.finish(config)
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::resolved;

    fn problems(text: &str) -> Vec<String> {
        resolved(text, &[]).err().expect(text).0
    }

    fn problem(text: &str) -> String {
        problems(text).join("\n")
    }

    #[test]
    fn a_misspelt_key_names_the_nearest_and_the_line() {
        assert_eq!(
            problem("listen: 127.0.0.1:1\ndefualt_model_id: x\n"),
            "test.yaml, line 2 column 1: unknown key 'defualt_model_id'; did you mean 'default_model_id'?"
        );
        assert!(problem("server:\n  max_input: 3\n").contains("'max_inputs'"));
        assert!(
            problem("models:\n  a:\n    provider: openai\n    model_name_or_path: y\n    revison: z\n")
                .contains("'revision'")
        );
        let unlike = problem("qqq: 1");
        assert!(
            unlike.contains("unknown key 'qqq'; known here are audit, auth, batching, breaker,"),
            "{unlike}"
        );
        // What only the environment may set is no key, and is not suggested.
        assert!(!problem("auth: {secre: x}").contains("'secret'"));
        assert!(problem("auth: {api_key: x}").contains("unknown key 'api_key'"));
        let known = "providers: {openai: {models: {m: {dimension: 3}}}}";
        assert!(
            problem(known).contains("line 1 column 35: unknown key 'dimension'; did you mean 'dimensions'?")
        );
    }

    #[test]
    fn a_wrong_type_and_broken_yaml_say_where() {
        assert_eq!(
            problem("server:\n  max_inputs: many\n"),
            "test.yaml, line 2 column 3: server.max_inputs: 'many' is not a whole number"
        );
        assert!(problem("listen: [").starts_with("test.yaml, line"));
        assert!(
            problem("models:\n  a:\n    provider: openai\n")
                .contains("models.a: 'model_name_or_path' is missing")
        );
        assert!(problem("server: 5").contains("server: must be a section"));
        assert!(problem("policy: {allowed_models: a}").contains("policy.allowed_models: must be a list"));
    }

    #[test]
    fn all_problems_are_reported_together() {
        let text = r#"
listne: x
breaker: {failures: 0, trials: many}
models:
  a: {provider: nobody, model_name_or_path: x, precision: f31, max_length: 0}
  b: {provider: openai, fallback: [b]}
server: {cors_origins: [app, "https://a.example", web], request_timeout_seconds: -1}
queue: {lease_seconds: 0.1}
"#;
        let found = problems(text);
        let due = [
            "line 2 column 1: unknown key 'listne'",
            "breaker.failures: must be above zero",
            "breaker.trials: 'many' is not a whole number",
            "models.a.provider: 'nobody' is not a provider",
            "models.a.precision: 'f31'",
            "models.a.max_length: must be above zero",
            "models.b: 'model_name_or_path' is missing",
            "server.cors_origins: 'app' is not an origin",
            "server.cors_origins: 'web' is not an origin",
            "server.request_timeout_seconds: must be a number of seconds above zero",
            "queue.lease_seconds: must be 1 or more",
        ];
        for due in due {
            assert_eq!(found.iter().filter(|problem| problem.contains(due)).count(), 1, "{due}: {found:#?}");
        }
        assert_eq!(found.len(), due.len(), "{found:#?}");
    }

    #[test]
    fn a_variable_beats_the_file_and_the_file_the_defaults() {
        let config = resolved("log_level: warn\nserver: {max_inputs: 3}", &[("LOG_JSON", "on")]).unwrap();
        assert_eq!(
            (config.log.level, config.log.json, config.server.max_inputs),
            (tracing::Level::WARN, true, 3)
        );
        let config = resolved("log_level: warn\nlog: {level: debug}", &[("LOG_LEVEL", "error")]).unwrap();
        assert_eq!(config.log.level, tracing::Level::ERROR);
        let config = resolved("log_level: warn\nlog: {level: debug}", &[]).unwrap();
        assert_eq!((config.log.level, config.server.max_inputs), (tracing::Level::DEBUG, 2048));
    }

    #[test]
    fn both_files_of_the_guide_are_read() {
        let guide = r#"
default_model_id: hf_mpnet
model_storage_base_dir: ./models/embedding_models_data/
models:
  openai_small: {provider: openai, model_name_or_path: text-embedding-3-small}
  hf_mpnet: {provider: huggingface, model_name_or_path: sentence-transformers/all-mpnet-base-v2, trust_remote_code: false}
  onnx_minilm: {provider: onnx, model_name_or_path: sentence-transformers/all-MiniLM-L6-v2, onnx_providers: ["CPUExecutionProvider"]}
  local_api_default: {provider: local_api, model_name_or_path: nomic-embed-text, api_url: "http://localhost:11434/api/embeddings"}
redis: {url: "redis://localhost:6379"}
worker_pools: {chunking: {num_workers: 2}}
enable_autoscaling: true
"#;
        let config = resolved(guide, &[]).unwrap();
        assert_eq!(config.models.len(), 4);
        assert!(config.queue.redis.is_some() && config.orchestrator.pools.len() == 1);
        assert!(config.accounts.redis_url.is_none() && config.notices.is_empty(), "{:?}", config.notices);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["# only a comment\n", "models:\n  # nothing\n", "server:\nproviders:\n"] {
            assert!(resolved(text, &[]).unwrap().models.is_empty());
        }
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let text = "rate_limiter: {x: 1}\nmodels: {a: {provider: openai, model_name_or_path: m, onnx_file: f, truncate: 1}}\n";
        let notices =
            resolved(text, &[("EMBEDDINGS_MAX_BATCH_SIZE", "1"), ("EMBEDDINGS_LISTN", "x")]).unwrap().notices;
        assert_eq!(
            notices,
            [
                "'rate_limiter' has no effect: of the replaced service, where it did nothing",
                "models.a: this version does not read onnx_file, truncate",
                "EMBEDDINGS_MAX_BATCH_SIZE has no effect: calls are as large as each provider allows",
                "EMBEDDINGS_LISTN is not read; the nearest known variable is EMBEDDINGS_LISTEN",
            ]
        );
    }
}
