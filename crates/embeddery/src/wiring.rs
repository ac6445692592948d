//! From configuration to a running program's parts: who depends on whom is decided here and nowhere else.

use std::sync::Arc;

use anyhow::Context as _;
use embeddery_accounts::{
    Accounts, AccountsConfig, AuditConfig, Auth, Limiter,
    auth::TokenVerifier,
    ledger::{LedgerConfig, Prices},
};
use embeddery_core::{ModelSource, Provider, ProviderKind, RateListener};
use embeddery_database::redis::RedisAddress;
use embeddery_gateway::{
    BreakerRegistry, GatewayCollector, LoadedModelsCollector, Metrics, ModelSelector, PersistentCache,
    RedisCache, Router, RouterConfig, SqliteCache, TokenDecoder, UpstreamLimiters, VectorCache, VendorModel,
};
use embeddery_model_store::{ModelStore, StoreConfig};
use embeddery_pipeline::{JobStore, PostgresJobs, SqliteJobs, SqliteJobsConfig};
use embeddery_providers::{
    HttpClient, Vendor, VendorConfig,
    local::{Local, LocalConfig, MemoryBudget, ResourcesConfig, SharedResources},
    onnx::{OnnxRuntime, RuntimeConfig, onnx},
};
use embeddery_server::{AdminControls, App, Collections, Jobs, ServerMetrics, Settings, Tls};
use embeddery_store::{PostgresConfig, PostgresMetrics, PostgresStore, SqliteStore, VectorStore};
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    config::{AuthConfig, Config, ConfigError, DatabaseConfig, MultiUser, SecondLevelConfig},
    model_metrics::ModelMemory,
    pipeline_setup::PipelineHandles,
    process_metrics,
    stack::Layers,
};

/// The store of model directories.
pub(crate) fn model_store(config: &Config) -> anyhow::Result<Arc<ModelStore>> {
    Ok(Arc::new(ModelStore::new(config.store.clone())?))
}

/// The store of directories with a graph.
pub(crate) fn graph_store(config: &Config) -> anyhow::Result<Arc<ModelStore>> {
    let store = StoreConfig { format: config.onnx.format(), ..config.store.clone() };
    Ok(Arc::new(ModelStore::new(store)?))
}

/// Where collections are kept.
pub(crate) fn vector_store(config: &Config, registry: &mut Registry) -> anyhow::Result<Arc<dyn VectorStore>> {
    let Some(database) = &config.collections.database else {
        return Ok(Arc::new(SqliteStore::new(config.collections.embedded.clone())));
    };
    let store = PostgresStore::new(&postgres(database));
    let store = store.map_err(|error| ConfigError(vec![format!("DATABASE_URL: {error}")]))?;
    Ok(Arc::new(store.with_metrics(PostgresMetrics::new(registry))))
}

/// Where the truth about jobs is kept.
pub(crate) fn job_store(config: &Config) -> anyhow::Result<Arc<dyn JobStore>> {
    let Some(database) = &config.collections.database else {
        let embedded = SqliteJobsConfig {
            path: config.state_dir.join("jobs.db"),
            min_free_bytes: config.collections.embedded.min_free_bytes,
        };
        return Ok(Arc::new(SqliteJobs::open(embedded).map_err(anyhow::Error::msg)?));
    };
    let store = PostgresJobs::new(&postgres(database));
    Ok(Arc::new(store.map_err(|error| ConfigError(vec![format!("DATABASE_URL: {error}")]))?))
}

fn postgres(database: &DatabaseConfig) -> PostgresConfig {
    PostgresConfig {
        url: database.url.expose_secret().to_owned(),
        connections: database.connections,
        timeout: database.timeout,
    }
}

/// What /metrics shows of every process of ours; the parts of one add their families.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    process_metrics::register(&mut registry);
    registry
}

/// The API with everything behind it. `key` is the one key of single_user mode.
pub(crate) fn app(
    config: &Config,
    key: &SecretString,
    mut registry: Registry,
) -> anyhow::Result<(App, ProcessState)> {
    let http_metrics = ServerMetrics::new(&mut registry);
    let (router, lasting) = router(config, &mut registry)?;
    let PipelineHandles { jobs: store, queue } = PipelineHandles::open(config)?;
    store.metrics().register(&mut registry);
    let collections = Collections::new(vector_store(config, &mut registry)?);
    let app = App {
        router,
        controls: lasting.controls(),
        accounts: accounts(config, key)?,
        settings: settings(config)?,
        collections,
        jobs: Jobs { store, queue, limits: config.jobs },
        registry: Arc::new(registry),
        traced: config.traces.is_some(),
        http_metrics,
        reloads: None,
    };
    Ok((app, lasting))
}

/// The same API by a configuration that was read anew: what lasts is shared, what is not as it should be is an error and
/// changes nothing.
pub(crate) fn rebuild_app(
    (app, lasting): (&App, &ProcessState),
    (old, new): (&Config, &Config),
    key: &SecretString,
) -> anyhow::Result<App> {
    let router = lasting.router(new)?;
    let several = |config: &Config| matches!(config.accounts.auth, AuthConfig::MultiUser(_));
    // One key or tokens: that is decided when the process starts.
    let auth =
        if several(old) == several(new) { Arc::new(auth(new, key)?) } else { Arc::clone(&app.accounts.auth) };
    let rates = (&old.accounts.rates, &new.accounts.rates);
    // Buckets keep their level as long as the rates are the same.
    let limiter =
        if rates.0 == rates.1 { Arc::clone(&app.accounts.limiter) } else { Arc::new(limiter(new)?) };
    let settings = settings(new)?;
    // From here on nothing can fail.
    app.router.replace_with(&router);
    app.accounts.ledger.update_limits(new.accounts.quotas, prices(new));
    let accounts = Accounts { auth, limiter, ..app.accounts.clone() };
    Ok(App { accounts, settings, ..app.clone() })
}

/// How the API treats requests.
fn settings(config: &Config) -> anyhow::Result<Settings> {
    let mut settings = config.server.clone();
    if let Some((certificate, key)) = &config.accounts.tls {
        settings.tls = Some(Tls::from_files(certificate, key).map_err(|error| problem("tls", &error))?);
    }
    Ok(settings)
}

/// What lasts as long as the process: models in memory, cache, breakers, governors, metrics.
pub(crate) struct ProcessState {
    local: Arc<Local>,
    graphs: Arc<Local>,
    layers: Layers,
}

/// Who serves models, and what of that lasts.
pub(crate) fn router(
    config: &Config,
    registry: &mut Registry,
) -> anyhow::Result<(Arc<Router>, ProcessState)> {
    let source: Arc<dyn ModelSource> = model_store(config)?;
    let machine = machine(config)?;
    registry.register_collector(Box::new(ModelMemory(Arc::clone(machine.memory()))));
    let models = config.model_options.clone();
    let auto_download = config.auto_download;
    let of_machine = Arc::clone(&machine);
    let local =
        Local::new(LocalConfig { resources: machine, source, auto_download, models }, config.precision);
    let graphs = graphs(config, of_machine)?;

    let metrics = Metrics::new(registry);
    let layers = layers(config, &metrics)?;
    registry.register_collector(Box::new(GatewayCollector {
        breakers: Arc::clone(&layers.breakers),
        cache: layers.cache.clone(),
    }));
    let lasting = ProcessState { local: Arc::new(local), graphs: Arc::new(graphs), layers };
    let router = Arc::new(lasting.router(config)?);
    registry.register_collector(Box::new(LoadedModelsCollector(Arc::clone(&router))));
    Ok((router, lasting))
}

impl ProcessState {
    /// What an administrator may look at and change.
    pub(crate) fn controls(&self) -> AdminControls {
        AdminControls { breakers: Arc::clone(&self.layers.breakers), cache: self.layers.cache.clone() }
    }

    /// Who serves models, by this configuration.
    fn router(&self, config: &Config) -> anyhow::Result<Router> {
        let vendors = vendors(config, &self.layers.upstream_limiters)?;
        let vendor_models = vendor_models(config, &vendors);
        let mut providers: Vec<Arc<dyn Provider>> =
            vec![Arc::clone(&self.local) as Arc<dyn Provider>, Arc::clone(&self.graphs) as _];
        providers.extend(vendors.into_iter().map(|vendor| vendor as Arc<dyn Provider>));
        let gateway = &config.gateway;
        let layers = Layers {
            retry: gateway.retry.clone(),
            attempt_timeout: gateway.attempt_timeout,
            ..self.layers.clone()
        };
        let router = Router::new(RouterConfig {
            providers,
            models: config.models.clone(),
            vendor_models,
            default_model: config.default_model.clone(),
            decoder: Arc::clone(&layers.decoder),
            metrics: layers.metrics.clone(),
            stack: Arc::new(layers),
            policy: gateway.policy.clone(),
        });
        check_names(&router, config)?;
        Ok(router)
    }
}

/// The provider of graphs, whose models lie in a store of their own kind.
fn graphs(config: &Config, machine: Arc<SharedResources>) -> anyhow::Result<Local> {
    let local = LocalConfig {
        resources: machine,
        source: graph_store(config)?,
        auto_download: config.auto_download,
        models: config.onnx.models.clone(),
    };
    Ok(onnx(local, onnx_runtime(config), config.onnx.providers.clone()))
}

/// ONNX Runtime, which is loaded when something needs it.
pub(crate) fn onnx_runtime(config: &Config) -> Arc<OnnxRuntime> {
    OnnxRuntime::new(RuntimeConfig {
        libraries: config.onnx.libraries.clone(),
        threads: config.threads,
        allow_tf32: config.onnx.allow_tf32,
    })
}

/// What models that run in this process share.
fn machine(config: &Config) -> anyhow::Result<Arc<SharedResources>> {
    SharedResources::new(ResourcesConfig {
        threads: config.threads,
        memory: MemoryBudget::new(config.local.limits, config.local.patience),
        queue_tokens: config.queue_tokens,
        unload_after: config.local.unload_after,
    })
    .map_err(anyhow::Error::msg)
    .context("starting the engine")
}

/// What the wrappers of all models share.
fn layers(config: &Config, metrics: &Metrics) -> anyhow::Result<Layers> {
    let second = match (&config.gateway.cache, &config.gateway.second_level) {
        (Some(_), Some(level)) => Some(persistent_cache(level, config)?),
        _ => None,
    };
    let config = &config.gateway;
    let governor = config.governor;
    Ok(Layers {
        metrics: metrics.clone(),
        cache: config.cache.map(|cache| Arc::new(VectorCache::new(cache, second))),
        scope: config.scope,
        decoder: Arc::new(TokenDecoder::new(config.token_encoding)),
        retry: config.retry.clone(),
        breakers: Arc::new(BreakerRegistry::new(config.breaker)),
        upstream_limiters: Arc::new(UpstreamLimiters::new(|_| governor)),
        attempt_timeout: config.attempt_timeout,
        parallel: governor.concurrency,
    })
}

fn persistent_cache(kind: &SecondLevelConfig, config: &Config) -> anyhow::Result<Arc<dyn PersistentCache>> {
    Ok(match kind {
        SecondLevelConfig::Sqlite(max_bytes) => {
            let path = config.state_dir.join("cache.sqlite");
            Arc::new(SqliteCache::open(&path, *max_bytes).context("opening the persistent cache")?)
        }
        SecondLevelConfig::Redis(url) => {
            let cache = RedisCache::new(&redis_address(config, url));
            Arc::new(cache.map_err(|error| problem("REDIS_URL", &error))?)
        }
    })
}

/// The Redis of rate limits and the cache: their own URL, with the prefix and the certificates of the queue.
fn redis_address(config: &Config, url: &SecretString) -> RedisAddress {
    match &config.queue.redis {
        Some(queue) => RedisAddress { url: url.clone(), ..queue.address.clone() },
        None => RedisAddress::new(url.clone()),
    }
}

/// The models that configuration names for others must be models that requests could name.
fn check_names(router: &Router, config: &Config) -> Result<(), ConfigError> {
    let problem = |key: String, name: Option<&str>| {
        let resolved = router.resolve(ModelSelector { model: name, provider: None });
        resolved.err().map(|error| format!("{key}: {error}"))
    };
    let default = problem("default_model_id".into(), None);
    let fallbacks = config.models.iter().flat_map(|entry| {
        entry.fallback.iter().filter_map(|name| problem(format!("models.{}.fallback", entry.id), Some(name)))
    });
    let problems: Vec<String> = default.into_iter().chain(fallbacks).collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
}

/// Every provider whose models are elsewhere. Those without a key are here, too: they say what is missing.
fn vendors(config: &Config, governors: &Arc<UpstreamLimiters>) -> anyhow::Result<Vec<Arc<Vendor>>> {
    let sender = Arc::new(HttpClient::new(&config.upstreams.outbound).map_err(anyhow::Error::msg)?);
    let vendors = config.upstreams.vendors.iter().map(|upstream| {
        Vendor::new(VendorConfig {
            kind: upstream.kind,
            endpoint: upstream.access.clone(),
            models: upstream.models.clone(),
            catalogue: Arc::clone(&config.upstreams.catalogue),
            client: Arc::clone(&sender),
            listener: Some(Arc::clone(governors) as Arc<dyn RateListener>),
        })
        .map(Arc::new)
        .map_err(anyhow::Error::msg)
    });
    vendors.collect()
}

/// The models that vendors are known for.
fn vendor_models(config: &Config, vendors: &[Arc<Vendor>]) -> Vec<VendorModel> {
    let usable = |kind| vendors.iter().any(|vendor| vendor.kind() == kind && vendor.is_usable());
    let known = config.upstreams.catalogue.vendor_models();
    known
        .map(|(provider, name)| VendorModel { provider, name: name.into(), listed: usable(provider) })
        .collect()
}

/// Who may ask, how much, and what it cost.
fn accounts(config: &Config, key: &SecretString) -> anyhow::Result<Accounts> {
    let settings = &config.accounts;
    let ledger = ledger(config);
    let audit = AuditConfig {
        path: config.state_dir.join("audit.jsonl"),
        max_bytes: settings.audit_max_bytes,
        keep: settings.audit_keep,
    };
    let (auth, limiter) = (auth(config, key)?, limiter(config)?);
    Ok(Accounts::open(AccountsConfig { auth, limiter, ledger, audit })?)
}

/// Where usage is kept, what everybody may have, and what it costs.
pub(crate) fn ledger(config: &Config) -> LedgerConfig {
    LedgerConfig {
        path: config.state_dir.join("usage.sqlite3"),
        quotas: config.accounts.quotas,
        retention_days: config.accounts.retention_days,
        prices: prices(config),
    }
}

fn auth(config: &Config, key: &SecretString) -> anyhow::Result<Auth> {
    Ok(match &config.accounts.auth {
        AuthConfig::SingleUser(_) => Auth::single(key),
        AuthConfig::MultiUser(multi) => Auth::tokens(tokens(multi)?),
    })
}

fn limiter(config: &Config) -> anyhow::Result<Limiter> {
    let settings = &config.accounts;
    Ok(match &settings.redis_url {
        Some(url) if settings.rates.requests.is_some() => {
            Limiter::in_redis(settings.rates, &redis_address(config, url))
                .map_err(|error| problem("REDIS_URL", &error))?
        }
        _ => Limiter::in_memory(settings.rates),
    })
}

fn prices(config: &Config) -> Arc<dyn Prices> {
    let catalogue = Arc::clone(&config.upstreams.catalogue);
    Arc::new(move |provider: ProviderKind, model: &str| catalogue.price(provider, model))
}

/// The check of tokens; a key file that cannot be used is a mistake in the configuration.
pub(crate) fn tokens(multi: &MultiUser) -> anyhow::Result<TokenVerifier> {
    Ok(TokenVerifier::load(multi.tokens.clone()).map_err(|error| problem("auth", &error))?)
}

fn problem(setting: &str, error: &str) -> ConfigError {
    ConfigError(vec![format!("{setting}: {error}")])
}
