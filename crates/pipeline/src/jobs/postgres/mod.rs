//! The job store of several hosts, in the PostgreSQL database of the collections. A job's counts are counted from its
//! rows on request, so that workers on one job never wait for each other. The clock is the database's.
//!
//! - [`schema`] has the migrations;
//! - [`intake`] opens, fills and starts jobs; [`progress`] loads documents and writes the results of stages;
//! - [`transitions`] cancels, retries and skips; [`maintenance`] removes what is no longer needed;
//! - [`read`] reads jobs and documents.

mod intake;
mod maintenance;
mod progress;
mod read;
mod schema;
mod transitions;

use deadpool_postgres::{Client, Transaction};
use embeddery_store::{Connections, PostgresConfig, StoreError, StoreErrorKind};
use tokio::sync::OnceCell;

use super::{JobError, JobMetrics};

/// The job store of several hosts.
pub struct PostgresJobs {
    connections: Connections,
    /// Set once the schema is migrated.
    migrated: OnceCell<()>,
    metrics: JobMetrics,
}

/// The tenants whose rows a transaction sees.
#[derive(Clone, Copy)]
enum Scope<'a> {
    Tenant(&'a str),
    All,
}

impl PostgresJobs {
    /// A store over a database, which need not be reachable yet.
    ///
    /// # Errors
    /// When the URL cannot be parsed.
    pub fn new(config: &PostgresConfig) -> Result<Self, JobError> {
        Ok(Self {
            connections: Connections::new(config)?,
            migrated: OnceCell::new(),
            metrics: JobMetrics::default(),
        })
    }

    async fn client(&self) -> Result<Client, JobError> {
        let mut client = self.connections.client().await?;
        self.migrated.get_or_try_init(|| schema::migrate(&mut client)).await?;
        Ok(client)
    }

    async fn begin<'c>(&self, client: &'c mut Client, scope: Scope<'_>) -> Result<Transaction<'c>, JobError> {
        let tenant = match scope {
            Scope::Tenant(tenant) => tenant,
            Scope::All => "",
        };
        let tx = self.connections.begin(client, tenant).await?;
        if matches!(scope, Scope::All) {
            let all = tx.prepare_cached("SELECT set_config('embeddery.all_tenants', 'on', true)").await?;
            tx.execute(&all, &[]).await?;
        }
        Ok(tx)
    }
}

/// A document's position as the database's type.
fn to_item(item: u32) -> Result<i32, JobError> {
    i32::try_from(item).map_err(|_| JobError::Internal(format!("a job has no document {item}")))
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        let message = error.message.replace("of the collections", "of the jobs");
        match error.kind {
            StoreErrorKind::Unavailable { .. } => Self::Unavailable(message),
            StoreErrorKind::Full => Self::Full(message),
            StoreErrorKind::TooNew => Self::TooNew(message),
            _ => Self::Internal(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for JobError {
    fn from(error: tokio_postgres::Error) -> Self {
        StoreError::from(error).into()
    }
}
