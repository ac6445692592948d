//! A month of jobs, of which a week is kept. A test makes a day pass by making everything in the store a day older.

use std::time::Duration;

use embeddery_pipeline::{DocumentOutcome, JobId, Stage};

use crate::support::{SingleDocument as _, Tenant, failed, reason, task};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
pub const DAYS: u32 = 30;

/// Numbers of rows: jobs, documents, contents.
pub type RowCounts = [u64; 3];

/// Submits a day's jobs of two documents each: stored, failed, cancelled, skipped, and uploads that never start.
pub async fn day(tenant: &Tenant, day: u32, jobs: u32) {
    for number in 0..jobs {
        let key = format!("{day}-{number}");
        let job = tenant.opened(Some(&key), 2).await;
        if number % 10 == 0 {
            continue;
        }
        tenant.store.start(job, crate::support::HASH).await.unwrap();
        end_job(tenant, job, number % 10).await;
    }
}

async fn end_job(tenant: &Tenant, job: JobId, case: u32) {
    tenant.store_document(task(job, 0)).await;
    match case {
        1 => {
            tenant.embed(task(job, 1)).await;
            tenant.end(task(job, 1), failed(Stage::Storage)).await;
        }
        2 => assert!(tenant.store.cancel(&tenant.name, job).await.unwrap()),
        3 => assert!(tenant.store.skip(job).await.unwrap()),
        4 => {
            tenant.store.note_attempt(task(job, 1), "again").await.unwrap();
            tenant.end(task(job, 1), DocumentOutcome::Superseded(reason("superseded"))).await;
        }
        _ => tenant.store_document(task(job, 1)).await,
    }
}

/// Maximum rows of a week and today, and of the uploads of a day and today; `more` jobs of one document run all the
/// time.
pub fn max_rows(jobs: u32, more: u64) -> RowCounts {
    let (week, open) = (8 * u64::from(jobs), 2 * u64::from(jobs.div_ceil(10)));
    // One job of ten fails, with one document. A failed document keeps its content.
    [week + more, 2 * week + more, 8 * u64::from(jobs.div_ceil(10)) + 2 * open + more]
}
