//! From configuration to a running program's parts: who depends on whom is decided here and nowhere else.

use std::sync::Arc;

use anyhow::Context as _;
use embeddery_core::ModelSource;
use embeddery_gateway::{Metrics, Router, RouterConfig, Wrap};
use embeddery_model_store::ModelStore;
use embeddery_providers::local::{Local, LocalConfig};
use embeddery_server::App;
use prometheus_client::registry::Registry;
use secrecy::SecretString;

use crate::{
    config::{Config, ConfigError},
    stack::stack,
};

/// The store of model directories.
pub(crate) fn model_store(config: &Config) -> anyhow::Result<Arc<ModelStore>> {
    Ok(Arc::new(ModelStore::new(config.store.clone())?))
}

/// The API with everything behind it.
pub(crate) fn app(config: &Config, key: SecretString) -> anyhow::Result<App> {
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

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
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
        .map_err(|error| ConfigError(vec![format!("default_model_id: {error}")]))?;
    let settings = embeddery_server::Settings { api_key: Some(key), ..config.server.clone() };
    Ok(App { router: Arc::new(router), settings, registry })
}
