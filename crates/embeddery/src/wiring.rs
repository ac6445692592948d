//! From configuration to a running program's parts: who depends on whom is decided here and nowhere else.

use std::sync::Arc;

use anyhow::Context as _;
use embeddery_accounts::{
    Accounts, AccountsConfig, AuditConfig, Auth, Limiter, auth::Tokens, ledger::LedgerConfig,
};
use embeddery_core::ModelSource;
use embeddery_gateway::{Metrics, Router, RouterConfig, Wrap};
use embeddery_model_store::ModelStore;
use embeddery_providers::local::{Local, LocalConfig};
use embeddery_server::{App, Tls};
use prometheus_client::registry::Registry;
use secrecy::SecretString;

use crate::{
    config::{AuthConfig, Config, ConfigError, MultiUser},
    stack::stack,
};

/// The store of model directories.
pub(crate) fn model_store(config: &Config) -> anyhow::Result<Arc<ModelStore>> {
    Ok(Arc::new(ModelStore::new(config.store.clone())?))
}

/// The API with everything behind it. `key` is the one key of single_user mode.
pub(crate) fn app(config: &Config, key: &SecretString) -> anyhow::Result<App> {
    let mut registry = Registry::default();
    let router = router(config, &mut registry)?;
    let mut settings = config.server.clone();
    if let Some((certificate, key)) = &config.accounts.tls {
        settings.tls = Some(Tls::from_files(certificate, key).map_err(|error| problem("tls", &error))?);
    }
    Ok(App { router: Arc::new(router), accounts: accounts(config, key)?, settings, registry })
}

/// Who serves models.
pub(crate) fn router(config: &Config, registry: &mut Registry) -> anyhow::Result<Router> {
    let source: Arc<dyn ModelSource> = model_store(config)?;
    let local = Local::new(LocalConfig {
        source,
        threads: config.threads,
        auto_download: config.auto_download,
        queue_tokens: config.queue_tokens,
        precision: config.precision,
        models: config.model_options.clone(),
    })
    .map_err(anyhow::Error::msg)
    .context("starting the engine")?;

    let metrics = Metrics::new(registry);
    let wrap: Wrap = {
        let metrics = metrics.clone();
        Arc::new(move |adapter| stack(adapter, &metrics))
    };
    let router = Router::new(RouterConfig {
        providers: vec![Arc::new(local)],
        models: config.models.clone(),
        default_model: config.default_model.clone(),
        wrap,
        metrics,
    });
    router
        .resolve(embeddery_gateway::Selector { model: None, provider: None })
        .map_err(|error| problem("default_model_id", &error.to_string()))?;
    Ok(router)
}

/// Who may ask, how much, and what it cost.
fn accounts(config: &Config, key: &SecretString) -> anyhow::Result<Accounts> {
    let settings = &config.accounts;
    let auth = match &settings.auth {
        AuthConfig::SingleUser(_) => Auth::single(key),
        AuthConfig::MultiUser(multi) => Auth::tokens(tokens(multi)?),
    };
    let limiter = match &settings.redis_url {
        Some(url) if settings.rates.requests.is_some() => {
            Limiter::shared(settings.rates, url, "{embeddings}")
                .map_err(|error| problem("REDIS_URL", &error))?
        }
        _ => Limiter::local(settings.rates),
    };
    let ledger = LedgerConfig {
        path: config.state_dir.join("usage.sqlite3"),
        quotas: settings.quotas,
        retention_days: settings.retention_days,
        // Only local models are served so far, and they cost nothing.
        prices: Arc::new(|_, _: &str| None),
    };
    let audit = AuditConfig {
        path: config.state_dir.join("audit.jsonl"),
        max_bytes: settings.audit_max_bytes,
        keep: settings.audit_keep,
    };
    Ok(Accounts::open(AccountsConfig { auth, limiter, ledger, audit })?)
}

/// The check of tokens; a key file that cannot be used is a mistake in the configuration.
pub(crate) fn tokens(multi: &MultiUser) -> anyhow::Result<Tokens> {
    Ok(Tokens::load(multi.tokens.clone()).map_err(|error| problem("auth", &error))?)
}

fn problem(setting: &str, error: &str) -> ConfigError {
    ConfigError(vec![format!("{setting}: {error}")])
}
