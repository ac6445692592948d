//! The configuration file as it is written. One schema for the API's model definitions and the
//! orchestrator's YAML of the deployment guide; the defaults are an embedded file of the same schema. An
//! unknown key is an error that names the nearest known one: a typo must not silently mean "default".

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    ConfigError, Written, accounts,
    environment::Environment,
    gateway, orchestrator,
    providers::{OutboundSection, Providers},
};

/// Every key with its default value and a comment.
pub(crate) const DEFAULTS: &str = include_str!("../../embeddery.default.yaml");

/// Where a file is looked for when nobody names one.
const SEARCH: [&str; 3] = ["embeddery.yaml", "embeddings_config.yaml", "config/embeddings.yaml"];

/// A configuration file; every key may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub default_model_id: Option<String>,
    pub model_storage_base_dir: Option<PathBuf>,
    pub models: Models,
    pub listen: Option<String>,
    pub user_db_base_dir: Option<PathBuf>,
    pub state_dir: Option<String>,
    pub auth: super::auth::Auth,
    pub limits: accounts::Limits,
    pub quotas: accounts::WrittenQuotas,
    pub usage: accounts::Usage,
    pub audit: accounts::Audit,
    pub tls: super::strangers::Tls,
    pub dimension_policy: Option<String>,
    pub log: Log,
    pub log_level: Option<String>,
    pub server: Server,
    pub engine: Engine,
    pub onnx: super::onnx::Section,
    pub hub: Hub,
    pub cache: gateway::Cache,
    pub retry: gateway::Retry,
    pub breaker: gateway::Breaker,
    pub upstream: gateway::Upstream,
    pub policy: gateway::PolicySection,
    pub providers: Providers,
    pub outbound: OutboundSection,
    pub collections: super::collections::Collections,
    pub queue: super::queue::Queue,
    pub workers: super::workers::Workers,
    pub jobs: super::jobs::Jobs,
    // The guide's `embeddings_config.yaml`; `orchestrator` checks it.
    pub redis: orchestrator::Redis,
    pub worker_pools: Option<BTreeMap<String, orchestrator::WrittenPool>>,
    pub enable_autoscaling: Option<bool>,
    pub enable_monitoring: Option<bool>,
    pub monitoring_port: Option<u16>,
    pub scale_up_threshold: Option<f64>,
    pub scale_down_threshold: Option<f64>,
    pub scale_check_interval: Option<f64>,
    pub max_total_workers: Option<usize>,
    pub max_memory_gb: Option<f64>,
    // Sections of the guide's files that this version reads past; `notices` says why.
    pub model_unload_timeout: Option<f64>,
    pub rate_limiter: Option<IgnoredAny>,
    pub retry_config: Option<IgnoredAny>,
    pub resources: Option<IgnoredAny>,
    pub batching: Option<IgnoredAny>,
    pub security: Option<IgnoredAny>,
    pub monitoring: Option<IgnoredAny>,
    pub default_provider: Option<IgnoredAny>,
    pub default_model: Option<IgnoredAny>,
    pub chunk_size: Option<IgnoredAny>,
    pub chunk_overlap: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub level: Option<String>,
    pub format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub request_timeout_seconds: Option<f64>,
    pub body_timeout_seconds: Option<f64>,
    pub body_limit_bytes: Option<usize>,
    pub text_limit_bytes: Option<usize>,
    pub header_limit_bytes: Option<usize>,
    pub max_inputs: Option<usize>,
    pub shutdown_grace_seconds: Option<f64>,
    pub metrics_auth: Option<bool>,
    pub max_connections: Option<usize>,
    pub trusted_proxies: Option<Vec<String>>,
    pub cors_origins: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Engine {
    pub threads: Option<usize>,
    pub precision: Option<String>,
    pub queue_tokens: Option<usize>,
    pub max_memory: Option<super::local::Bytes>,
    pub max_models: Option<usize>,
    pub memory_wait_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Hub {
    pub endpoint: Option<String>,
    pub offline: Option<bool>,
    pub min_free_bytes: Option<super::local::Bytes>,
    pub max_bytes: Option<super::local::Bytes>,
}

/// One entry of `models`: all keys of the replaced service's schema, and ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub provider: String,
    pub model_name_or_path: String,
    pub revision: Option<String>,
    pub precision: Option<String>,
    pub max_length: Option<usize>,
    pub matryoshka: Option<bool>,
    pub unload_timeout_seconds: Option<f64>,
    pub fallback: Option<OneOrMany>,
    pub allow_space_change: Option<bool>,
    // Of providers elsewhere.
    pub api_url: Option<String>,
    pub api_dialect: Option<String>,
    pub api_key: Option<SecretString>,
    pub api_keys: Option<Vec<SecretString>>,
    pub base_url: Option<String>,
    pub headers: Option<BTreeMap<String, SecretString>>,
    pub dimensions: Option<usize>,
    pub prompts: Option<BTreeMap<String, String>>,
    // Of graphs.
    pub onnx_file: Option<String>,
    pub onnx_providers: Option<Vec<String>>,
    #[expect(dead_code, reason = "accepted for the guide's files; no foreign code is ever run")]
    pub trust_remote_code: Option<IgnoredAny>,
    // Read past by this version; `notices` says why.
    pub hf_cache_dir_subpath: Option<IgnoredAny>,
    pub onnx_storage_dir_subpath: Option<IgnoredAny>,
    pub truncate: Option<IgnoredAny>,
}

/// A name, or a list of names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Vec<String> {
    fn from(names: OneOrMany) -> Self {
        match names {
            OneOrMany::One(name) => vec![name],
            OneOrMany::Many(names) => names,
        }
    }
}

/// The map `models`: entries by id, and one switch among them.
#[derive(Debug, Default)]
pub(super) struct Models {
    pub auto_download: Option<bool>,
    pub entries: Vec<(String, Model)>,
}

impl File {
    /// The sections about accounts.
    pub(super) fn take_accounts(&mut self) -> accounts::Sections {
        use std::mem::take;
        accounts::Sections {
            auth: take(&mut self.auth),
            limits: take(&mut self.limits),
            quotas: take(&mut self.quotas),
            usage: take(&mut self.usage),
            audit: take(&mut self.audit),
            tls: take(&mut self.tls),
        }
    }
}

impl<'de> Deserialize<'de> for Models {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Models;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from model ids to models")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Models, A::Error> {
                let mut models = Models::default();
                while let Some(id) = map.next_key::<String>()? {
                    if id == "auto_download" {
                        models.auto_download = Some(map.next_value()?);
                    } else {
                        models.entries.push((id, map.next_value()?));
                    }
                }
                Ok(models)
            }

            fn visit_unit<E>(self) -> Result<Models, E> {
                Ok(Models::default()) // `models:` with only comments below it
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// The file that holds, and what it says; nothing when there is none.
#[derive(Default)]
pub(super) struct FoundFile {
    pub path: Option<PathBuf>,
    pub file: File,
    pub written: Written,
}

pub(super) fn find_and_read(
    named: Option<&Path>,
    environment: &Environment,
) -> Result<FoundFile, ConfigError> {
    let named =
        named.map(Path::to_path_buf).or_else(|| environment.get("EMBEDDINGS_CONFIG_PATH").map(PathBuf::from));
    let Some(path) = named.or_else(|| SEARCH.iter().map(PathBuf::from).find(|path| path.is_file())) else {
        return Ok(FoundFile::default());
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        ConfigError(vec![format!(
            "{}: cannot be read ({error}); name an existing file with --config",
            path.display()
        )])
    })?;
    let file = parse(&text, &path.display().to_string())?;
    Ok(FoundFile { written: Written::of(&text), path: Some(path), file })
}

/// Reads a file's text; `name` is what an error calls the file.
pub(super) fn parse(text: &str, name: &str) -> Result<File, ConfigError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(File::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let place = match error.location() {
            Some(at) => format!("{name}, line {} column {}", at.line(), at.column()),
            None => name.to_owned(),
        };
        ConfigError(vec![format!("{place}: {}", explain(&error))])
    })
}

fn explain(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
            let nearest = expected
                .iter()
                .map(|known| (strsim::jaro_winkler(field, known), known))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(score, _)| *score > 0.7);
            match nearest {
                Some((_, known)) => format!("unknown key '{field}'; did you mean '{known}'?"),
                None => format!("unknown key '{field}'; known here are {}", expected.join(", ")),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        parse(text, "test.yaml").unwrap_err().0.join("\n")
    }

    #[test]
    fn a_misspelt_key_names_the_nearest_and_the_line() {
        assert_eq!(
            problem("listen: 127.0.0.1:1\ndefualt_model_id: x\n"),
            "test.yaml, line 2 column 1: unknown key 'defualt_model_id'; did you mean 'default_model_id'?"
        );
        assert!(problem("server:\n  max_input: 3\n").contains("'max_inputs'"));
        assert!(
            problem("models:\n  a:\n    provider: x\n    model_name_or_path: y\n    revison: z\n")
                .contains("'revision'")
        );
    }

    #[test]
    fn a_wrong_type_and_broken_yaml_say_where() {
        assert!(problem("server:\n  max_inputs: many\n").starts_with("test.yaml, line 2"));
        assert!(problem("listen: [").starts_with("test.yaml, line"));
        assert!(problem("models:\n  a:\n    provider: x\n").contains("model_name_or_path"));
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
        let file = parse(guide, "guide").unwrap();
        assert_eq!(file.models.entries.len(), 4);
        assert!(file.redis.url.is_some() && file.worker_pools.is_some());
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert!(parse("# only a comment\n", "t").unwrap().listen.is_none());
        assert!(parse("models:\n  # nothing\n", "t").unwrap().models.entries.is_empty());
    }
}
