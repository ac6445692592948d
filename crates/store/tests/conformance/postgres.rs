//! The distributed store: the conformance suite on a real server, and tests of this store alone: row-level security,
//! results of a filtered index scan, metrics, and outages of the database.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use embeddery_store::{
    DeleteTarget, PostgresConfig, PostgresMetrics, PostgresStore, SearchMode, StoreErrorKind, VectorStore,
};
use serde_json::{Value, json};

use crate::{
    server::Postgres,
    support::{COLLECTION, DIM, Tenant, document, error_kind, texts, vector},
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
async fn row_level_security_separates_tenants() {
    let tenant = Tenant::new(store().await);
    tenant.create_with(vec![document("d", &["one"], json!({}))]).await;
    let count = |tenant: &str, table: &str| {
        let sql = format!(
            "SET ROLE service; SET embeddery.tenant = '{tenant}'; SELECT count(*) FROM embeddery.{table}"
        );
        server().sql("service", &sql)
    };
    for table in ["collections", "generations", "documents", "chunks", "vectors", "word_totals"] {
        assert_eq!(count(&tenant.name, table).trim(), "1", "{table}");
        assert_eq!(count("other", table).trim(), "0", "{table}");
    }
    let collection = server()
        .sql("service", &format!("SELECT id FROM embeddery.collections WHERE tenant = '{}'", tenant.name));
    let token = format!("{:x}_one", collection.trim().parse::<i64>().unwrap());
    let count_words = |tenant: &str, words: &str| {
        let sql = format!(
            "SET ROLE service; SET embeddery.tenant = '{tenant}'; SET embeddery.words = '{words}'; SELECT count(*) FROM embeddery.words"
        );
        server().sql("service", &sql)
    };
    assert_eq!(count_words(&tenant.name, &token).trim(), "1");
    assert_eq!(count_words("other", &token).trim(), "0");
    assert_eq!(count_words(&tenant.name, "").trim(), "0", "no row without words");
}

/// A condition on words is part of a policy, because the index cannot be used otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_words_uses_the_index() {
    let tenant = Tenant::new(store().await);
    let documents = (0..3000).map(|i| document(&i.to_string(), &[&format!("word{i}x")], json!({})));
    tenant.create_with(documents.collect()).await;
    // Entries that are not merged into the index yet make the planner read the table.
    server().sql("service", "VACUUM ANALYZE embeddery.words");
    let sql = format!(
        "SET ROLE service; SET embeddery.tenant = '{}'; SET embeddery.words = '1_word7x';
         EXPLAIN SELECT count(*) FROM embeddery.words WHERE tokens @@ '1_word7x'::tsquery",
        tenant.name
    );
    let plan = server().sql("service", &sql);
    assert!(plan.contains("words_by_token"), "{plan}");
}

/// Databases of other locales find the same words. Locales that the machine or the server does not have are left out.
#[tokio::test(flavor = "multi_thread")]
async fn words_do_not_depend_on_the_locale() {
    let locales = [
        ("c_utf8", "LOCALE 'C.UTF-8'"),
        ("en_us", "LOCALE 'en_US.UTF-8'"),
        ("builtin", "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"),
        ("icu", "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'"),
    ];
    let mut tried = Vec::new();
    for (name, options) in locales {
        let created = tokio::task::spawn_blocking(move || {
            let sql =
                format!("CREATE DATABASE {name} OWNER service TEMPLATE template0 ENCODING 'UTF8' {options}");
            server().try_sql("postgres", &sql).map(|_| server().sql(name, "CREATE EXTENSION vector"))
        });
        if created.await.unwrap().is_err() {
            continue;
        }
        let new_tenant = || {
            let store: Arc<dyn VectorStore> =
                Arc::new(PostgresStore::new(&config(server().url_of(name))).unwrap());
            Tenant::new(store)
        };
        crate::words::words_of_all_scripts_are_found(&new_tenant()).await;
        crate::words::technical_forms_are_found(&new_tenant()).await;
        tried.push(name);
    }
    assert!(tried.contains(&"c_utf8"), "{tried:?}");
}

/// The service starts on a database of the schema before the index of words had our tokens.
#[tokio::test(flavor = "multi_thread")]
async fn words_of_an_earlier_version_are_indexed_again() {
    let database = "earlier";
    tokio::task::spawn_blocking(move || {
        server().sql("postgres", &format!("CREATE DATABASE {database} OWNER service"));
        server().sql(database, "CREATE EXTENSION vector");
    })
    .await
    .unwrap();
    let new_store = || -> Arc<dyn VectorStore> {
        Arc::new(PostgresStore::new(&config(server().url_of(database))).unwrap())
    };
    let tenants: Vec<Tenant> = (0..3).map(|_| Tenant::new(new_store())).collect();
    for (i, tenant) in tenants.iter().enumerate() {
        let texts = ["使用Redis缓存", "jane@example.org", "Straße"];
        let documents = texts.iter().map(|text| document(text, &[text, &format!("text {i}")], json!({})));
        tenant.create_with(documents.collect()).await;
    }
    tokio::task::spawn_blocking(move || {
        server().sql(
            database,
            "DROP TABLE embeddery.words, embeddery.word_totals;
             DROP FUNCTION embeddery.count_matches;
             DROP FUNCTION embeddery.refuse_earlier_versions CASCADE;
             ALTER TABLE embeddery.chunks DROP COLUMN word_count;
             ALTER TABLE embeddery.chunks ADD COLUMN
                 words tsvector GENERATED ALWAYS AS (to_tsvector('simple', left(text, 200000))) STORED;
             CREATE INDEX chunks_by_words ON embeddery.chunks USING gin (words);
             DELETE FROM embeddery.migrations WHERE version = 4",
        )
    })
    .await
    .unwrap();
    for (i, tenant) in tenants.iter().enumerate() {
        let tenant = Tenant { store: new_store(), name: tenant.name.clone() };
        let find = async |query: &str| {
            let hits = tenant.search(SearchMode::Text(query.into()), 10, None).await;
            hits.into_iter().map(|hit| hit.document).collect::<Vec<_>>()
        };
        assert_eq!(find("缓存").await, ["使用Redis缓存"]);
        assert_eq!(find("jane").await, ["jane@example.org"]);
        assert_eq!(find("STRASSE").await, ["Straße"]);
        assert_eq!(find(&format!("\"text {i}\"")).await.len(), 3);
        assert_eq!(find(&format!("\"text {}\"", i + 1)).await.len(), 0);
        tenant.upsert(vec![document("new", &["数据库"], json!({}))]).await.unwrap();
        assert_eq!(find("数据库").await, ["new"]);
    }
    let totals = server().sql(database, "SELECT sum(chunks), sum(words) = (SELECT sum(word_count) FROM embeddery.words) FROM embeddery.word_totals");
    assert_eq!(totals.trim(), "21|t");
}

/// The number of chunks of a tenant and the sum of their tokens: as they are kept, and as they are.
fn word_totals(tenant: &Tenant) -> (String, String) {
    let sum = |columns: &str, table: &str| {
        let sql = format!("SELECT {columns} FROM embeddery.{table} WHERE tenant = '{}'", tenant.name);
        server().sql("service", &sql).trim().to_owned()
    };
    (
        sum("coalesce(sum(chunks), 0), coalesce(sum(words), 0)", "word_totals"),
        sum("count(*), coalesce(sum(word_count), 0)", "chunks"),
    )
}

/// Deletions wait for writers of the same document, and count the chunks that these have written.
#[tokio::test(flavor = "multi_thread")]
async fn the_totals_of_words_survive_concurrent_writers() {
    let tenant = Arc::new(Tenant::new(store().await));
    tenant.create(COLLECTION).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let tenant = Arc::clone(&tenant);
        writers.spawn(async move {
            for round in 0..40 {
                if writer % 2 == 0 {
                    let texts: Vec<String> = (0..=round % 5).map(|i| format!("{writer} {i}")).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    tenant.upsert(vec![document("d", &texts, json!({"k": 1}))]).await.unwrap();
                } else {
                    let (ids, filter) = (["d".to_owned()], crate::support::filter(&json!({"k": 1})));
                    let target = match round % 3 {
                        0 => DeleteTarget::Ids(&ids),
                        1 => DeleteTarget::Where(&filter),
                        _ => DeleteTarget::All,
                    };
                    tenant.store.delete(tenant.collection(), target).await.unwrap();
                }
            }
        });
    }
    writers.join_all().await;
    let (kept, counted) = word_totals(&tenant);
    assert_eq!(kept, counted);
}

/// A wrong total only changes scores.
#[tokio::test]
async fn a_negative_total_of_words_does_not_end_searches() {
    let tenant = Tenant::new(store().await);
    tenant.create_with(vec![document("d", &["red fox"], json!({}))]).await;
    let sql = format!(
        "UPDATE embeddery.word_totals SET chunks = -90, words = -90 WHERE tenant = '{}'",
        tenant.name
    );
    server().sql("service", &sql);
    assert_eq!(texts(tenant.search(SearchMode::Text("fox".into()), 5, None).await), ["red fox"]);
}

/// Version 0.2.0 does not count words, so the database refuses its deletions. The error is one that it reports as an
/// outage.
#[tokio::test]
async fn an_earlier_version_cannot_remove_chunks() {
    let tenant = Tenant::new(store().await);
    tenant.create_with(vec![document("d", &["red fox"], json!({}))]).await;
    for statement in ["DELETE FROM embeddery.documents", "DELETE FROM embeddery.chunks WHERE id = ANY('{}')"]
    {
        let sql = format!("SET ROLE service; SET embeddery.tenant = '{}'; {statement}", tenant.name);
        let error = server().try_sql("service", &sql).unwrap_err();
        assert!(error.contains("can only be removed"), "{error}");
    }
    assert_eq!(tenant.counts().await, (1, 1));
}

/// A small tenant shares the index with a large one. Its searches still return `top_k` results.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_tenant_gets_all_results_beside_a_large_one() {
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
    large.create_with((0..5000).map(|i| made(i, false)).collect()).await;
    small.create_with((0..60).map(|i| made(i, true)).collect()).await;
    server().sql("service", "ANALYZE");
    let query = vec![1.0; DIM];
    assert_eq!(small.search(SearchMode::Vector(query.clone()), 50, None).await.len(), 50);
    assert_eq!(
        small.search(SearchMode::Vector(query.clone()), 30, Some(json!({"even": true}))).await.len(),
        30
    );
    let hits = large.search(SearchMode::Vector(query.clone()), 10, None).await;
    let cosine = |v: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(v, &query) / (dot(v, v) * dot(&query, &query)).sqrt()
    };
    let mut expected: Vec<f32> =
        (0..5000).map(|i| cosine(&vector(i, DIM).iter().map(|x| x.abs()).collect::<Vec<_>>())).collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    let right = hits.iter().filter(|hit| hit.score >= expected[9] - 2e-3).count();
    assert!(right >= 9, "{right} of 10: {hits:?}");
}

/// The few chunks that match a filter are compared one by one, so that none is missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_selective_filter_misses_none_of_the_nearest() {
    let tenant = Tenant::new(store().await);
    let vector_of = |i: u64| vector(i, DIM);
    let made = |i: u64| {
        let mut made = document(&i.to_string(), &[&format!("t{i}")], json!({"rare": i.is_multiple_of(50)}));
        made.chunks[0].vector = Some(vector_of(i));
        made
    };
    tenant.create_with((0..3000).map(made).collect()).await;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for seed in 10_000..10_010 {
        let query = vector_of(seed);
        let cosine = |i: u64| dot(&vector_of(i), &query) / (dot(&vector_of(i), &vector_of(i))).sqrt();
        let mut expected: Vec<u64> = (0..3000).step_by(50).collect();
        expected.sort_by(|a, b| cosine(*b).total_cmp(&cosine(*a)));
        let hits = tenant.search(SearchMode::Vector(query.clone()), 10, Some(json!({"rare": true}))).await;
        let found: Vec<_> = hits.iter().map(|hit| hit.document.clone()).collect();
        let expected: Vec<_> = expected[..10].iter().map(u64::to_string).collect();
        assert_eq!(found, expected);
    }
}

/// Metadata that an earlier version wrote has floats in their shortest form, and large ones as integers.
#[tokio::test]
async fn numbers_of_earlier_versions_are_read_and_found() {
    let tenant = Tenant::new(store().await);
    tenant
        .create_with(vec![document("d", &["x"], json!({"n": 0})), document("e", &["x"], json!({"n": 0}))])
        .await;
    let max = format!("17976931348623157{}", "0".repeat(292));
    let earlier = format!(r#"{{"n": [{max}, 1e22, 18446744073709552000, 0.1]}}"#);
    server().sql("service", &format!("SET ROLE service; SET embeddery.tenant = '{}'; UPDATE embeddery.documents SET metadata = '{earlier}' WHERE name = 'd'", tenant.name));
    let stored = tenant.store.document(tenant.collection(), "d").await.unwrap();
    assert_eq!(
        Value::Object(stored.metadata),
        json!({"n": [f64::MAX, 1e22, 18_446_744_073_709_551_616.0, 0.1]})
    );
    for number in [json!(f64::MAX), json!(1e22), json!(18_446_744_073_709_551_616.0), json!(0.1)] {
        let hits = tenant.search(SearchMode::Text("x".into()), 5, Some(json!({"n": number}))).await;
        assert_eq!(hits.iter().map(|hit| hit.document.as_str()).collect::<Vec<_>>(), ["d"], "{number}");
    }
}

/// The planner can serve equality by the index on metadata.
#[tokio::test]
async fn equality_uses_the_index_on_metadata() {
    let tenant = Tenant::new(store().await);
    tenant.create(COLLECTION).await;
    let plan = server().sql(
        "service",
        "SET enable_seqscan = off; SET enable_indexscan = off; EXPLAIN SELECT 1 FROM embeddery.documents d
         WHERE (d.metadata @? 'strict $.\"a\" ? (@ == 1)' OR d.metadata @? 'strict $.\"a\"[*] ? (@ == 1)')",
    );
    assert!(plan.contains("documents_by_metadata"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_recorded() {
    let mut registry = prometheus_client::registry::Registry::default();
    let url = tokio::task::spawn_blocking(|| server().url()).await.unwrap();
    let store = PostgresStore::new(&config(url)).unwrap().with_metrics(PostgresMetrics::new(&mut registry));
    let tenant = Tenant::new(Arc::new(store));
    let documents = (0..3).map(|i| document(&i.to_string(), &[&format!("t{i}")], json!({})));
    tenant.create_with(documents.collect()).await;
    tenant.search(SearchMode::Vector(vec![1.0; DIM]), 2, None).await;
    let ids = ["0".to_owned(), "absent".to_owned()];
    tenant.store.delete(tenant.collection(), DeleteTarget::Ids(&ids)).await.unwrap();
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

/// Uses its own server, because the server is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_recovers_after_an_outage() {
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let tenant = Tenant::new(Arc::new(PostgresStore::new(&config(own.url())).unwrap()));
    tenant.create_with(vec![document("d", &["one"], json!({}))]).await;
    own.stop();
    for _ in 0..2 {
        let refused = tenant.store.get(tenant.collection()).await;
        assert!(matches!(error_kind(refused), StoreErrorKind::Unavailable { .. }));
    }
    assert!(matches!(error_kind(tenant.store.health().await), StoreErrorKind::Unavailable { .. }));
    own.serve();
    // The pool still holds connections to the stopped server. Each is dropped at its first failure.
    while tenant.store.health().await.is_err() {}
    while tenant.store.get(tenant.collection()).await.is_err() {}
    assert_eq!(tenant.near("one", 5).await, ["one"]);
    own.stop();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let own = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    own.sql("service", "SET ROLE service; CREATE SCHEMA embeddery; CREATE TABLE embeddery.migrations (version integer PRIMARY KEY); INSERT INTO embeddery.migrations VALUES (99)");
    let store = PostgresStore::new(&config(own.url())).unwrap();
    assert_eq!(error_kind(store.health().await), StoreErrorKind::TooNew);
    own.stop();
}

#[test]
fn an_error_does_not_repeat_an_invalid_url() {
    let Err(error) = PostgresStore::new(&config("postgres://u:hunter2@[".into())) else {
        panic!("the URL is accepted")
    };
    assert!(!error.to_string().contains("hunter2"));
}
