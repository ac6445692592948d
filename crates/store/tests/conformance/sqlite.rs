//! The embedded store: the suite, and what only it has to prove: several processes, files of other versions, a
//! full disk, memory that is short.

use std::{fs, path::Path, sync::Arc};

use embeddery_store::{Mode, SqliteConfig, SqliteStore, StoreErrorKind, VectorStore};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{C, Tenant, document, kind, vector_of};

/// A store whose directory lives as long as the test's process; each tenant has its own directory in it.
pub async fn store() -> Arc<dyn VectorStore> {
    let dir = tempfile::tempdir().unwrap().keep();
    Arc::new(SqliteStore::new(config(&dir)))
}

fn config(dir: &Path) -> SqliteConfig {
    SqliteConfig {
        base_dir: dir.to_owned(),
        open_users: 8,
        matrix_bytes: 64 << 20,
        search_threads: 2,
        min_free_bytes: 0,
    }
}

crate::conformance!(crate::sqlite::store);

fn two() -> (TempDir, Tenant, Tenant) {
    let dir = tempfile::tempdir().unwrap();
    let a = Tenant::new(Arc::new(SqliteStore::new(config(dir.path()))));
    let b = Tenant { store: Arc::new(SqliteStore::new(config(dir.path()))), name: a.name.clone() };
    (dir, a, b)
}

/// Two stores over one directory are what two processes are: they share nothing but the files.
#[tokio::test]
async fn another_process_writes_and_this_one_finds_it() {
    let (_dir, a, b) = two();
    a.with(vec![document("d", &["one"], json!({}))]).await;
    assert_eq!(b.near("one", 1).await, ["one"]);
    a.add(vec![document("d", &["two"], json!({})), document("e", &["three"], json!({}))]).await.unwrap();
    let mut found = b.near("one", 5).await;
    found.sort();
    assert_eq!(found, ["three", "two"]);
}

#[tokio::test]
async fn a_user_deleted_by_another_process_begins_anew() {
    let (_dir, a, b) = two();
    a.with(vec![document("d", &["one"], json!({}))]).await;
    assert_eq!(b.near("one", 1).await, ["one"]);
    a.store.delete_tenant(&a.name).await.unwrap();
    assert_eq!(kind(b.store.get(b.here()).await), StoreErrorKind::NotFound);
    b.with(vec![document("n", &["new"], json!({}))]).await;
    assert_eq!(a.near("one", 5).await, ["new"]);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let (dir, a, b) = two();
    a.create(C).await;
    let path = dir.path().join(&a.name).join("vectors.db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = b.store.get(b.here()).await.unwrap_err();
    assert!(error.kind == StoreErrorKind::TooNew && error.message.contains("schema 99"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(Arc::new(SqliteStore::new(config(dir.path()))));
    fs::create_dir(dir.path().join(&tenant.name)).unwrap();
    fs::write(dir.path().join(&tenant.name).join("vectors.db"), vec![7u8; 10_000]).unwrap();
    assert_eq!(kind(tenant.store.list(&tenant.name).await), StoreErrorKind::Internal);
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_more_but_answers() {
    let (dir, a, _) = two();
    a.with(vec![document("d", &["one"], json!({}))]).await;
    let full = SqliteConfig { min_free_bytes: u64::MAX, ..config(dir.path()) };
    let b = Tenant { store: Arc::new(SqliteStore::new(full)), name: a.name.clone() };
    let error = b.add(vec![document("e", &["two"], json!({}))]).await.unwrap_err();
    assert!(error.kind == StoreErrorKind::Full && error.message.contains("MiB free"), "{error}");
    assert_eq!(kind(b.store.health().await), StoreErrorKind::Full);
    assert_eq!(b.near("one", 5).await, ["one"]);
    b.store.drop_collection(b.here()).await.unwrap();
}

/// More users and more vectors than may be held at once.
#[tokio::test]
async fn little_memory_makes_it_slower_not_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let small = SqliteConfig { open_users: 2, matrix_bytes: 400, ..config(dir.path()) };
    let store: Arc<dyn VectorStore> = Arc::new(SqliteStore::new(small));
    let tenants: Vec<_> = (0..5).map(|_| Tenant::new(Arc::clone(&store))).collect();
    for (size, tenant) in tenants.iter().enumerate() {
        let texts: Vec<String> = (0..=size * 2).map(|i| format!("t{i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        tenant
            .with(vec![document("d", &texts, json!({"big": size > 2})), document("e", &["e"], json!({}))])
            .await;
    }
    for _ in 0..2 {
        for (size, tenant) in tenants.iter().enumerate() {
            assert_eq!(tenant.near("t0", 1).await, ["t0"]);
            assert_eq!(tenant.near("t0", 50).await.len(), size * 2 + 2);
            let hits = tenant.search(Mode::Vector(vector_of("t0")), 50, Some(json!({"big": true}))).await;
            assert_eq!(hits.len(), if size > 2 { size * 2 + 1 } else { 0 });
        }
    }
}

#[tokio::test]
async fn a_backup_is_a_database_that_answers() {
    let (dir, a, _) = two();
    a.with(vec![document("d", &["one", "two"], json!({}))]).await;
    let backup = a.store.backup(&a.name).await.unwrap();
    let file = dir.path().join(&a.name).join("backups").join(&backup.name);
    assert_eq!(fs::metadata(&file).unwrap().len(), backup.bytes);
    a.store.drop_collection(a.here()).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join(&a.name)).unwrap();
    fs::copy(&file, other.path().join(&a.name).join("vectors.db")).unwrap();
    let restored = Tenant { store: Arc::new(SqliteStore::new(config(other.path()))), name: a.name.clone() };
    assert_eq!(restored.near("two", 1).await, ["two"]);
    assert_eq!(restored.counts().await, (1, 2));
}
