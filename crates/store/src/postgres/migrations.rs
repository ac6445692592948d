//! Migrations of a PostgreSQL schema: a table of versions, and scripts that run once.

use tokio_postgres::Transaction;

use crate::{StoreError, StoreErrorKind};

/// The migrations of one part of the service.
pub struct Migrations<'a> {
    /// The table of versions in the schema `embeddery`.
    pub table: &'static str,
    /// What the part keeps, for the error message: `the jobs in the database were`.
    pub subject: &'static str,
    /// Script n brings version n to n + 1. A released script never changes.
    pub scripts: &'a [&'a str],
}

impl Migrations<'_> {
    /// Applies the scripts that have not run, and returns the version that was found. The caller's transaction holds a lock, so that one process migrates at a
    /// time.
    ///
    /// # Errors
    /// If a newer version of the program has migrated the database, or a script fails.
    pub async fn apply(&self, tx: &Transaction<'_>) -> Result<i32, StoreError> {
        let table = self.table;
        tx.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS embeddery.{table} (version integer PRIMARY KEY)"
        ))
        .await?;
        let latest = format!("SELECT coalesce(max(version), 0) FROM embeddery.{table}");
        let found: i32 = tx.query_one(&latest, &[]).await?.get(0);
        let known = self.scripts.len() as i32;
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
        for (version, script) in (1..).zip(self.scripts).skip(found as usize) {
            tx.batch_execute(script).await?;
            tx.execute(&insert, &[&version]).await?;
        }
        Ok(found)
    }
}
