//! The embedded store: the conformance suite, and tests of this store alone: several processes, files of other versions,
//! a full disk, and little memory.

use std::{fs, path::Path, sync::Arc};

use embeddery_store::{SearchMode, SqliteConfig, SqliteStore, StoreErrorKind, VectorStore};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{COLLECTION, Tenant, document, error_kind, vector_of};

/// A store in a temporary directory that is not deleted.
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

/// Two stores over one directory. Like two processes, they share nothing but the files.
fn two_processes() -> (TempDir, Tenant, Tenant) {
    let dir = tempfile::tempdir().unwrap();
    let a = Tenant::new(Arc::new(SqliteStore::new(config(dir.path()))));
    let b = Tenant { store: Arc::new(SqliteStore::new(config(dir.path()))), name: a.name.clone() };
    (dir, a, b)
}

#[tokio::test]
async fn a_search_sees_writes_of_another_process() {
    let (_dir, a, b) = two_processes();
    a.create_with(vec![document("d", &["one"], json!({}))]).await;
    assert_eq!(b.near("one", 1).await, ["one"]);
    a.upsert(vec![document("d", &["two"], json!({})), document("e", &["three"], json!({}))]).await.unwrap();
    let mut found = b.near("one", 5).await;
    found.sort();
    assert_eq!(found, ["three", "two"]);
}

#[tokio::test]
async fn a_user_that_another_process_deleted_starts_empty() {
    let (_dir, a, b) = two_processes();
    a.create_with(vec![document("d", &["one"], json!({}))]).await;
    assert_eq!(b.near("one", 1).await, ["one"]);
    a.store.delete_tenant(&a.name).await.unwrap();
    assert_eq!(error_kind(b.store.get(b.collection()).await), StoreErrorKind::NotFound);
    b.create_with(vec![document("n", &["new"], json!({}))]).await;
    assert_eq!(a.near("one", 5).await, ["new"]);
}

/// A connection that holds the write lock of a user's file, as another process does that migrates it.
fn lock_file(dir: &Path, tenant: &Tenant) -> rusqlite::Connection {
    let file = rusqlite::Connection::open(dir.join(&tenant.name).join("vectors.db")).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    file
}

/// The migration of a large file takes long. More requests of its user wait than may read at the same time.
#[tokio::test]
async fn a_user_whose_file_is_migrated_delays_no_other() {
    let (dir, a, other_process) = two_processes();
    a.create_with(vec![document("d", &["one"], json!({}))]).await;
    let lock = lock_file(dir.path(), &a);
    let other = Tenant::new(Arc::clone(&other_process.store));
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let (store, name) = (Arc::clone(&other_process.store), a.name.clone());
            tokio::spawn(async move { store.list(&name).await })
        })
        .collect();
    other.create_with(vec![document("d", &["two"], json!({}))]).await;
    assert_eq!(other.near("two", 5).await, ["two"]);
    assert_eq!(other.counts().await, (1, 1));
    drop(lock);
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().len(), 1, "the file was free in time");
    }
}

/// The time limit of the lock is ten seconds.
#[tokio::test]
async fn a_file_that_another_process_migrates_is_unavailable() {
    let (dir, a, b) = two_processes();
    a.create(COLLECTION).await;
    let _lock = lock_file(dir.path(), &a);
    let error = b.store.get(b.collection()).await.unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (dir, a, b) = two_processes();
    a.create(COLLECTION).await;
    let path = dir.path().join(&a.name).join("vectors.db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = b.store.get(b.collection()).await.unwrap_err();
    assert!(error.kind == StoreErrorKind::TooNew && error.message.contains("schema 99"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(Arc::new(SqliteStore::new(config(dir.path()))));
    fs::create_dir(dir.path().join(&tenant.name)).unwrap();
    fs::write(dir.path().join(&tenant.name).join("vectors.db"), vec![7u8; 10_000]).unwrap();
    assert_eq!(error_kind(tenant.store.list(&tenant.name).await), StoreErrorKind::Internal);
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_writes_but_not_reads() {
    let (dir, a, _) = two_processes();
    a.create_with(vec![document("d", &["one"], json!({}))]).await;
    let full = SqliteConfig { min_free_bytes: u64::MAX, ..config(dir.path()) };
    let b = Tenant { store: Arc::new(SqliteStore::new(full)), name: a.name.clone() };
    let error = b.upsert(vec![document("e", &["two"], json!({}))]).await.unwrap_err();
    assert!(error.kind == StoreErrorKind::Full && error.message.contains("MiB free"), "{error}");
    assert_eq!(error_kind(b.store.health().await), StoreErrorKind::Full);
    assert_eq!(b.near("one", 5).await, ["one"]);
    b.store.drop_collection(b.collection()).await.unwrap();
}

/// More users are in use than may be open, and matrices are larger than the memory for them.
#[tokio::test]
async fn results_are_right_with_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let small = SqliteConfig { open_users: 2, matrix_bytes: 400, ..config(dir.path()) };
    let store: Arc<dyn VectorStore> = Arc::new(SqliteStore::new(small));
    let tenants: Vec<_> = (0..5).map(|_| Tenant::new(Arc::clone(&store))).collect();
    for (size, tenant) in tenants.iter().enumerate() {
        let texts: Vec<String> = (0..=size * 2).map(|i| format!("t{i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        tenant
            .create_with(vec![
                document("d", &texts, json!({"big": size > 2})),
                document("e", &["e"], json!({})),
            ])
            .await;
    }
    for _ in 0..2 {
        for (size, tenant) in tenants.iter().enumerate() {
            assert_eq!(tenant.near("t0", 1).await, ["t0"]);
            assert_eq!(tenant.near("t0", 50).await.len(), size * 2 + 2);
            let hits =
                tenant.search(SearchMode::Vector(vector_of("t0")), 50, Some(json!({"big": true}))).await;
            assert_eq!(hits.len(), if size > 2 { size * 2 + 1 } else { 0 });
        }
    }
}

#[tokio::test]
async fn a_backup_is_a_usable_database() {
    let (dir, a, _) = two_processes();
    a.create_with(vec![document("d", &["one", "two"], json!({}))]).await;
    let backup = a.store.backup(&a.name).await.unwrap();
    let file = dir.path().join(&a.name).join("backups").join(&backup.name);
    assert_eq!(fs::metadata(&file).unwrap().len(), backup.bytes);
    a.store.drop_collection(a.collection()).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join(&a.name)).unwrap();
    fs::copy(&file, other.path().join(&a.name).join("vectors.db")).unwrap();
    let restored = Tenant { store: Arc::new(SqliteStore::new(config(other.path()))), name: a.name.clone() };
    assert_eq!(restored.near("two", 1).await, ["two"]);
    assert_eq!(restored.counts().await, (1, 2));
}
