//! The job store of several hosts: the suite on a real server, and tests of the database.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use embeddery_pipeline::{JobError, JobStore, PostgresJobs, Status};
use embeddery_store::PostgresConfig;

use crate::{
    retention::{self, DAY, DAYS, KEPT, RowCounts},
    server::Postgres,
    support::{SingleDocument as _, Tenant, task},
};

static SERVER: OnceLock<Postgres> = OnceLock::new();

fn server() -> &'static Postgres {
    SERVER.get_or_init(Postgres::start)
}

fn at(url: String) -> Arc<dyn JobStore> {
    let config = PostgresConfig { url, connections: 4, timeout: Duration::from_secs(30) };
    Arc::new(PostgresJobs::new(&config).unwrap())
}

pub async fn store() -> Arc<dyn JobStore> {
    at(tokio::task::spawn_blocking(|| server().url()).await.unwrap())
}

crate::conformance!(crate::postgres::store);

#[tokio::test]
async fn the_database_itself_keeps_tenants_apart() {
    let tenant = Tenant::new(store().await);
    let job = tenant.submitted(1).await;
    let count = |tenant: &str, table: &str| {
        let sql = format!(
            "SET ROLE service; SET embeddery.tenant = '{tenant}'; SELECT count(*) FROM embeddery.{table}"
        );
        server().sql("service", &sql)
    };
    for table in ["jobs", "job_documents", "job_contents"] {
        assert_eq!(count(&tenant.name, table).trim(), "1", "{table}");
        assert_eq!(count("unknown", table).trim(), "0", "{table}");
    }
    assert_eq!(tenant.job(job).await.status, Status::Pending);
}

#[tokio::test]
async fn a_text_may_contain_any_character() {
    let tenant = Tenant::new(store().await);
    let job = tenant.opened(None, 0).await;
    let mut odd = crate::support::document("odd");
    odd.text = "a\0b".into();
    odd.metadata.insert("\0".into(), "\0".into());
    tenant.store.append(job, vec![odd.clone()]).await.unwrap();
    tenant.store.start(job, crate::support::HASH).await.unwrap();
    let work = tenant.store.load_one(task(job, 0)).await.unwrap().unwrap();
    assert_eq!((work.document.text, work.document.metadata), (odd.text, odd.metadata));
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_jobs_are_purged() {
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    crate::outcomes::expired_jobs_are_purged(&Tenant::new(at(own.url()))).await;
    own.stop();
}

/// The test has a server of its own, and makes all jobs a day older at once. The clock is the database's, so the test
/// purges and does not wait for the retention.
#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_jobs_does_not_grow_without_bound() {
    const JOBS: u32 = 20;
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let tenant = Tenant::new(at(own.url()));
    let running = tenant.submitted(1).await;
    let all = "SET ROLE service; SET embeddery.all_tenants = 'on';";
    let day_ms = DAY.as_millis();
    let older = format!(
        "{all} UPDATE embeddery.jobs SET submitted_at = submitted_at - {day_ms}, started_at = started_at - {day_ms},
             ended_at = ended_at - {day_ms};
         UPDATE embeddery.job_documents SET touched_at = touched_at - {day_ms}"
    );
    for day in 1..=DAYS {
        retention::day(&tenant, day, JOBS).await;
        own.sql("service", &older);
        tenant.store.purge_expired(KEPT, DAY * 3 / 2).await.unwrap();
        let held: RowCounts = ["jobs", "job_documents", "job_contents"].map(|table| {
            own.sql("service", &format!("{all} SELECT count(*) FROM embeddery.{table}"))
                .trim()
                .parse()
                .unwrap()
        });
        assert!(
            held.iter().zip(retention::max_rows(JOBS, 1)).all(|(held, max)| *held <= max),
            "day {day}: {held:?}"
        );
    }
    assert_eq!(tenant.job(running).await.status, Status::Pending, "an unfinished job does not expire");
    own.stop();
}

/// The test has a server of its own, because it stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_outage_is_survived() {
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let tenant = Tenant::new(at(own.url()));
    let job = tenant.submitted(1).await;
    own.stop();
    for _ in 0..2 {
        let refused = tenant.store.job(&tenant.name, job).await.unwrap_err();
        assert!(matches!(refused, JobError::Unavailable(_)), "{refused}");
    }
    own.serve();
    while tenant.store.health().await.is_err() {}
    while tenant.store.job(&tenant.name, job).await.is_err() {}
    assert_eq!(tenant.job(job).await.status, Status::Pending);
    own.stop();
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    own.sql("service", "SET ROLE service; CREATE SCHEMA embeddery; CREATE TABLE embeddery.job_migrations (version integer PRIMARY KEY); INSERT INTO embeddery.job_migrations VALUES (99)");
    let refused = at(own.url()).health().await.unwrap_err();
    assert!(matches!(refused, JobError::TooNew(_)), "{refused}");
    own.stop();
}
