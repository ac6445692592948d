//! The distributed store: the suite on a real server, and what only it has to prove: tenants are apart in the
//! database itself, enough results under a filter, a database that goes and comes back.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use embeddery_store::{
    DeleteTarget, Mode, PostgresConfig, PostgresMetrics, PostgresStore, StoreErrorKind, VectorStore,
};
use serde_json::json;

use crate::{
    server::Postgres,
    support::{C, DIM, Tenant, document, kind, vector},
};

static SERVER: OnceLock<Postgres> = OnceLock::new();

fn server() -> &'static Postgres {
    SERVER.get_or_init(Postgres::start)
}

fn config(url: String) -> PostgresConfig {
    PostgresConfig { url, connections: 4, timeout: Duration::from_secs(30) }
}

pub async fn store() -> Arc<dyn VectorStore> {
    let url = tokio::task::spawn_blocking(|| server().url()).await.unwrap();
    Arc::new(PostgresStore::new(&config(url)).unwrap())
}

crate::conformance!(crate::postgres::store);

#[tokio::test]
async fn the_database_itself_keeps_tenants_apart() {
    let tenant = Tenant::new(store().await);
    tenant.with(vec![document("d", &["one"], json!({}))]).await;
    let count = |who: &str, table: &str| {
        let sql = format!(
            "SET ROLE service; SET embeddery.tenant = '{who}'; SELECT count(*) FROM embeddery.{table}"
        );
        server().sql("service", &sql)
    };
    for table in ["collections", "generations", "documents", "chunks", "vectors"] {
        assert_eq!(count(&tenant.name, table).trim(), "1", "{table}");
        assert_eq!(count("nobody", table).trim(), "0", "{table}");
    }
}

/// A small tenant's vectors among many others' in one index: all of them are found, as many as were asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_tenant_among_large_ones_gets_enough() {
    let store = store().await;
    let (large, small) = (Tenant::new(Arc::clone(&store)), Tenant::new(store));
    let made = |i: u64, far: bool| {
        let mut made = document(&i.to_string(), &[&format!("t{i}")], json!({"even": i.is_multiple_of(2)}));
        let v = vector(i, DIM);
        made.chunks[0].vector = Some(if far {
            v.iter().map(|x| -x.abs()).collect()
        } else {
            v.iter().map(|x| x.abs()).collect()
        });
        made
    };
    large.with((0..5000).map(|i| made(i, false)).collect()).await;
    small.with((0..60).map(|i| made(i, true)).collect()).await;
    server().sql("service", "ANALYZE");
    let query = vec![1.0; DIM];
    assert_eq!(small.search(Mode::Vector(query.clone()), 50, None).await.len(), 50);
    assert_eq!(small.search(Mode::Vector(query.clone()), 30, Some(json!({"even": true}))).await.len(), 30);
    let hits = large.search(Mode::Vector(query.clone()), 10, None).await;
    let cosine = |v: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(v, &query) / (dot(v, v) * dot(&query, &query)).sqrt()
    };
    let mut due: Vec<f32> =
        (0..5000).map(|i| cosine(&vector(i, DIM).iter().map(|x| x.abs()).collect::<Vec<_>>())).collect();
    due.sort_by(|a, b| b.total_cmp(a));
    let right = hits.iter().filter(|hit| hit.score >= due[9] - 2e-3).count();
    assert!(right >= 9, "{right} of 10: {hits:?}");
}

/// What an index would walk past: the few that pass a filter are compared one by one, and none is missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_few_pass_misses_none_of_the_nearest() {
    let tenant = Tenant::new(store().await);
    let vector_of = |i: u64| vector(i, DIM);
    let made = |i: u64| {
        let mut made = document(&i.to_string(), &[&format!("t{i}")], json!({"rare": i.is_multiple_of(50)}));
        made.chunks[0].vector = Some(vector_of(i));
        made
    };
    tenant.with((0..3000).map(made).collect()).await;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for seed in 10_000..10_010 {
        let query = vector_of(seed);
        let cosine = |i: u64| dot(&vector_of(i), &query) / (dot(&vector_of(i), &vector_of(i))).sqrt();
        let mut due: Vec<u64> = (0..3000).step_by(50).collect();
        due.sort_by(|a, b| cosine(*b).total_cmp(&cosine(*a)));
        let hits = tenant.search(Mode::Vector(query.clone()), 10, Some(json!({"rare": true}))).await;
        let found: Vec<_> = hits.iter().map(|hit| hit.document.clone()).collect();
        let due: Vec<_> = due[..10].iter().map(u64::to_string).collect();
        assert_eq!(found, due);
    }
}

#[tokio::test]
async fn a_text_that_the_database_cannot_hold_is_the_callers() {
    let tenant = Tenant::new(store().await);
    tenant.create(C).await;
    assert_eq!(kind(tenant.add(vec![document("d", &["a\0b"], json!({}))]).await), StoreErrorKind::Invalid);
    assert_eq!(
        kind(tenant.add(vec![document("d", &["a"], json!({"x": "\0"}))]).await),
        StoreErrorKind::Invalid
    );
    assert_eq!(tenant.counts().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_takes_is_measured() {
    let mut registry = prometheus_client::registry::Registry::default();
    let url = tokio::task::spawn_blocking(|| server().url()).await.unwrap();
    let store = PostgresStore::new(&config(url)).unwrap().measured(PostgresMetrics::new(&mut registry));
    let tenant = Tenant::new(Arc::new(store));
    let documents = (0..3).map(|i| document(&i.to_string(), &[&format!("t{i}")], json!({})));
    tenant.with(documents.collect()).await;
    tenant.search(Mode::Vector(vec![1.0; DIM]), 2, None).await;
    let gone = ["0".to_owned(), "absent".to_owned()];
    tenant.store.delete(tenant.here(), DeleteTarget::Ids(&gone)).await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "pgvector_upsert_latency_seconds_count 1",
        "pgvector_query_latency_seconds_count 1",
        "pgvector_delete_latency_seconds_count 1",
        "pgvector_rows_upserted_total 3",
        "pgvector_rows_deleted_total 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// On a server of its own: the others must not miss theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_goes_and_comes_back() {
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let tenant = Tenant::new(Arc::new(PostgresStore::new(&config(own.url())).unwrap()));
    tenant.with(vec![document("d", &["one"], json!({}))]).await;
    own.stop();
    for _ in 0..2 {
        let refused = tenant.store.get(tenant.here()).await;
        assert!(matches!(kind(refused), StoreErrorKind::Unavailable { .. }));
    }
    assert!(matches!(kind(tenant.store.health().await), StoreErrorKind::Unavailable { .. }));
    own.serve();
    // What the pool has kept is of the old server; each is thrown away when it fails.
    while tenant.store.health().await.is_err() {}
    while tenant.store.get(tenant.here()).await.is_err() {}
    assert_eq!(tenant.near("one", 5).await, ["one"]);
    own.stop();
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    own.sql("service", "SET ROLE service; CREATE SCHEMA embeddery; CREATE TABLE embeddery.migrations (version integer PRIMARY KEY); INSERT INTO embeddery.migrations VALUES (99)");
    let store = PostgresStore::new(&config(own.url())).unwrap();
    assert_eq!(kind(store.health().await), StoreErrorKind::TooNew);
    own.stop();
}

#[test]
fn a_url_that_is_none_is_not_repeated() {
    let Err(error) = PostgresStore::new(&config("postgres://u:hunter2@[".into())) else {
        panic!("it is one")
    };
    assert!(!error.to_string().contains("hunter2"));
}
