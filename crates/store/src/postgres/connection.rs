//! A pool of connections, which replaces broken ones, and transactions on behalf of a tenant.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{
    Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Transaction,
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::OnceCell;
use tokio_postgres::{IsolationLevel, config::SslMode, error::SqlState, types::ToSql};

use super::{PostgresConfig, schema};
use crate::{StoreError, StoreErrorKind};

/// Connections to the database of the collections. The job store uses them, too.
pub struct Connections {
    pool: Pool,
    timeout: Duration,
    /// Set once the schema is migrated.
    ready: OnceCell<()>,
}

/// Parameters of a statement.
pub(super) type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

impl Connections {
    /// Connections to a database, which need not be reachable yet.
    pub fn new(config: &PostgresConfig) -> Result<Self, StoreError> {
        // The cause is dropped, because it may quote the URL and its password.
        let mut target: tokio_postgres::Config =
            config.url.parse().map_err(|_| StoreError::invalid("the database's URL cannot be understood"))?;
        target.application_name("embeddery");
        if target.get_connect_timeout().is_none() {
            target.connect_timeout(config.timeout.min(Duration::from_secs(10)));
        }
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match target.get_ssl_mode() {
            SslMode::Disable => Manager::from_config(target, tokio_postgres::NoTls, recycling),
            _ => Manager::from_config(target, tls()?, recycling),
        };
        let pool = Pool::builder(manager)
            .max_size(config.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.timeout))
            .create_timeout(Some(config.timeout))
            .build()
            .map_err(StoreError::internal)?;
        Ok(Self { pool, timeout: config.timeout, ready: OnceCell::new() })
    }

    /// Returns a connection. The first call migrates the schema.
    pub async fn client(&self) -> Result<Client, StoreError> {
        self.ready.get_or_try_init(|| self.migrate()).await?;
        Ok(self.pool.get().await?)
    }

    /// Migrates the schema in a task of its own. The migration of a large database takes longer than a request may, and
    /// must not be rolled back when the request ends.
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut client = self.pool.get().await?;
        let migration = tokio::spawn(async move { schema::migrate(&mut client).await });
        migration
            .await
            .map_err(|error| StoreError::internal(format!("the migration did not finish: {error}")))?
    }

    /// Begins a transaction that sees one tenant's rows.
    pub async fn begin<'c>(
        &self,
        client: &'c mut Client,
        tenant: &str,
    ) -> Result<Transaction<'c>, StoreError> {
        self.begin_at(client, tenant, IsolationLevel::ReadCommitted).await
    }

    /// Begins a transaction whose statements all see the same snapshot.
    pub(super) async fn begin_snapshot<'c>(
        &self,
        client: &'c mut Client,
        tenant: &str,
    ) -> Result<Transaction<'c>, StoreError> {
        self.begin_at(client, tenant, IsolationLevel::RepeatableRead).await
    }

    async fn begin_at<'c>(
        &self,
        client: &'c mut Client,
        tenant: &str,
        level: IsolationLevel,
    ) -> Result<Transaction<'c>, StoreError> {
        let tx = client.build_transaction().isolation_level(level).start().await?;
        let timeout = self.timeout.as_millis().to_string();
        let settings = tx
            .prepare_cached(
                "SELECT set_config('embeddery.tenant', $1, true), set_config('statement_timeout', $2, true),
                        set_config('plan_cache_mode', 'force_custom_plan', true),
                        set_config('embeddery.counts_words', 'on', true)",
            )
            .await?;
        tx.execute(&settings, &[&tenant, &timeout]).await?;
        Ok(tx)
    }
}

fn tls() -> Result<tokio_postgres_rustls::MakeRustlsConnect, StoreError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(StoreError::internal)?
        .with_no_client_auth();
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(config))
}

/// Takes `count` new ids from the sequence.
pub(super) async fn new_ids(tx: &Transaction<'_>, count: usize) -> Result<Vec<i64>, StoreError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let statement =
        tx.prepare_cached("SELECT nextval('embeddery.ids') FROM generate_series(1, $1::bigint)").await?;
    let rows = tx.query(&statement, &[&(count as i64)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            error => {
                tracing::warn!(%error, "no connection to the database");
                Self::unavailable("the database of the collections is out of reach or busy; try again")
            }
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db_error) = error.as_db_error() else {
            tracing::warn!(%error, "the connection to the database broke");
            return Self::unavailable("the database of the collections is out of reach; try again");
        };
        let code = db_error.code();
        match code.code() {
            "53100" | "53200" => Self::new(StoreErrorKind::Full, "the database's disk or memory is full"),
            "22021" | "22P05" => {
                Self::invalid("a text or metadata hold the character U+0000, which the database cannot store")
            }
            _ if *code == SqlState::QUERY_CANCELED => Self::unavailable(
                "the database took too long; try again, or raise collections.database_timeout_seconds",
            ),
            // Classes: connection, resources, operator intervention, transaction rollback, object not in the right state.
            text if ["08", "53", "57", "40", "55"].contains(&&text[..2]) => {
                tracing::warn!(error = %db_error, "the database is not available");
                Self::unavailable("the database of the collections is not available; try again")
            }
            "28P01" | "28000" | "3D000" => {
                tracing::error!(error = %db_error, "the database refuses DATABASE_URL");
                Self::unavailable("the database of the collections refuses the service")
            }
            _ => Self::internal(db_error),
        }
    }
}
