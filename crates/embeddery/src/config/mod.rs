//! Configuration: flag > environment > file > default, read once, checked as a whole, then plain values.
//!
//! `load` puts the four into one tree of values (`tree`), as the table of keys says (`keys`), and reads each section
//! from it (`reader`, `deserialize`) into types that carry their units (`units`). A section checks what its types
//! cannot say. To add a key: a line in embeddery.default.yaml and a field in the section's struct; a variable, a
//! change that a reload takes up, another name or a key without a default need a row in `keys`. This is the only code
//! of the product that reads the environment.

mod accounts;
mod auth;
mod collections;
mod deserialize;
mod diff;
mod environment;
mod gateway;
mod hub;
mod ignored;
mod jobs;
mod key;
mod keys;
mod load;
mod model_memory;
mod models;
mod network;
mod onnx;
mod orchestrator;
mod providers;
mod queue;
mod reader;
mod reference;
mod server;
mod traces;
mod tree;
mod units;
mod workers;
mod yaml;

use std::{
    collections::HashMap, fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration,
};

use embeddery_engine::Precision;
use embeddery_gateway::ConfiguredModel;
use embeddery_model_store::StoreConfig;
use embeddery_providers::local::ModelOptions;
use embeddery_server::{JobLimits, Settings};

pub(crate) use accounts::AccountsSettings;
pub(crate) use auth::{AuthConfig, MultiUser};
pub(crate) use collections::{CollectionsConfig, DatabaseConfig};
pub(crate) use diff::KeyFingerprints;
pub(crate) use gateway::{GatewayConfig, SecondLevelConfig};
pub(crate) use model_memory::LocalSettings;
pub(crate) use onnx::OnnxSettings;
pub(crate) use orchestrator::OrchestratorSettings;
pub(crate) use providers::ProvidersConfig;
pub(crate) use queue::QueueConfig;
pub(crate) use reference::{commented_defaults, key_tables};
pub(crate) use traces::TracesConfig;
pub(crate) use workers::WorkersConfig;

/// The validated configuration of the process.
pub(crate) struct Config {
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// Authentication, limits, quotas, usage and audit.
    pub(crate) accounts: AccountsSettings,
    /// How the API treats requests.
    pub(crate) server: Settings,
    /// Time that requests under way get after SIGTERM.
    pub(crate) shutdown_grace: Duration,
    /// What is logged, and how.
    pub(crate) log: LogConfig,
    /// Data of users, one directory for each.
    pub(crate) user_dir: PathBuf,
    /// State that belongs to no user.
    pub(crate) state_dir: PathBuf,
    /// Where models come from.
    pub(crate) store: StoreConfig,
    /// The models with an entry of their own.
    pub(crate) models: Vec<ConfiguredModel>,
    /// What those entries say of the engine's models, by model name.
    pub(crate) model_options: HashMap<Arc<str>, ModelOptions>,
    /// Graphs, and what runs them.
    pub(crate) onnx: OnnxSettings,
    /// Providers whose models are elsewhere.
    pub(crate) upstreams: ProvidersConfig,
    /// The model of a request that names none.
    pub(crate) default_model: String,
    /// Whether a request may fetch a model.
    pub(crate) auto_download: bool,
    /// Threads that compute.
    pub(crate) threads: NonZeroUsize,
    /// Tokens that may wait for one model.
    pub(crate) queue_tokens: usize,
    /// How models of this machine live in memory.
    pub(crate) local: LocalSettings,
    /// Cache, retries, breakers, policy.
    pub(crate) gateway: GatewayConfig,
    /// How exactly local models compute that have no setting of their own.
    pub(crate) precision: Precision,
    /// Where collections are kept.
    pub(crate) collections: CollectionsConfig,
    /// Where the queue of jobs is, and what holds there.
    pub(crate) queue: QueueConfig,
    /// How documents are worked on.
    pub(crate) workers: WorkersConfig,
    /// How much work may wait, and how long jobs that ended are kept.
    pub(crate) jobs: JobLimits,
    /// What `embeddery orchestrator` runs.
    pub(crate) orchestrator: OrchestratorSettings,
    /// The file that was read, if any.
    pub(crate) file: Option<PathBuf>,
    /// Its keys, to be compared with another reading.
    pub(crate) fingerprints: KeyFingerprints,
    /// Where traces go; `None`: nowhere.
    pub(crate) traces: Option<TracesConfig>,
    /// Where systemd waits to be told that the service is ready.
    pub(crate) notify_socket: Option<PathBuf>,
    /// What is accepted but has no effect, for the log.
    pub(crate) notices: Vec<String>,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// The least severe level that is shown.
    pub(crate) level: tracing::Level,
    /// JSON lines instead of text for people.
    pub(crate) json: bool,
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// `--listen`.
    pub(crate) listen: Option<String>,
}

/// Everything that is wrong, one line each: the setting's name, what is wrong with it, the fix.
#[derive(Debug)]
pub(crate) struct ConfigError(pub(crate) Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not usable:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for ConfigError {}

/// Reads flags, environment and file.
pub(crate) fn load(flags: &Flags) -> Result<Config, ConfigError> {
    load::load(flags, &environment::Environment::from_process())
}

#[cfg(test)]
mod tests_support {
    use super::*;

    /// The configuration of a file and an environment.
    pub(super) fn resolved(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load::resolve(&Flags::default(), &environment, Some("test.yaml".into()), text)
    }
}
