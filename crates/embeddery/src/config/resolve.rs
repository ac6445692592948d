//! From what was written to what the program needs. All problems are collected and reported together: an
//! operator should not have to start a service five times to learn of five mistakes.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use embeddery_core::{DimensionPolicy, ProviderKind};
use embeddery_engine::Precision;
use embeddery_gateway::ConfiguredModel;
use embeddery_model_store::{StoreConfig, WeightsFormat};
use embeddery_providers::local::ModelOptions;
use embeddery_server::Settings;
use secrecy::SecretString;

use super::{
    AuthConfig, Config, ConfigError, Flags, LogConfig, Upstreams, accounts, collections,
    environment::{Environment, parse_bool},
    file::{DEFAULTS, File, Model, parse},
    gateway::{self, Sections},
    jobs, local,
    notices::notices,
    onnx, orchestrator, providers, queue, strangers, workers,
};

/// Everywhere a setting can come from.
pub(super) struct Sources<'a> {
    pub flags: &'a Flags,
    pub environment: &'a Environment,
    pub file: File,
    pub path: Option<PathBuf>,
}

pub(super) fn resolve(sources: Sources<'_>) -> Result<Config, ConfigError> {
    let Sources { flags, environment, mut file, path } = sources;
    let mut defaults = parse(DEFAULTS, "the embedded defaults")?;
    let mut notices = notices(&file, environment);
    let sections = (file.take_accounts(), defaults.take_accounts());
    let gateway_sections = (Sections::take(&mut file), Sections::take(&mut defaults));
    let local_sections = (local::Written::take(&mut file), local::Written::take(&mut defaults));
    let orchestrator = (orchestrator::Written::take(&mut file), orchestrator::Written::take(&mut defaults));
    let mut found = Found::new(environment);

    let listen_text = flags.listen.clone().map(|value| ("--listen", value));
    let listen = found.listen(listen_text, file.listen, defaults.listen);
    let accounts = accounts::resolve(&mut found, sections, listen);
    let several_users = matches!(accounts.auth, AuthConfig::MultiUser(_));
    let gateway = gateway::resolve(&mut found, gateway_sections, several_users);

    let user_dir = found.path("USER_DB_BASE_DIR", file.user_db_base_dir, defaults.user_db_base_dir);
    let state_dir = match environment.get("EMBEDDINGS_STATE_DIR").map(str::to_owned).or(file.state_dir) {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => user_dir.join(".embeddery"),
    };
    let base_dir = found.path(
        "EMBEDDINGS_MODEL_STORAGE_DIR",
        file.model_storage_base_dir,
        defaults.model_storage_base_dir,
    );

    let level = found.text(&["LOG_LEVEL"], "log.level", [file.log.level, file.log_level, defaults.log.level]);
    let format = found.log_format(file.log.format.or(defaults.log.format));
    let log = LogConfig { level: found.log_level(&level), json: format == "json" };

    let policy = found.text(
        &["EMBEDDINGS_DIMENSION_POLICY"],
        "dimension_policy",
        [file.dimension_policy, None, defaults.dimension_policy],
    );
    let (mut written, fallback) = (file.server, defaults.server);
    let trusted_proxies = strangers::trusted_proxies(&mut found, written.trusted_proxies.take());
    let cors_origins = strangers::cors_origins(&mut found, written.cors_origins.take());
    let mut seconds = |key, variable, written: Option<f64>, fallback: Option<f64>| {
        found.seconds(key, variable, written.or(fallback))
    };
    let request_timeout = seconds(
        "server.request_timeout_seconds",
        Some("EMBEDDINGS_REQUEST_TIMEOUT"),
        written.request_timeout_seconds,
        fallback.request_timeout_seconds,
    );
    let body_timeout = seconds(
        "server.body_timeout_seconds",
        None,
        written.body_timeout_seconds,
        fallback.body_timeout_seconds,
    );
    let shutdown_grace = seconds(
        "server.shutdown_grace_seconds",
        None,
        written.shutdown_grace_seconds,
        fallback.shutdown_grace_seconds,
    );
    let mut size =
        |key, written: Option<usize>, fallback: Option<usize>| found.size(key, written.or(fallback));
    let server = Settings {
        metrics_auth: written.metrics_auth.or(fallback.metrics_auth).unwrap_or(false),
        request_timeout,
        body_timeout,
        body_limit: size("server.body_limit_bytes", written.body_limit_bytes, fallback.body_limit_bytes),
        text_limit: size("server.text_limit_bytes", written.text_limit_bytes, fallback.text_limit_bytes),
        header_limit: size(
            "server.header_limit_bytes",
            written.header_limit_bytes,
            fallback.header_limit_bytes,
        ),
        max_inputs: size("server.max_inputs", written.max_inputs, fallback.max_inputs),
        max_connections: size("server.max_connections", written.max_connections, fallback.max_connections),
        trusted_proxies,
        cors_origins,
        tls: None,
        dimension_policy: DimensionPolicy::Reduce,
    };
    let queue_tokens = size("engine.queue_tokens", file.engine.queue_tokens, defaults.engine.queue_tokens);
    let server = Settings { dimension_policy: found.dimension_policy(&policy), ..server };
    let threads = found.threads(file.engine.threads);
    let precision = found.text(
        &["EMBEDDINGS_PRECISION"],
        "engine.precision",
        [file.engine.precision, None, defaults.engine.precision],
    );
    let precision = found.precision("EMBEDDINGS_PRECISION", &precision);

    let disk = local::disk(&file.hub, &defaults.hub);
    let store = StoreConfig {
        base_dir,
        hub_cache: hub_cache(environment),
        endpoint: found.text(
            &["HF_ENDPOINT"],
            "hub.endpoint",
            [file.hub.endpoint, None, defaults.hub.endpoint],
        ),
        token: hub_token(environment),
        offline: found
            .switch("HF_HUB_OFFLINE")
            .or(file.hub.offline)
            .or(defaults.hub.offline)
            .unwrap_or(false),
        disk,
        format: WeightsFormat::Safetensors,
    };
    let local = local::resolve(&mut found, local_sections);
    let auto_download = file.models.auto_download.or(defaults.models.auto_download).unwrap_or(true);
    let mut upstreams = providers::resolve(&mut found, file.providers, file.outbound.or(defaults.outbound));
    let (models, model_options, graphs) = found.models(file.models.entries, &mut upstreams);
    let onnx = onnx::resolve(&mut found, (file.onnx, defaults.onnx), graphs);
    notices.extend(onnx::idle_tf32(environment, &onnx));
    let default_model = file.default_model_id.or(defaults.default_model_id).unwrap_or_default();

    let collections = collections::resolve(
        &mut found,
        &file.collections,
        &defaults.collections,
        (user_dir.clone(), threads.get()),
    );

    // `redis.url` of the guide's file, when nobody says anything else.
    if environment.first(&["EMBEDDINGS_REDIS_URL", "REDIS_URL"]).is_none() {
        file.queue.redis_url = file.queue.redis_url.or(file.redis.url);
    }
    let ca = upstreams.outbound.certificates.as_deref();
    let queue = queue::resolve(&mut found, file.queue, &defaults.queue, ca);
    let workers = workers::resolve(&mut found, &file.workers, &defaults.workers);
    let jobs = jobs::resolve(&mut found, &file.jobs, &defaults.jobs);

    let traces = super::traces::resolve(&mut found);
    let orchestrator = orchestrator::resolve(&mut found, orchestrator.0, orchestrator.1, listen);
    if !found.problems.is_empty() {
        return Err(ConfigError(found.problems));
    }
    Ok(Config {
        listen,
        accounts,
        server,
        shutdown_grace,
        log,
        user_dir,
        state_dir,
        store,
        models,
        model_options,
        onnx,
        local,
        upstreams,
        default_model,
        auto_download,
        gateway,
        threads,
        queue_tokens,
        precision,
        collections,
        workers,
        jobs,
        queue,
        orchestrator,
        file: path,
        written: super::Written::default(),
        traces,
        notify_socket: environment.get("NOTIFY_SOCKET").map(PathBuf::from),
        notices,
    })
}

/// Reads settings and keeps what is wrong with them. A setting with a problem gets a harmless value, because
/// nothing is built from it.
pub(super) struct Found<'a> {
    pub(super) environment: &'a Environment,
    pub(super) problems: Vec<String>,
}

impl<'a> Found<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, problems: Vec::new() }
    }

    /// A variable's value.
    pub(super) fn variable(&self, name: &str) -> Option<&'a str> {
        self.environment.get(name)
    }

    pub(super) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// The first that is there: a variable, then the candidates in order.
    pub(super) fn text(
        &mut self,
        variables: &[&'static str],
        key: &str,
        candidates: [Option<String>; 3],
    ) -> String {
        if let Some((_, value)) = self.environment.first(variables) {
            return value.to_owned();
        }
        candidates.into_iter().flatten().next().unwrap_or_else(|| {
            self.problem(format!("{key}: has no value"));
            String::new()
        })
    }

    fn path(
        &mut self,
        variable: &'static str,
        written: Option<PathBuf>,
        fallback: Option<PathBuf>,
    ) -> PathBuf {
        self.environment.get(variable).map(PathBuf::from).or(written).or(fallback).unwrap_or_default()
    }

    pub(super) fn switch(&mut self, variable: &'static str) -> Option<bool> {
        let value = self.environment.get(variable)?;
        let parsed = parse_bool(value);
        if parsed.is_none() {
            self.problem(format!("{variable}: '{value}' is neither on nor off; write 1 or 0"));
        }
        parsed
    }

    /// A whole number that a variable holds.
    pub(super) fn number(&mut self, variable: &'static str) -> Option<usize> {
        let text = self.environment.get(variable)?;
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.problem(format!("{variable}: '{text}' is not a whole number"));
        }
        parsed
    }

    fn listen(
        &mut self,
        flag: Option<(&str, String)>,
        written: Option<String>,
        fallback: Option<String>,
    ) -> SocketAddr {
        let variable =
            self.environment.get("EMBEDDINGS_LISTEN").map(|value| ("EMBEDDINGS_LISTEN", value.to_owned()));
        let (source, text) =
            flag.or(variable).or(written.or(fallback).map(|value| ("listen", value))).unwrap_or_default();
        text.replace("localhost:", "127.0.0.1:").parse().unwrap_or_else(|_| {
            self.problem(format!(
                "{source}: '{text}' is not ADDRESS:PORT; write for example 127.0.0.1:8000 or 0.0.0.0:8000"
            ));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn log_level(&mut self, text: &str) -> tracing::Level {
        // Loguru's extra names are accepted, because the guide's users have them in their files.
        match text.to_ascii_uppercase().as_str() {
            "TRACE" => tracing::Level::TRACE,
            "DEBUG" => tracing::Level::DEBUG,
            "INFO" | "SUCCESS" => tracing::Level::INFO,
            "WARN" | "WARNING" => tracing::Level::WARN,
            "ERROR" | "CRITICAL" => tracing::Level::ERROR,
            _ => {
                self.problem(format!(
                    "LOG_LEVEL: '{text}' is unknown; write TRACE, DEBUG, INFO, WARNING or ERROR"
                ));
                tracing::Level::INFO
            }
        }
    }

    fn log_format(&mut self, written: Option<String>) -> String {
        if let Some(json) = self.switch("LOG_JSON").or_else(|| self.switch("ENABLE_JSON_LOGS")) {
            return if json { "json".into() } else { "pretty".into() };
        }
        let format = self.text(&["LOG_FORMAT"], "log.format", [written, None, None]);
        if !matches!(format.as_str(), "json" | "pretty") {
            self.problem(format!("LOG_FORMAT: '{format}' is unknown; write pretty or json"));
        }
        format
    }

    fn dimension_policy(&mut self, text: &str) -> DimensionPolicy {
        use DimensionPolicy::{Ignore, Pad, Reduce, Strict};
        [Strict, Reduce, Pad, Ignore].into_iter().find(|policy| policy.as_str() == text).unwrap_or_else(
            || {
                self.problem(format!(
                    "EMBEDDINGS_DIMENSION_POLICY: '{text}' is unknown; write strict, reduce, pad or ignore"
                ));
                Reduce
            },
        )
    }

    fn precision(&mut self, source: &str, text: &str) -> Precision {
        text.parse().unwrap_or_else(|error| {
            self.problem(format!("{source}: {error}"));
            Precision::Auto
        })
    }

    pub(super) fn seconds(
        &mut self,
        key: &str,
        variable: Option<&'static str>,
        written: Option<f64>,
    ) -> Duration {
        let from_variable = variable.and_then(|name| Some((name, self.environment.get(name)?.to_owned())));
        let (source, value) = match &from_variable {
            Some((name, text)) => (*name, text.parse().ok()),
            None => (key, written),
        };
        // A year and more is a typo, and must not overflow the clock.
        match value.filter(|seconds| (0.001..=31_536_000.0).contains(seconds)) {
            Some(seconds) => Duration::from_secs_f64(seconds),
            None => {
                self.problem(format!("{source}: must be a number of seconds above zero, for example 120"));
                Duration::ZERO
            }
        }
    }

    pub(super) fn size(&mut self, key: &str, value: Option<usize>) -> usize {
        value.filter(|size| *size > 0).unwrap_or_else(|| {
            self.problem(format!("{key}: must be above zero"));
            1
        })
    }

    fn threads(&mut self, written: Option<usize>) -> NonZeroUsize {
        let count = match self.environment.get("OMP_NUM_THREADS") {
            // OpenMP allows a list, one number per nesting level; the first is ours.
            Some(text) => match text.split(',').next().and_then(|first| first.trim().parse().ok()) {
                Some(count) => Some(count),
                None => {
                    let text = text.to_owned();
                    self.problem(format!("OMP_NUM_THREADS: '{text}' is not a number of threads"));
                    None
                }
            },
            None => written,
        };
        // The fallback respects the cgroup's CPU quota and the process' affinity.
        let available = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        count.and_then(NonZeroUsize::new).unwrap_or(available).min(MOST_THREADS)
    }

    fn models(
        &mut self,
        entries: Vec<(String, Model)>,
        upstreams: &mut Upstreams,
    ) -> (Vec<ConfiguredModel>, Options, Options) {
        let (mut models, mut ids) = (Vec::new(), HashSet::new());
        let (mut options, mut graphs) = (HashMap::new(), HashMap::new());
        let mut elsewhere = providers::Entries::new(upstreams);
        for (id, mut entry) in entries {
            if !ids.insert(id.clone()) {
                self.problem(format!("models.{id}: is there twice"));
            }
            let Ok(provider) = entry.provider.parse::<ProviderKind>().map_err(|error| {
                self.problem(format!("models.{id}.provider: {error}"));
            }) else {
                continue;
            };
            if entry.model_name_or_path.trim().is_empty() {
                self.problem(format!("models.{id}.model_name_or_path: is empty"));
            }
            if entry.max_length == Some(0) {
                self.problem(format!("models.{id}.max_length: must be above zero"));
            }
            let model = elsewhere.add(self, (&id, provider), &mut entry);
            let of_provider = match provider {
                ProviderKind::HuggingFace => Some(&mut options),
                ProviderKind::Onnx => Some(&mut graphs),
                _ => None,
            };
            if let Some(of_provider) = of_provider {
                of_provider.insert(Arc::clone(&model.name), self.local_options(&id, &mut entry));
            }
            let fallback = entry.fallback.map(Vec::from).unwrap_or_default();
            gateway::check_fallbacks(self, &id, &fallback);
            let allow_space_change = entry.allow_space_change.unwrap_or(false);
            models.push(ConfiguredModel {
                fallback,
                allow_space_change,
                ..ConfiguredModel::new(id, provider, model)
            });
        }
        (models, options, graphs)
    }

    /// What an entry says of a model on this machine.
    fn local_options(&mut self, id: &str, entry: &mut Model) -> ModelOptions {
        let precision = entry.precision.take();
        let key = format!("models.{id}.unload_timeout_seconds");
        let unload_after = entry.unload_timeout_seconds;
        ModelOptions {
            max_length: entry.max_length.and_then(NonZeroUsize::new),
            precision: precision.map(|text| self.precision(&format!("models.{id}.precision"), &text)),
            prompts: entry.prompts.take().unwrap_or_default(),
            matryoshka: entry.matryoshka.unwrap_or(false),
            unload_after: unload_after.map(|seconds| local::timeout(self, &key, Some(seconds))),
            onnx_file: onnx::file(self, id, entry.onnx_file.take()),
            onnx_providers: onnx::providers(
                self,
                &format!("models.{id}.onnx_providers"),
                entry.onnx_providers.take(),
            ),
        }
    }
}

/// What configuration says of local models, by name.
type Options = HashMap<Arc<str>, ModelOptions>;

/// More would only be a typo.
const MOST_THREADS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// The hub's cache of other tools, where we look before we fetch.
fn hub_cache(environment: &Environment) -> Option<PathBuf> {
    environment.get("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(hub_home(environment)?.join("hub")))
}

/// HF_TOKEN, or what `hf auth login` has stored.
fn hub_token(environment: &Environment) -> Option<SecretString> {
    let stored = || {
        let path = environment
            .get("HF_TOKEN_PATH")
            .map(PathBuf::from)
            .or_else(|| Some(hub_home(environment)?.join("token")))?;
        std::fs::read_to_string(path).ok()
    };
    let token = environment
        .first(&["HF_TOKEN", "HUGGINGFACE_API_KEY"])
        .map(|(_, token)| token.to_owned())
        .or_else(stored)?;
    let token = token.trim();
    (!token.is_empty()).then(|| SecretString::from(token.to_owned()))
}

fn hub_home(environment: &Environment) -> Option<PathBuf> {
    if let Some(home) = environment.get("HF_HOME") {
        return Some(PathBuf::from(home));
    }
    let cache = environment
        .get("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| Path::new(home).join(".cache")))?;
    Some(cache.join("huggingface"))
}
