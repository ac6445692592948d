//! Builds the parts of the process from the configuration and connects them: providers, gateway, accounts and the API.
//! It is above [`stores`] and [`crate::pipeline_setup`], which do not refer to it.

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
use embeddery_providers::{
    HttpClient, Vendor, VendorConfig,
    local::{Local, LocalConfig, MemoryBudget, ResourcesConfig, SharedResources},
    onnx::{OnnxRuntime, RuntimeConfig, onnx},
};
use embeddery_server::{AdminControls, App, Collections, Jobs, ServerMetrics, Settings, Tls};
use prometheus_client::registry::Registry;
use secrecy::SecretString;

use crate::{
    config::{AuthConfig, Config, ConfigError, MultiUser, SecondLevelConfig},
    model_metrics::ModelMemory,
    pipeline_setup::PipelineHandles,
    process_metrics,
    stack::Layers,
    stores,
};

/// A registry with the metrics that every process of the service exports. The parts of a process add theirs.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    process_metrics::register(&mut registry);
    registry
}

/// Builds the API and everything that it calls. `key` is the API key of `single_user` mode.
pub(crate) fn app(
    config: &Config,
    key: &SecretString,
    mut registry: Registry,
) -> anyhow::Result<(App, ProcessState)> {
    let http_metrics = ServerMetrics::new(&mut registry);
    let (router, state) = router(config, &mut registry)?;
    let PipelineHandles { jobs: store, queue } = PipelineHandles::open(config)?;
    store.metrics().register(&mut registry);
    let collections = Collections::new(stores::vector_store(config, &mut registry)?);
    let app = App {
        router,
        controls: state.controls(),
        accounts: accounts(config, key)?,
        settings: settings(config)?,
        collections,
        jobs: Jobs { store, queue, limits: config.jobs },
        registry: Arc::new(registry),
        traced: config.traces.is_some(),
        http_metrics,
        reloads: None,
    };
    Ok((app, state))
}

/// Builds the API again after a reload of the configuration. It shares the [`ProcessState`] with the old one. An error
/// changes nothing.
pub(crate) fn rebuild_app(
    (app, state): (&App, &ProcessState),
    (old, new): (&Config, &Config),
    key: &SecretString,
) -> anyhow::Result<App> {
    let router = state.router(new)?;
    let is_multi_user = |config: &Config| matches!(config.accounts.auth, AuthConfig::MultiUser(_));
    // The authentication mode changes only with a restart.
    let auth = if is_multi_user(old) == is_multi_user(new) {
        Arc::new(auth(new, key)?)
    } else {
        Arc::clone(&app.accounts.auth)
    };
    // The buckets keep their level if the rates are unchanged.
    let limiter = if old.accounts.rates == new.accounts.rates {
        Arc::clone(&app.accounts.limiter)
    } else {
        Arc::new(limiter(new)?)
    };
    let settings = settings(new)?;
    // Nothing after this line can fail.
    app.router.replace_with(&router);
    state.keep_servers_of(&router);
    app.accounts.ledger.update_limits(new.accounts.quotas, prices(new));
    let accounts = Accounts { auth, limiter, ..app.accounts.clone() };
    Ok(App { accounts, settings, ..app.clone() })
}

/// The settings of the API, with the TLS certificate loaded.
fn settings(config: &Config) -> anyhow::Result<Settings> {
    let mut settings = config.server.clone();
    if let Some((certificate, key)) = &config.accounts.tls {
        settings.tls = Some(Tls::from_files(certificate, key).map_err(|error| problem("tls", &error))?);
    }
    Ok(settings)
}

/// The state that a reload of the configuration keeps: models in memory, cache, breakers, limiters, metrics.
pub(crate) struct ProcessState {
    local: Arc<Local>,
    graphs: Arc<Local>,
    layers: Layers,
}

/// Builds the router of models, and the state that a later router shares with it.
pub(crate) fn router(
    config: &Config,
    registry: &mut Registry,
) -> anyhow::Result<(Arc<Router>, ProcessState)> {
    let source: Arc<dyn ModelSource> = stores::model_store(config)?;
    let resources = shared_resources(config)?;
    registry.register_collector(Box::new(ModelMemory(Arc::clone(resources.memory()))));
    let models = config.model_options.clone();
    let auto_download = config.auto_download;
    let graphs = graph_provider(config, Arc::clone(&resources))?;
    let local = Local::new(LocalConfig { resources, source, auto_download, models }, config.precision);

    let metrics = Metrics::new(registry);
    let layers = layers(config, &metrics)?;
    registry.register_collector(Box::new(GatewayCollector {
        breakers: Arc::clone(&layers.breakers),
        cache: layers.cache.clone(),
    }));
    let state = ProcessState { local: Arc::new(local), graphs: Arc::new(graphs), layers };
    let router = Arc::new(state.router(config)?);
    state.keep_servers_of(&router);
    registry.register_collector(Box::new(LoadedModelsCollector(Arc::clone(&router))));
    Ok((router, state))
}

impl ProcessState {
    /// The parts that the administrator's endpoints read and change.
    pub(crate) fn controls(&self) -> AdminControls {
        AdminControls { breakers: Arc::clone(&self.layers.breakers), cache: self.layers.cache.clone() }
    }

    /// Keeps breakers and limiters of the servers of this router, and drops those of all other servers.
    fn keep_servers_of(&self, router: &Router) {
        let services = router.services();
        let servers: Vec<_> = services.iter().map(|service| service.server.clone()).collect();
        self.layers.upstream_limiters.retain(&servers);
        self.layers.breakers.set_services(services);
    }

    /// A router for this configuration, with the shared state.
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

/// The provider of ONNX graphs.
fn graph_provider(config: &Config, resources: Arc<SharedResources>) -> anyhow::Result<Local> {
    let local = LocalConfig {
        resources,
        source: stores::graph_store(config)?,
        auto_download: config.auto_download,
        models: config.onnx.models.clone(),
    };
    Ok(onnx(local, onnx_runtime(config), config.onnx.providers.clone()))
}

/// ONNX Runtime. Its library is loaded at the first use.
pub(crate) fn onnx_runtime(config: &Config) -> Arc<OnnxRuntime> {
    OnnxRuntime::new(RuntimeConfig {
        libraries: config.onnx.libraries.clone(),
        threads: config.threads,
        allow_tf32: config.onnx.allow_tf32,
    })
}

/// The threads and the memory that the local models share.
fn shared_resources(config: &Config) -> anyhow::Result<Arc<SharedResources>> {
    SharedResources::new(ResourcesConfig {
        threads: config.threads,
        memory: MemoryBudget::new(config.local.limits, config.local.patience),
        queue_tokens: config.queue_tokens,
        unload_after: config.local.unload_after,
    })
    .map_err(anyhow::Error::msg)
    .context("starting the engine")
}

/// The parts that the wrappers of all models share.
fn layers(config: &Config, metrics: &Metrics) -> anyhow::Result<Layers> {
    let persistent = match (&config.gateway.cache, &config.gateway.second_level) {
        (Some(_), Some(level)) => Some(persistent_cache(level, config)?),
        _ => None,
    };
    let config = &config.gateway;
    let limits = config.governor;
    Ok(Layers {
        metrics: metrics.clone(),
        cache: config.cache.map(|cache| Arc::new(VectorCache::new(cache, persistent))),
        scope: config.scope,
        decoder: Arc::new(TokenDecoder::new(config.token_encoding)),
        retry: config.retry.clone(),
        breakers: Arc::new(BreakerRegistry::new(config.breaker)),
        upstream_limiters: Arc::new(UpstreamLimiters::new(limits)),
        attempt_timeout: config.attempt_timeout,
        parallel: limits.concurrency,
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

/// The Redis of the rate limits and the cache: their own URL, with the prefix and the certificates of the queue.
fn redis_address(config: &Config, url: &SecretString) -> RedisAddress {
    match &config.queue.redis {
        Some(queue) => RedisAddress { url: url.clone(), ..queue.address.clone() },
        None => RedisAddress::new(url.clone()),
    }
}

/// Checks that the default model and the fallbacks are names that a request could use.
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

/// All remote providers. One without a key is included: its error names the missing setting.
fn vendors(config: &Config, limiters: &Arc<UpstreamLimiters>) -> anyhow::Result<Vec<Arc<Vendor>>> {
    let client = Arc::new(HttpClient::new(&config.upstreams.outbound).map_err(anyhow::Error::msg)?);
    let vendors = config.upstreams.vendors.iter().map(|upstream| {
        Vendor::new(VendorConfig {
            kind: upstream.kind,
            endpoint: upstream.access.clone(),
            models: upstream.models.clone(),
            catalogue: Arc::clone(&config.upstreams.catalogue),
            client: Arc::clone(&client),
            listener: Some(Arc::clone(limiters) as Arc<dyn RateListener>),
        })
        .map(Arc::new)
        .map_err(anyhow::Error::msg)
    });
    vendors.collect()
}

/// The models of the catalogue. A model is listed by the API if its vendor is usable.
fn vendor_models(config: &Config, vendors: &[Arc<Vendor>]) -> Vec<VendorModel> {
    let usable = |kind| vendors.iter().any(|vendor| vendor.kind() == kind && vendor.is_usable());
    let known = config.upstreams.catalogue.vendor_models();
    known
        .map(|(provider, name)| VendorModel { provider, name: name.into(), listed: usable(provider) })
        .collect()
}

/// Authentication, rate limits, usage and the audit log.
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

/// The configuration of the ledger: its file, the quotas and the prices.
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

/// The verifier of tokens. An unusable key file is an error of the configuration.
pub(crate) fn tokens(multi: &MultiUser) -> anyhow::Result<TokenVerifier> {
    Ok(TokenVerifier::load(multi.tokens.clone()).map_err(|error| problem("auth", &error))?)
}

fn problem(setting: &str, error: &str) -> ConfigError {
    ConfigError(vec![format!("{setting}: {error}")])
}
