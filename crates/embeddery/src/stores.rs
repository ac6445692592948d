//! The stores that a configuration names: model directories, collections and jobs.

use std::sync::Arc;

use embeddery_model_store::{ModelStore, StoreConfig};
use embeddery_pipeline::{JobStore, PostgresJobs, SqliteJobs, SqliteJobsConfig};
use embeddery_store::{PostgresConfig, PostgresMetrics, PostgresStore, SqliteStore, VectorStore};
use prometheus_client::registry::Registry;
use secrecy::ExposeSecret as _;

use crate::config::{Config, ConfigError, DatabaseConfig};

/// The store of directories with models for the engine.
pub(crate) fn model_store(config: &Config) -> anyhow::Result<Arc<ModelStore>> {
    Ok(Arc::new(ModelStore::new(config.store.clone())?))
}

/// The store of directories with ONNX graphs.
pub(crate) fn graph_store(config: &Config) -> anyhow::Result<Arc<ModelStore>> {
    let store = StoreConfig { format: config.onnx.format(), ..config.store.clone() };
    Ok(Arc::new(ModelStore::new(store)?))
}

/// The store of collections: PostgreSQL if a database is configured, else SQLite files.
pub(crate) fn vector_store(config: &Config, registry: &mut Registry) -> anyhow::Result<Arc<dyn VectorStore>> {
    let Some(database) = &config.collections.database else {
        return Ok(Arc::new(SqliteStore::new(config.collections.embedded.clone())));
    };
    let store = PostgresStore::new(&postgres_config(database));
    let store = store.map_err(|error| ConfigError(vec![format!("DATABASE_URL: {error}")]))?;
    Ok(Arc::new(store.with_metrics(PostgresMetrics::new(registry))))
}

/// The store of jobs: PostgreSQL if a database is configured, else a SQLite file in the state directory.
pub(crate) fn job_store(config: &Config) -> anyhow::Result<Arc<dyn JobStore>> {
    let Some(database) = &config.collections.database else {
        let embedded = SqliteJobsConfig {
            path: config.state_dir.join("jobs.db"),
            min_free_bytes: config.collections.embedded.min_free_bytes,
        };
        return Ok(Arc::new(SqliteJobs::open(embedded).map_err(anyhow::Error::msg)?));
    };
    let store = PostgresJobs::new(&postgres_config(database));
    Ok(Arc::new(store.map_err(|error| ConfigError(vec![format!("DATABASE_URL: {error}")]))?))
}

fn postgres_config(database: &DatabaseConfig) -> PostgresConfig {
    PostgresConfig {
        url: database.url.expose_secret().to_owned(),
        connections: database.connections,
        timeout: database.timeout,
    }
}
