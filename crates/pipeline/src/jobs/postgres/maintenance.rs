//! Ends jobs, removes what is no longer needed, and serves the reconciler.

use embeddery_core::to_ms;
use std::time::Duration;

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::types::ToSql;

use super::{
    PostgresJobs, Scope,
    read::{self, COUNTED},
};
use crate::{JobError, JobId, JobMaintenance, JobMetrics, JobOp, Status, TaskId, Unfinished, jobs::codec};

impl JobMaintenance for PostgresJobs {
    fn unfinished(
        &self,
        untouched: Duration,
        after: Option<TaskId>,
        limit: usize,
    ) -> JobOp<'_, Vec<Unfinished>> {
        Box::pin(read::unfinished(self, untouched, after, limit))
    }

    fn claim_period(&self, work: &'static str, period: Duration) -> JobOp<'_, bool> {
        Box::pin(claim_period(self, work, period))
    }

    fn purge_expired(&self, ended: Duration, abandoned: Duration) -> JobOp<'_, u64> {
        Box::pin(purge_expired(self, ended, abandoned))
    }

    fn delete_tenant<'a>(&'a self, tenant: &'a str) -> JobOp<'a, u64> {
        Box::pin(delete_tenant(self, tenant))
    }

    fn metrics(&self) -> &JobMetrics {
        &self.metrics
    }

    fn health(&self) -> JobOp<'_, ()> {
        Box::pin(async { self.client().await.map(drop) })
    }
}

/// Claims work until `period` is over, unless another process holds the claim. Returns whether it did.
async fn claim_period(store: &PostgresJobs, work: &str, period: Duration) -> Result<bool, JobError> {
    let client = store.client().await?;
    let claim = client
        .prepare_cached(
            "INSERT INTO embeddery.claims VALUES ($1, embeddery.now_ms() + $2)
             ON CONFLICT (what) DO UPDATE SET until = excluded.until WHERE claims.until <= embeddery.now_ms()",
        )
        .await?;
    Ok(client.execute(&claim, &[&work, &to_ms(period).cast_signed()]).await? == 1)
}

/// The status of a job whose documents have all ended.
const STATUS: &str = "CASE WHEN d6 > 0 THEN 5 WHEN d4 = 0 AND d5 = 0 THEN 2 WHEN d3 + d7 > 0 THEN 3 \
                      WHEN d4 > 0 THEN 4 ELSE 5 END";

/// Ends a job if its last document has ended.
pub(super) async fn settle(store: &PostgresJobs, client: &mut Client, job: JobId) -> Result<(), JobError> {
    let tx = store.begin(client, Scope::All).await?;
    let unfinished = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM embeddery.job_documents WHERE job = $1 AND state < 3)")
        .await?;
    if tx.query_one(&unfinished, &[&job.0]).await?.get(0) {
        return Ok(());
    }
    let ended = settle_in(&tx, job).await?;
    tx.commit().await?;
    store.metrics.count(ended);
    Ok(())
}

/// Ends a job if its last document has ended, inside a transaction. Returns its status then. The lock is taken before
/// the documents are counted, so that none is set back meanwhile.
pub(super) async fn settle_in(tx: &Transaction<'_>, job: JobId) -> Result<Option<Status>, JobError> {
    let lock = tx.prepare_cached("SELECT 1 FROM embeddery.jobs WHERE id = $1 FOR UPDATE").await?;
    tx.execute(&lock, &[&job.0]).await?;
    let end = tx
        .prepare_cached(&format!(
            "UPDATE embeddery.jobs SET ended_at = embeddery.now_ms(), status = {STATUS},
                 counts = ARRAY[counted.chunks, stored_chunks, 0, d0, d1, d2, d3, d4, d5, d6, d7]
             FROM (SELECT {COUNTED} FROM embeddery.job_documents WHERE job = $1) AS counted
             WHERE id = $1 AND status IN (0, 1) AND d0 + d1 + d2 = 0 RETURNING status"
        ))
        .await?;
    let ended = tx.query_opt(&end, &[&job.0]).await?;
    ended.map(|row| codec::status(row.get::<_, i16>(0).into())).transpose()
}

async fn purge_expired(store: &PostgresJobs, ended: Duration, abandoned: Duration) -> Result<u64, JobError> {
    let mut client = store.client().await?;
    // A process that crashes between the end of the last document and the end of the job leaves such jobs.
    let tx = store.begin(&mut client, Scope::All).await?;
    let ended_jobs = tx
        .query(
            "SELECT id FROM embeddery.jobs WHERE status IN (0, 1) AND NOT EXISTS (
                 SELECT 1 FROM embeddery.job_documents WHERE job = jobs.id AND state < 3)",
            &[],
        )
        .await?;
    drop(tx);
    for row in ended_jobs {
        settle(store, &mut client, JobId(row.get(0))).await?;
    }
    let expired =
        "ended_at < embeddery.now_ms() - $1 OR (status = -1 AND submitted_at < embeddery.now_ms() - $2)";
    let (ended, abandoned) = (to_ms(ended).cast_signed(), to_ms(abandoned).cast_signed());
    remove(store, &mut client, Scope::All, expired, &[&ended, &abandoned]).await
}

/// Maximum documents that one statement removes. It keeps a statement within its timeout.
const PAGE: u32 = 5000;

/// Removes the jobs for which `condition` is true, their documents first. Returns how many jobs.
async fn remove(
    store: &PostgresJobs,
    client: &mut Client,
    scope: Scope<'_>,
    condition: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, JobError> {
    let page = format!(
        "DELETE FROM embeddery.job_documents WHERE (job, item) IN (
             SELECT job, item FROM embeddery.job_documents JOIN embeddery.jobs ON jobs.id = job
             WHERE {condition} LIMIT {PAGE})"
    );
    loop {
        let tx = store.begin(client, scope).await?;
        let removed = tx.execute(&page, parameters).await?;
        tx.commit().await?;
        if removed == 0 {
            break;
        }
    }
    let tx = store.begin(client, scope).await?;
    let jobs = tx.execute(&format!("DELETE FROM embeddery.jobs WHERE {condition}"), parameters).await?;
    tx.commit().await?;
    Ok(jobs)
}

async fn delete_tenant(store: &PostgresJobs, tenant: &str) -> Result<u64, JobError> {
    let mut client = store.client().await?;
    // From here on the jobs are invisible, and workers write no more results to them.
    let tx = store.begin(&mut client, Scope::Tenant(tenant)).await?;
    let close = "UPDATE embeddery.jobs SET status = -1, submitted_at = 0, ended_at = NULL
                 WHERE jobs.tenant = $1 AND status >= 0";
    let jobs = tx.execute(close, &[&tenant]).await?;
    tx.commit().await?;
    let closed = "jobs.tenant = $1 AND status = -1";
    remove(store, &mut client, Scope::Tenant(tenant), closed, &[&tenant]).await?;
    Ok(jobs)
}
