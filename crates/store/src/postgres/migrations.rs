//! Migrations of a PostgreSQL schema: a table of versions, and steps that run once.

use tokio_postgres::Transaction;

use crate::{StoreError, StoreErrorKind, store::Operation};

/// A step from one version of a schema to the next. A released step never changes.
#[derive(Clone, Copy, Debug)]
pub enum MigrationStep {
    /// A script.
    Script(&'static str),
    /// A script, and then a function for what SQL cannot compute.
    Code(&'static str, MigrationCode),
}

/// The function of a [`MigrationStep`]. It runs in the transaction of the migration.
pub type MigrationCode = for<'a> fn(&'a Transaction<'a>) -> Operation<'a, ()>;

impl MigrationStep {
    async fn apply(self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        match self {
            Self::Script(script) => Ok(tx.batch_execute(script).await?),
            Self::Code(script, code) => {
                tx.batch_execute(script).await?;
                code(tx).await
            }
        }
    }
}

/// The migrations of one part of the service.
pub struct Migrations<'a> {
    /// The table of versions in the schema `embeddery`.
    pub table: &'static str,
    /// What the part keeps, for the error message: `the jobs in the database were`.
    pub subject: &'static str,
    /// Step n brings version n to n + 1.
    pub steps: &'a [MigrationStep],
}

impl Migrations<'_> {
    /// Applies the steps that have not run. The caller's transaction holds a lock, so that one process migrates at a time.
    ///
    /// # Errors
    /// If a newer version of the program has migrated the database, or a step fails.
    pub async fn apply(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        let table = self.table;
        tx.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS embeddery.{table} (version integer PRIMARY KEY)"
        ))
        .await?;
        let latest = format!("SELECT coalesce(max(version), 0) FROM embeddery.{table}");
        let found: i32 = tx.query_one(&latest, &[]).await?.get(0);
        let known = self.steps.len() as i32;
        if found > known {
            let subject = self.subject;
            return Err(StoreError::new(
                StoreErrorKind::TooNew,
                format!(
                    "{subject} written by a newer version (schema {found}, known here is {known}); use that version"
                ),
            ));
        }
        let insert = format!("INSERT INTO embeddery.{table} VALUES ($1)");
        for (version, step) in (1..).zip(self.steps).skip(found as usize) {
            step.apply(tx).await?;
            tx.execute(&insert, &[&version]).await?;
        }
        Ok(())
    }
}
