//! The job store of one host: the suite, and tests of the file: several processes, restarts, a full disk.

use std::{path::Path, sync::Arc, time::Duration};

use embeddery_pipeline::{
    JobError, JobStore, OpenResult, SqliteJobs, SqliteJobsConfig, Status, run_retention,
};
use tokio_util::sync::CancellationToken;

use crate::{
    retention::{self, DAY, DAYS, KEPT, RowCounts},
    support::{HASH, Tenant, document, documents, task},
};

fn at(path: &Path) -> Arc<dyn JobStore> {
    let config = SqliteJobsConfig { path: path.into(), min_free_bytes: 0 };
    Arc::new(SqliteJobs::open(config).unwrap())
}

pub async fn store() -> Arc<dyn JobStore> {
    at(&tempfile::tempdir().unwrap().keep().join("jobs.db"))
}

crate::conformance!(crate::sqlite::store);

#[tokio::test]
async fn a_started_job_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let tenant = Tenant::new(at(&path));
    let job = tenant.submitted(3).await;
    tenant.embed(task(job, 1)).await;
    let again = Tenant { store: at(&path), name: Arc::clone(&tenant.name) };
    drop(tenant);
    assert_eq!(again.job(job).await.status, Status::Running);
    assert_eq!(again.unfinished(Duration::ZERO).await.len(), 3);
}

/// Two stores have one file, as in two processes. Both count.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_share_a_file_count_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let one = Tenant::new(at(&path));
    let two = Tenant { store: at(&path), name: Arc::clone(&one.name) };
    let job = one.submitted(60).await;
    let work = |tenant: Tenant, items: std::ops::Range<u32>| {
        tokio::spawn(async move {
            for item in items {
                tenant.store_document(task(job, item)).await;
            }
        })
    };
    let again = Tenant { store: Arc::clone(&one.store), name: Arc::clone(&one.name) };
    let (first, second) = (work(one, 0..30), work(two, 30..60));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(again.job(job).await.status, Status::Completed);
}

#[tokio::test]
async fn a_full_disk_refuses_new_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let config = SqliteJobsConfig { path: dir.path().join("jobs.db"), min_free_bytes: u64::MAX };
    let tenant = Tenant::new(Arc::new(SqliteJobs::open(config).unwrap()));
    let refused = tenant.store.open(tenant.new_job(None)).await.unwrap_err();
    assert!(matches!(refused, JobError::Full(_)), "{refused}");
    assert!(matches!(tenant.store.health().await, Err(JobError::Full(_))));
}

/// Removed texts free space on the disk.
#[tokio::test]
async fn a_purged_file_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let tenant = Tenant::new(at(&path));
    let OpenResult::New(job) = tenant.store.open(tenant.new_job(None)).await.unwrap() else {
        panic!("it is new")
    };
    for _ in 0..4 {
        let mut documents = documents(100);
        for (at, document) in documents.iter_mut().enumerate() {
            // A text that zstd does not compress well.
            document.text =
                (0..8000).map(|n: usize| char::from(33 + ((n * n * 7919 + at * n) % 90) as u8)).collect();
        }
        documents.push(document("last"));
        tenant.store.append(job, documents).await.unwrap();
    }
    tenant.store.start(job, HASH).await.unwrap();
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    tenant.store.delete_tenant(&tenant.name).await.unwrap();
    let other = tenant.submitted(1).await;
    tenant.store.cancel(&tenant.name, other).await.unwrap();
    while tenant.find(other).await.is_some() {
        tenant.store.purge_expired(Duration::ZERO, Duration::ZERO).await.unwrap();
    }
    drop(tenant);
    assert!(size(&path) < 3 << 20, "{}", size(&path));
}

#[tokio::test]
async fn expired_jobs_are_purged() {
    crate::outcomes::expired_jobs_are_purged(&Tenant::new(store().await)).await;
}

/// The retention runs as in every process. The test's clock skips its pauses.
#[tokio::test(start_paused = true)]
async fn a_month_of_jobs_does_not_grow_without_bound() {
    const JOBS: u32 = 100;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let tenant = Tenant::new(at(&path));
    let running = tenant.submitted(1).await;
    let stop = CancellationToken::new();
    let retention_task = tokio::spawn(run_retention(tenant.store.clone(), KEPT, stop.clone()));
    let file = rusqlite::Connection::open(&path).unwrap();
    file.busy_timeout(Duration::from_secs(30)).unwrap();
    let count = |sql: &str| file.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    let mut full = 0;
    for day in 1..=DAYS {
        retention::day(&tenant, day, JOBS).await;
        let day_ms = DAY.as_millis();
        file.execute_batch(&format!(
            "UPDATE job SET submitted_at_ms = submitted_at_ms - {day_ms}, started_at_ms = started_at_ms - {day_ms},
                            ended_at_ms = ended_at_ms - {day_ms};
             UPDATE document SET touched_at_ms = touched_at_ms - {day_ms};"
        ))
        .unwrap();
        let past = format!(
            "SELECT count(*) FROM job WHERE ended_at_ms < unixepoch() * 1000 - {}
                OR (status = -1 AND submitted_at_ms < unixepoch() * 1000 - {day_ms} * 3 / 2)",
            KEPT.as_millis()
        );
        let mut minutes = 0..24 * 60;
        while count(&past) > 0 {
            assert!(minutes.next().is_some(), "day {day}: the retention does not run");
            tokio::time::sleep(Duration::from_secs(60)).await;
            // The writer's thread needs real time.
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await.unwrap();
        }
        let held: RowCounts =
            ["job", "document", "content"].map(|table| count(&format!("SELECT count(*) FROM {table}")));
        assert!(
            held.iter().zip(retention::max_rows(JOBS, 1)).all(|(held, max)| *held <= max),
            "day {day}: {held:?}"
        );
        let size = std::fs::metadata(&path).unwrap().len();
        if day <= 12 {
            full = size.max(full);
        }
        assert!(size <= full + full / 4, "day {day}: {size} bytes, {full} after the first days");
    }
    assert_eq!(tenant.job(running).await.status, Status::Pending, "an unfinished job does not expire");
    stop.cancel();
    retention_task.await.unwrap();
}
